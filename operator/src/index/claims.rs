//! Which of several meshes in one cluster may have a DNS domain. Each operator decides this for
//! itself, all from the same objects and so in the same way. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use kube::ResourceExt;
use weft_crds::MeshConfig;

use super::scope;

/// Keeps a MeshConfig until what lies outside of its namespace's garbage collection is gone. Whoever has it is, or was, served.
pub const FINALIZER: &str = "weft.mesh/cleanup";

/// Whether the MeshConfig stays until what was made for it is gone.
pub fn is_kept(mesh: &MeshConfig) -> bool {
    mesh.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Why a MeshConfig is not served: another one, of another namespace, has what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// `namespace/name` of the other.
    mesh: String,
    /// What it has.
    domain: String,
}

impl Rival {
    /// In one word, for machines.
    pub fn reason(&self) -> &'static str {
        "DomainTaken"
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mesh, domain } = self;
        write!(
            f,
            "MeshConfig {mesh} is older and has {domain}: name other domains in spec.domains, or delete one of the two; nothing is done for this one until then"
        )
    }
}

/// What keeps the MeshConfig that is active in `namespace` from being served. Of all namespaces those count for which
/// `operated` says that there is an operator.
///
/// Who is served already comes first, so that nobody's traffic is taken over by a newcomer; then the older.
pub fn rival<'a>(
    namespace: &str,
    meshes: impl Iterator<Item = &'a Arc<MeshConfig>>,
    operated: impl Fn(&str) -> bool,
) -> Option<Rival> {
    let meshes: Vec<_> = meshes.collect();
    let mut namespaces: BTreeSet<_> = meshes.iter().filter_map(|mesh| mesh.namespace()).collect();
    namespaces.retain(|one| one == namespace || operated(one));
    let mut claims: Vec<_> =
        namespaces.iter().filter_map(|namespace| scope::active(meshes.iter().copied(), namespace)).collect();
    claims.sort_by_key(|mesh| {
        (!is_kept(mesh), mesh.creation_timestamp().map(|time| time.0), mesh.namespace(), mesh.name_any())
    });
    let mut served: Vec<&Arc<MeshConfig>> = Vec::new();
    for mesh in claims {
        let conflict = served.iter().find_map(|other| conflict(mesh, other));
        if mesh.namespace().as_deref() == Some(namespace) {
            return conflict;
        }
        if conflict.is_none() {
            served.push(mesh);
        }
    }
    None
}

fn conflict(mesh: &MeshConfig, other: &MeshConfig) -> Option<Rival> {
    let within = |one: &str, other: &str| {
        one.strip_suffix(other).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let taken = mesh.spec.domains.iter().find_map(|mine| {
        let mut theirs = other.spec.domains.iter();
        theirs.find(|theirs| within(mine, theirs) || within(theirs, mine))
    });
    let mesh = format!("{}/{}", other.namespace().unwrap_or_default(), other.name_any());
    Some(Rival { mesh, domain: taken?.clone() })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use weft_crds::MeshConfigSpec;
    use weft_crds::meshconfig::DnsProvider;

    use super::*;

    /// A MeshConfig named `m` with DNS by hand.
    fn mesh(namespace: &str, second: i64, domains: &[&str]) -> MeshConfig {
        let mut mesh = MeshConfig::new("m", MeshConfigSpec::default());
        mesh.metadata.namespace = Some(namespace.into());
        mesh.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
        mesh.spec.domains = domains.iter().map(ToString::to_string).collect();
        mesh.spec.dns.provider = DnsProvider::None;
        mesh
    }

    fn served(mut mesh: MeshConfig) -> MeshConfig {
        mesh.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        mesh
    }

    /// The rivals of the meshes in `a`, `b` and `c`, of which `without` has no operator.
    fn rivals(meshes: &[MeshConfig], without: &str) -> [Option<String>; 3] {
        let meshes: Vec<_> = meshes.iter().cloned().map(Arc::new).collect();
        ["a", "b", "c"].map(|namespace| {
            Some(rival(namespace, meshes.iter(), |one| one != without)?.mesh.split('/').next()?.to_owned())
        })
    }

    #[test]
    fn of_two_that_want_one_domain_the_older_has_it() {
        let (older, newer) = (mesh("b", 1, &["weft.mesh"]), mesh("a", 2, &["other.mesh", "weft.mesh"]));
        let expected = [Some("b".to_owned()), None, None];
        assert_eq!(rivals(&[older.clone(), newer.clone()], "-"), expected);
        assert_eq!(rivals(&[newer.clone(), older.clone()], "-"), expected, "whatever the order");
        assert_eq!(rivals(&[served(older.clone()), served(newer.clone())], "-"), expected);
        // Who is served keeps what it has.
        assert_eq!(rivals(&[older.clone(), served(newer.clone())], "-"), [None, Some("a".into()), None]);
        // One that no operator serves takes nothing.
        assert_eq!(rivals(&[older, newer], "b")[0], None);
        // Made in the same second: by namespace.
        let (a, b) = (mesh("a", 1, &["x.y"]), mesh("b", 1, &["x.y"]));
        assert_eq!(rivals(&[b, a], "-"), [None, Some("a".into()), None]);
    }

    #[test]
    fn a_domain_within_another_is_the_same_and_neighbours_are_not() {
        for (one, other, same) in [
            ("weft.mesh", "a.weft.mesh", true),
            ("a.weft.mesh", "weft.mesh", true),
            ("weft.mesh", "aweft.mesh", false),
            ("a.mesh", "b.mesh", false),
        ] {
            let both = [mesh("a", 1, &[one]), mesh("b", 2, &[other])];
            assert_eq!(rivals(&both, "-")[1].is_some(), same, "{one} and {other}");
        }
    }

    #[test]
    fn one_corefile_has_room_for_both() {
        let (mut a, mut b) = (mesh("a", 1, &["a.mesh"]), mesh("b", 2, &["b.mesh"]));
        (a.spec.dns.provider, b.spec.dns.provider) = (DnsProvider::CoreDNS, DnsProvider::CoreDNS);
        assert_eq!(rivals(&[a, b], "-"), [None, None, None]);
    }

    #[test]
    fn who_is_not_served_is_in_nobodys_way() {
        // b yields to a, so that c may have what b wants.
        let all = [mesh("a", 1, &["x.y"]), mesh("b", 2, &["x.y", "z.y"]), mesh("c", 3, &["z.y"])];
        assert_eq!(rivals(&all, "-"), [None, Some("a".into()), None]);
        let text = rival("b", all.map(Arc::new).iter(), |_| true).unwrap();
        assert_eq!(text.reason(), "DomainTaken");
        assert!(text.to_string().starts_with("MeshConfig a/m is older and has x.y:"), "{text}");
    }
}
