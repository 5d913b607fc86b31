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

/// Why a MeshConfig does not have all that it asks for: others, of other namespaces, have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// What was asked for, and what `namespace/name` of another has: the same, or what is within or above it.
    taken: Vec<(String, String, String)>,
    left: Left,
    /// The name of the MeshConfig that asks.
    by: String,
}

/// What is left to one that does not have everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It was never served, and waits until it can have everything.
    Nothing,
    /// No domain. What it carries it goes on to carry.
    NoDomain,
    /// The rest.
    Rest,
}

impl Rival {
    /// In one word, for machines.
    pub fn reason(&self) -> &'static str {
        DOMAIN_TAKEN
    }

    /// The name of the MeshConfig of our namespace that asks for them.
    pub fn asked_by(&self) -> &str {
        &self.by
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let theirs = self.taken.iter().map(|(_, theirs, mesh)| format!("MeshConfig {mesh} has {theirs}"));
        write!(
            f,
            "{}: name other domains in spec.domains, or delete one of the two; ",
            theirs.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
        )?;
        match self.left {
            Left::Nothing => f.write_str("nothing is done for this one until then"),
            Left::NoDomain => f.write_str("until then none of its names resolves"),
            Left::Rest => {
                let mine: Vec<_> = self.taken.iter().map(|(mine, ..)| mine.as_str()).collect();
                write!(f, "until then this one is served without {}", mine.join(" and "))
            }
        }
    }
}

/// Why a MeshConfig does not have what it asks for, in one word.
pub const DOMAIN_TAKEN: &str = "DomainTaken";

/// What there is for a namespace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Share {
    /// The MeshConfig that is served, with the domains that it has.
    pub active: Option<Arc<MeshConfig>>,
    /// Who has what else it asks for.
    pub rival: Option<Rival>,
}

/// One domain that somebody asks for.
struct Claim<'a> {
    mesh: &'a Arc<MeshConfig>,
    domain: &'a str,
}

/// What the MeshConfig that is the active one of `namespace` may have. Of all namespaces those count for which `operated` says
/// that there is an operator, and those that have something in DNS.
///
/// A domain stays with who has it, by its status; else who is served already comes first, so that nobody's traffic is taken over
/// by a newcomer; then the older. Who is served goes on with what is left to it, be it no domain: connections go on, and a slip is
/// taken back without harm. Who is not waits until it can have everything.
pub fn share<'a>(
    namespace: &str,
    meshes: impl Iterator<Item = &'a Arc<MeshConfig>>,
    operated: impl Fn(&str) -> bool,
) -> Share {
    let meshes: Vec<_> = meshes.collect();
    let mut namespaces: BTreeSet<_> = meshes.iter().filter_map(|mesh| mesh.namespace()).collect();
    // An operator's Service may be made anew; what is in DNS meanwhile is.
    let has_something = |one: &str| {
        let mut of_it = meshes.iter().filter(|mesh| mesh.metadata.namespace.as_deref() == Some(one));
        of_it.any(|mesh| is_kept(mesh) && mesh.spec.domains.iter().any(|domain| has(mesh, domain)))
    };
    namespaces.retain(|one| one == namespace || operated(one) || has_something(one));
    let active = |namespace: &str| scope::active(meshes.iter().copied(), namespace);
    let claimants = namespaces.iter().filter_map(|namespace| active(namespace));
    let had =
        had(claimants.flat_map(|mesh| mesh.spec.domains.iter().map(move |domain| Claim { mesh, domain })));
    let Some(mesh) = active(namespace) else { return Share::default() };
    let taken = mesh.spec.domains.iter().filter_map(|domain| {
        let theirs = had.iter().find(|claim| claim.is_in_the_way_of(mesh, domain))?;
        let name = format!("{}/{}", theirs.mesh.namespace().unwrap_or_default(), theirs.mesh.name_any());
        Some((domain.clone(), theirs.domain.to_owned(), name))
    });
    let taken: Vec<_> = taken.collect();
    let mut left = mesh.spec.domains.clone();
    left.retain(|domain| taken.iter().all(|(mine, ..)| mine != domain));
    let served = taken.is_empty() || is_kept(mesh);
    let what = match (served, left.is_empty()) {
        (false, _) => Left::Nothing,
        (true, true) => Left::NoDomain,
        (true, false) => Left::Rest,
    };
    Share {
        active: served.then(|| Arc::new(with_domains(mesh, left))),
        rival: (!taken.is_empty()).then(|| Rival { taken, left: what, by: mesh.name_any() }),
    }
}

/// The claims that are granted.
fn had<'a>(claims: impl Iterator<Item = Claim<'a>>) -> Vec<Claim<'a>> {
    let mut claims: Vec<_> = claims.collect();
    claims.sort_by_key(|Claim { mesh, domain }| {
        let kept = is_kept(mesh);
        let has = kept && has(mesh, domain);
        (!has, !kept, mesh.creation_timestamp().map(|time| time.0), mesh.namespace(), mesh.name_any())
    });
    let mut had: Vec<Claim<'_>> = Vec::new();
    for claim in claims {
        let alone = [claim.domain.to_owned()];
        let wanted = if is_kept(claim.mesh) { &alone[..] } else { &claim.mesh.spec.domains };
        let is_free = |domain: &String| !had.iter().any(|other| other.is_in_the_way_of(claim.mesh, domain));
        if wanted.iter().all(is_free) {
            had.push(claim);
        }
    }
    had
}

impl Claim<'_> {
    /// Whether `mesh` cannot have `domain` beside it.
    fn is_in_the_way_of(&self, mesh: &Arc<MeshConfig>, domain: &str) -> bool {
        let within = |one: &str, other: &str| {
            one.strip_suffix(other).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        !Arc::ptr_eq(self.mesh, mesh) && (within(self.domain, domain) || within(domain, self.domain))
    }
}

/// Whether `mesh` has `domain`, by its status.
fn has(mesh: &MeshConfig, domain: &str) -> bool {
    mesh.status.iter().flat_map(|status| &status.dns.domains).any(|one| one == domain)
}

/// `mesh` as if it asked for just these domains. Without what it has: for whoever compares, that is no change.
fn with_domains(mesh: &MeshConfig, domains: Vec<String>) -> MeshConfig {
    let mut mesh = mesh.clone();
    (mesh.spec.domains, mesh.status) = (domains, None);
    mesh
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use weft_crds::meshconfig::{DnsFound, DnsProvider};
    use weft_crds::{MeshConfigSpec, MeshConfigStatus};

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

    /// One that is served, and has `domains` in DNS.
    fn having(mesh: MeshConfig, domains: &[&str]) -> MeshConfig {
        let mut mesh = served(mesh);
        let domains = domains.iter().map(ToString::to_string).collect();
        let dns = DnsFound { domains, ..DnsFound::default() };
        mesh.status = Some(MeshConfigStatus { dns, ..MeshConfigStatus::default() });
        mesh
    }

    fn share_of(namespace: &str, meshes: &[MeshConfig], without: &str) -> Share {
        let meshes: Vec<_> = meshes.iter().cloned().map(Arc::new).collect();
        share(namespace, meshes.iter(), |one| one != without)
    }

    /// Who has what the meshes in `a`, `b` and `c` ask for in vain, when there is no operator in `without`.
    fn rivals(meshes: &[MeshConfig], without: &str) -> [Option<String>; 3] {
        ["a", "b", "c"].map(|namespace| {
            let rival = share_of(namespace, meshes, without).rival?;
            Some(rival.taken[0].2.split('/').next()?.to_owned())
        })
    }

    /// With which domains those in `a`, `b` and `c` are served.
    fn domains(meshes: &[MeshConfig]) -> [Vec<String>; 3] {
        ["a", "b", "c"].map(|namespace| {
            share_of(namespace, meshes, "-").active.map(|mesh| mesh.spec.domains.clone()).unwrap_or_default()
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
    fn a_domain_stays_with_who_has_it_and_the_other_goes_on_with_the_rest() {
        let a = |domains: &[&str]| having(mesh("a", 1, domains), &["a.mesh"]);
        let b = |domains: &[&str]| having(mesh("b", 2, domains), &["b.mesh"]);
        let both = [vec!["a.mesh".to_owned()], vec!["b.mesh".to_owned()], vec![]];
        for all in [
            [a(&["a.mesh"]), b(&["b.mesh"])],
            [a(&["a.mesh"]), b(&["a.mesh", "b.mesh"])],
            [a(&["a.mesh", "b.mesh"]), b(&["b.mesh"])],
            [a(&["a.mesh", "b.mesh"]), b(&["a.mesh", "b.mesh"])],
            // Within one another is the same.
            [a(&["mesh", "a.mesh"]), b(&["b.mesh", "x.a.mesh"])],
        ] {
            assert_eq!(domains(&all), both, "{all:?}");
        }
        let text = share_of("b", &[a(&["a.mesh"]), b(&["a.mesh", "b.mesh"])], "-").rival.unwrap().to_string();
        assert_eq!(
            text,
            "MeshConfig a/m has a.mesh: name other domains in spec.domains, or delete one of the two; until then this one is served without a.mesh"
        );
        // What is given up is free for another.
        let all = [a(&["a.mesh", "b.mesh"]), b(&["c.mesh"])];
        assert_eq!(domains(&all)[0], ["a.mesh", "b.mesh"]);
    }

    #[test]
    fn what_is_in_dns_is_had_although_its_operator_s_service_is_away() {
        let all =
            [served(mesh("a", 1, &["a.mesh", "b.mesh"])), having(mesh("b", 2, &["b.mesh"]), &["b.mesh"])];
        assert_eq!(share_of("a", &all, "b").active.unwrap().spec.domains, ["a.mesh"]);
        let all = [all[0].clone(), served(mesh("b", 2, &["b.mesh"]))];
        assert_eq!(share_of("a", &all, "b").active.unwrap().spec.domains, ["a.mesh", "b.mesh"]);
    }

    #[test]
    fn who_was_never_served_waits_until_it_can_have_everything() {
        let all = [served(mesh("a", 2, &["a.mesh"])), mesh("b", 1, &["a.mesh", "b.mesh"])];
        assert_eq!(domains(&all), [vec!["a.mesh".to_owned()], vec![], vec![]]);
        let third = mesh("c", 3, &["b.mesh"]);
        assert_eq!(
            domains(&[&all[..], &[third]].concat())[2],
            ["b.mesh"],
            "meanwhile others may have the rest"
        );
        // What a status says of one that is not kept counts for nothing.
        let mut forged = having(mesh("b", 1, &["a.mesh"]), &["a.mesh"]);
        forged.metadata.finalizers = None;
        assert_eq!(domains(&[all[0].clone(), forged])[1], [""; 0]);
    }

    #[test]
    fn of_two_that_were_served_before_they_saw_each_other_the_newer_ends_with_no_domain() {
        let all = [served(mesh("a", 1, &["x.y"])), served(mesh("b", 2, &["x.y"]))];
        assert_eq!(domains(&all), [vec!["x.y".to_owned()], vec![], vec![]]);
        let text = share_of("b", &all, "-").rival.unwrap().to_string();
        assert!(text.ends_with("until then none of its names resolves"), "{text}");
        assert!(share_of("b", &all, "-").active.is_some(), "what it carries it goes on to carry");
        // Unless it was the first in DNS.
        let all = [all[0].clone(), having(mesh("b", 2, &["x.y"]), &["x.y"])];
        assert_eq!(domains(&all), [vec![], vec!["x.y".to_owned()], vec![]]);
    }

    #[test]
    fn what_is_handed_out_is_no_other_when_a_status_is() {
        let (before, after) = (served(mesh("a", 1, &["x.y"])), having(mesh("a", 1, &["x.y"]), &["x.y"]));
        assert_eq!(share_of("a", &[before], "-"), share_of("a", &[after], "-"));
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
        let rival = share_of("b", &all, "-").rival.unwrap();
        assert_eq!(rival.reason(), "DomainTaken");
        assert!(rival.to_string().starts_with("MeshConfig a/m has x.y, MeshConfig c/m has z.y: "), "{rival}");
    }
}
