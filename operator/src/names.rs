//! Names of shadow Services.
//!
//! `<service>-weft-<namespace>` where that is short enough and can be read in one way only: those names DNS rewrites by one
//! rule. All others get a name from a hash and an exact rewrite line each. Two Services never share a name.

use ring::digest::{SHA256, digest};
use weft_config::ServiceId;

/// What stands between a Service's name and its namespace.
pub const SEPARATOR: &str = "-weft-";

/// The longest name a Service may have (RFC 1035 label).
const LONGEST: usize = 63;

/// Name of a shadow Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShadowName {
    /// Found by the rule.
    Ruled(String),
    /// Needs a line of its own.
    Hashed(String),
}

impl ShadowName {
    /// The shadow of `id`.
    pub fn of(id: &ServiceId) -> Self {
        let (name, namespace) = (&id.name, &id.namespace);
        let ruled = format!("{name}{SEPARATOR}{namespace}");
        // The separator may stand in the whole once only, or two Services could come to the same name.
        let once = ruled.match_indices(SEPARATOR).count() == 1 && !overlaps(&ruled);
        if once && ruled.len() <= LONGEST {
            return Self::Ruled(ruled);
        }
        // A cryptographic hash: nobody can make a Service whose shadow is somebody else's.
        let hash = digest(&SHA256, id.to_string().as_bytes());
        let hex: String = hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        Self::Hashed(format!("weft-{hex}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Ruled(name) | Self::Hashed(name) => name,
        }
    }
}

/// Whether the separator stands there a second time, sharing its dash with the first: `a-weft-weft-b`.
fn overlaps(name: &str) -> bool {
    name.contains("-weft-weft-")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Names made of the parts that are hard to tell apart.
    fn label() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "weft", "b", "weft", "c1"]), 1..5)
            .prop_map(|v| v.join("-"))
    }

    proptest! {
        #[test]
        fn two_services_never_share_a_name(a in label(), b in label(), c in label(), d in label()) {
            let (one, other) = (ServiceId::new(a, b), ServiceId::new(c, d));
            let same = ShadowName::of(&one) == ShadowName::of(&other);
            prop_assert_eq!(same, one == other);
        }

        #[test]
        fn the_rule_reads_back_what_it_made(namespace in label(), name in label()) {
            if let ShadowName::Ruled(ruled) = ShadowName::of(&ServiceId::new(namespace.clone(), name.clone())) {
                prop_assert_eq!(ruled.split_once(SEPARATOR), Some((name.as_str(), namespace.as_str())));
                prop_assert_eq!(ruled.rsplit_once(SEPARATOR), Some((name.as_str(), namespace.as_str())));
            }
        }

        /// DNS rewrites every mesh name that has no line of its own by the rule, also those of Services that are not there.
        #[test]
        fn the_rule_never_leads_to_somebody_elses_shadow(a in label(), b in label(), c in label(), d in label()) {
            let (asked, other) = (ServiceId::new(a, b), ServiceId::new(c, d));
            let led_to = format!("{}{SEPARATOR}{}", asked.name, asked.namespace);
            prop_assert!(asked == other || led_to != ShadowName::of(&other).as_str());
        }

        #[test]
        fn names_are_valid_labels(namespace in "[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name in "[a-z]([-a-z0-9]{0,61}[a-z0-9])?") {
            let shadow = ShadowName::of(&ServiceId::new(namespace, name));
            prop_assert!(shadow.as_str().len() <= LONGEST);
        }
    }

    #[test]
    fn ordinary_names_are_readable() {
        let of = |namespace: &str, name: &str| ShadowName::of(&ServiceId::new(namespace, name));
        assert_eq!(of("shop", "cart"), ShadowName::Ruled("cart-weft-shop".into()));
        assert!(matches!(of("shop", "a-weft-b"), ShadowName::Hashed(_)));
        assert!(matches!(of("weft-b", "a"), ShadowName::Hashed(_)), "would read as a-weft / b, too");
        assert!(matches!(of(&"n".repeat(40), &"s".repeat(40)), ShadowName::Hashed(_)));
    }
}
