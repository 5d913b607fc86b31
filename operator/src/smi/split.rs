//! What becomes of `TrafficSplit`s.
//!
//! The specification leaves a few things open; so it is here. Which split of a Service is in force, [`super::forest`] says. A
//! backend whose Service is missing, or lacks the port, is left out and its share goes to the others; when none is left, or
//! all have weight 0, the Service itself gets the traffic. A backend that is the root of a split in force is divided further;
//! the root itself, as its own backend, is the plain Service. Splits are followed [`DEEPEST`] levels down and as long as they
//! have no more than [`MOST`] shares together; what lies deeper is taken as the plain Service.

use weft_config::{EndpointsId, ServiceId, Split, SplitBackend};
use weft_crds::smi::{self, TrafficSplit};

use super::forest::{Dropped, Forest};
use super::{Finding, Name, Object, Objects, routes};

/// How many splits, one within the other, are followed.
const DEEPEST: usize = 8;
/// How many shares the split of one port may have, those of the splits within it among them. A few splits that name each other
/// twice would be thousands.
const MOST: usize = 256;

/// A port of a root Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootPort {
    /// Its number.
    pub port: u16,
    /// It is carried as HTTP.
    pub http: bool,
    /// It is carried over UDP.
    pub udp: bool,
}

/// The ports of a Service that are carried. `None`: it is not in the mesh, or there is no such Service.
pub type Ports<'a> = dyn Fn(&ServiceId) -> Option<Vec<RootPort>> + 'a;

/// Whether a Service has a port of that number and protocol. `None`: it is not in the mesh, or there is no such Service.
pub type HasPort<'a> = dyn Fn(&ServiceId, RootPort) -> Option<bool> + 'a;

/// The split of the port `port` of the Service `root`.
pub fn of(root: &ServiceId, port: RootPort, objects: &Objects, has_port: &HasPort<'_>) -> Option<Split> {
    let forest = objects.forest(&root.namespace)?;
    let (object, split) = forest.get(root)?;
    Planner { objects, forest, has_port, port, shares: 0, notes: Vec::new() }.plan(object, split, 1)
}

/// Plans the split of one port.
struct Planner<'a> {
    objects: &'a Objects,
    forest: &'a Forest,
    has_port: &'a HasPort<'a>,
    port: RootPort,
    /// Shares so far.
    shares: usize,
    notes: Vec<String>,
}

impl Planner<'_> {
    /// `split` at the level `depth`, the first being 1. What is wrong further down is told to its own author.
    fn plan(&mut self, object: &Object<TrafficSplit>, split: &TrafficSplit, depth: usize) -> Option<Split> {
        let mut notes = Vec::new();
        let planned = self.divide(object, split, depth, &mut notes);
        if depth == 1 {
            self.notes.extend(notes);
        }
        planned
    }

    fn divide(
        &mut self,
        object: &Object<TrafficSplit>,
        split: &TrafficSplit,
        depth: usize,
        notes: &mut Vec<String>,
    ) -> Option<Split> {
        let namespace = &object.name.namespace;
        let port = self.port;
        let mut matches = Vec::new();
        if !split.matches.is_empty() {
            if !port.http {
                notes.push(format!(
                    "Port {} is not split: matches are for HTTP, and it carries none.",
                    port.port
                ));
                return None;
            }
            for group in &split.matches {
                let name = Name::new(namespace.clone(), group.as_str());
                matches.extend(routes::http(self.objects, &name, None, notes));
            }
            if matches.is_empty() {
                notes.push("No request is split: there is no match left.".to_owned());
                return None;
            }
        }
        let mut usable: Vec<(EndpointsId, u64)> = Vec::new();
        for backend in split.backends.iter().filter(|backend| backend.weight > 0) {
            let service = ServiceId::new(namespace.clone(), backend.service.as_str());
            match (self.has_port)(&service, port) {
                Some(true) => usable.push((EndpointsId { service, port: port.port }, backend.weight)),
                Some(false) => notes.push(format!(
                    "Backend {}: the Service has no port {}, so its share of that port goes to the others.",
                    backend.service, port.port
                )),
                None => notes.push(format!(
                    "Backend {}: there is no such Service in the mesh, so its share goes to the others.",
                    backend.service
                )),
            }
        }
        if usable.is_empty() {
            notes.push(format!(
                "Port {}: no backend is left, so its traffic goes to the Service {} itself.",
                port.port, split.service
            ));
            return None;
        }
        self.shares += usable.len();
        let weights = in_32_bits(&usable.iter().map(|(_, weight)| *weight).collect::<Vec<_>>());
        let mut backends = Vec::new();
        for ((endpoints, _), weight) in usable.into_iter().zip(weights) {
            let split = self.nested(&endpoints.service, split, depth);
            backends.push(SplitBackend { endpoints, weight, split });
        }
        Some(Split { matches, backends })
    }

    /// How the traffic of a backend of `outer` is divided further.
    fn nested(&mut self, service: &ServiceId, outer: &TrafficSplit, depth: usize) -> Option<Split> {
        let forest = self.forest;
        let (object, split) = forest.get(service).filter(|_| *service.name != *outer.service)?;
        if depth == DEEPEST || self.shares + split.backends.len() > MOST {
            self.notes.push(format!(
                "Backend {} of {}: the splits are too deep ({DEEPEST} at most) or too many ({MOST} shares at most), so \
                 its share goes to the plain Service.",
                service.name, outer.service
            ));
            return None;
        }
        self.plan(object, split, depth + 1)
    }
}

/// The same proportions in numbers whose sum is small enough. A share that is not 0 stays so.
fn in_32_bits(weights: &[u64]) -> Vec<u32> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let divisor = sum.div_ceil(u128::from(u32::MAX >> 1)).max(1);
    let scaled = weights.iter().map(|weight| (u128::from(*weight) / divisor).max(1));
    scaled.map(|weight| u32::try_from(weight).unwrap_or(u32::MAX >> 1)).collect()
}

/// What becomes of every split.
pub(super) fn review(objects: &Objects, ports: &Ports<'_>, has_port: &HasPort<'_>) -> Vec<Finding> {
    let review = |object: &Object<TrafficSplit>| {
        let rejected = |note: String| object.finding(smi::TRAFFIC_SPLIT, false, vec![note]);
        let split = match &object.read {
            Ok(split) => split,
            Err(error) => return object.unreadable(smi::TRAFFIC_SPLIT, error),
        };
        let root = ServiceId::new(object.name.namespace.clone(), split.service.as_str());
        let Some(forest) = objects.forest(&root.namespace) else {
            return rejected(format!("There is no Service {root} in the mesh."));
        };
        match forest.dropped(&object.name) {
            Some(Dropped::Older(other)) => {
                return rejected(format!(
                    "Service {root} is split by TrafficSplit {other} already, which is older."
                ));
            }
            Some(Dropped::Loop(from)) => {
                return rejected(format!(
                    "It would close a loop: its traffic would come back to Service {root} by the split of Service {from}."
                ));
            }
            None => {}
        }
        let Some(ports) = ports(&root) else {
            return rejected(format!("There is no Service {root} in the mesh."));
        };
        let (mut some, mut notes) = (false, Vec::new());
        for port in ports {
            let mut planner = Planner { objects, forest, has_port, port, shares: 0, notes: Vec::new() };
            some |= planner.plan(object, split, 1).is_some();
            notes.extend(planner.notes.into_iter().filter(|note| !notes.contains(note)).collect::<Vec<_>>());
        }
        object.finding(smi::TRAFFIC_SPLIT, some, notes)
    };
    objects.splits.values().map(|object| review(object)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_crds::smi::{HTTP_ROUTE_GROUP, TRAFFIC_SPLIT};

    use super::*;
    use crate::smi::{Meta, Verdict};

    const HTTP: RootPort = RootPort { port: 80, http: true, udp: false };

    fn objects(splits: &[(&str, i64, serde_json::Value)]) -> Objects {
        let mut objects = Objects::default();
        for (name, created, spec) in splits {
            let meta = Meta { created: *created, ..Meta::default() };
            objects.insert(TRAFFIC_SPLIT, &Name::new("shop", *name), meta, &json!({"spec": spec}));
        }
        let group = json!({"spec": {"matches": [{"name": "a", "pathRegex": "/a"}, {"name": "bad", "pathRegex": "("}]}});
        objects.insert(HTTP_ROUTE_GROUP, &Name::new("shop", "group"), Meta::default(), &group);
        objects
    }

    /// `web`, `v1` and `v2` have port 80; `other` has not.
    fn has_port(service: &ServiceId, _port: RootPort) -> Option<bool> {
        match &*service.name {
            "web" | "v1" | "v2" => Some(true),
            "other" => Some(false),
            _ => None,
        }
    }

    fn shares(objects: &Objects) -> Option<Vec<(String, u32)>> {
        let split = of(&ServiceId::new("shop", "web"), HTTP, objects, &has_port)?;
        let share = |one: SplitBackend| (one.endpoints.service.name.to_string(), one.weight);
        Some(split.backends.into_iter().map(share).collect())
    }

    fn findings(objects: &Objects, port: RootPort) -> Vec<(Verdict, String)> {
        let ports = |id: &ServiceId| (&*id.name == "web").then(|| vec![port]);
        let all = review(objects, &ports, &has_port);
        all.into_iter().map(|finding| (finding.verdict, finding.notes.join(" "))).collect()
    }

    fn to(backends: &[(&str, u32)]) -> serde_json::Value {
        let backends: Vec<_> =
            backends.iter().map(|(name, weight)| json!({"service": name, "weight": weight})).collect();
        json!({"service": "web", "backends": backends})
    }

    #[test]
    fn what_cannot_take_its_share_leaves_it_to_the_others() {
        let all = objects(&[("s", 1, to(&[("v1", 9), ("v2", 1), ("other", 5), ("gone", 5), ("web", 0)]))]);
        assert_eq!(shares(&all), Some(vec![("v1".into(), 9000), ("v2".into(), 1000)]));
        let [(verdict, notes)] = findings(&all, HTTP).try_into().unwrap();
        assert_eq!(verdict, Verdict::PartlyApplied);
        assert!(
            notes.contains("other: the Service has no port 80") && notes.contains("gone: there is no"),
            "{notes}"
        );
    }

    #[test]
    fn without_a_backend_the_service_itself_gets_the_traffic() {
        for backends in [&[("gone", 1)][..], &[("v1", 0)], &[]] {
            let all = objects(&[("s", 1, to(backends))]);
            assert_eq!(shares(&all), None);
            assert_eq!(findings(&all, HTTP)[0].0, Verdict::Rejected);
        }
    }

    #[test]
    fn of_two_splits_the_older_is_in_force_and_the_other_is_told() {
        let all = objects(&[("a", 2, to(&[("v2", 1)])), ("b", 1, to(&[("v1", 1)]))]);
        assert_eq!(shares(&all), Some(vec![("v1".into(), 1000)]));
        let [(a, why), (b, _)] = findings(&all, HTTP).try_into().unwrap();
        assert_eq!((a, b), (Verdict::Rejected, Verdict::Accepted));
        assert!(why.contains("shop/b"), "{why}");
    }

    #[test]
    fn matches_are_for_http_and_those_that_cannot_be_used_are_left_out() {
        let mut spec = to(&[("v1", 1)]);
        spec["matches"] = json!([{"kind": "HTTPRouteGroup", "name": "group"}]);
        let all = objects(&[("s", 1, spec.clone())]);
        let split = of(&ServiceId::new("shop", "web"), HTTP, &all, &has_port).unwrap();
        assert_eq!(split.matches.len(), 1, "the other is no pattern");
        assert_eq!(findings(&all, HTTP)[0].0, Verdict::PartlyApplied);
        let tcp = RootPort { http: false, ..HTTP };
        assert!(of(&ServiceId::new("shop", "web"), tcp, &all, &has_port).is_none());
        spec["matches"][0]["name"] = json!("missing");
        let all = objects(&[("s", 1, spec)]);
        assert_eq!(shares(&all), None, "of no match, nothing: not everything");
    }

    #[test]
    fn weights_of_any_size_keep_their_proportions() {
        assert_eq!(in_32_bits(&[900, 100]), [900, 100]);
        let huge = in_32_bits(&[u64::MAX, u64::MAX / 3, 1]);
        assert!((2.99..3.01).contains(&(f64::from(huge[0]) / f64::from(huge[1]))), "{huge:?}");
        assert_eq!(huge[2], 1, "little is not nothing");
        assert!(huge.iter().map(|weight| u64::from(*weight)).sum::<u64>() < u64::from(u32::MAX));
    }

    fn split(objects: &mut Objects, root: &str, backends: &[(&str, u32)]) {
        let mut spec = to(backends);
        spec["service"] = json!(root);
        objects.insert(TRAFFIC_SPLIT, &Name::new("shop", root), Meta::default(), &json!({"spec": spec}));
    }

    /// As people write it: `web[v1 9000 v2[v3 1000] 1000]`.
    fn shown(split: &Split) -> String {
        let backend = |one: &SplitBackend| {
            let nested = one.split.as_ref().map(shown).unwrap_or_default();
            format!("{}{nested} {}", one.endpoints.service.name, one.weight / 1000)
        };
        format!("[{}]", split.backends.iter().map(backend).collect::<Vec<_>>().join(" "))
    }

    /// Every Service has every port.
    const EVERYWHERE: &HasPort<'_> = &|_, _| Some(true);

    fn count(split: &Split) -> usize {
        split.backends.iter().map(|one| 1 + one.split.as_ref().map_or(0, count)).sum()
    }

    #[test]
    fn a_backend_that_is_split_is_divided_further_and_the_root_itself_is_plain() {
        let mut all = Objects::default();
        split(&mut all, "web", &[("v1", 9), ("v2", 1), ("web", 3)]);
        split(&mut all, "v2", &[("v2", 1), ("v3", 1)]);
        let of = |root| shown(&of(&ServiceId::new("shop", root), HTTP, &all, EVERYWHERE).unwrap());
        assert_eq!(of("web"), "[v1 9 v2[v2 1 v3 1] 1 web 3]");
        assert_eq!(of("v2"), "[v2 1 v3 1]");
    }

    #[test]
    fn the_youngest_split_of_a_loop_is_told_and_the_others_go_on() {
        let mut all = objects(&[
            ("s", 1, to(&[("v1", 1)])),
            ("t", 2, json!({"service": "v1", "backends": [{"service": "web", "weight": 1}]})),
        ]);
        let ports = |_: &ServiceId| Some(vec![HTTP]);
        let [s, t] = review(&all, &ports, &has_port).try_into().unwrap();
        assert_eq!((s.verdict, t.verdict), (Verdict::Accepted, Verdict::Rejected));
        assert!(t.notes[0].contains("loop") && t.notes[0].contains("by the split of Service web"), "{t:?}");
        assert_eq!(shares(&all), Some(vec![("v1".into(), 1000)]));
        all.remove(TRAFFIC_SPLIT, &Name::new("shop", "s"));
        assert!(
            of(&ServiceId::new("shop", "v1"), HTTP, &all, &has_port).is_some(),
            "without the other it is none"
        );
    }

    #[test]
    fn what_is_wrong_within_is_told_to_its_author_only() {
        let mut all = Objects::default();
        split(&mut all, "web", &[("v1", 1), ("v2", 1)]);
        split(&mut all, "v2", &[("gone", 1)]);
        let ports = |_: &ServiceId| Some(vec![HTTP]);
        let [v2, web] = review(&all, &ports, &has_port).try_into().unwrap();
        assert_eq!((v2.verdict, web.verdict), (Verdict::Rejected, Verdict::Accepted), "{v2:?} {web:?}");
        let web = super::of(&ServiceId::new("shop", "web"), HTTP, &all, &has_port).unwrap();
        assert_eq!(shown(&web), "[v1 1 v2 1]", "the plain Service");
    }

    #[test]
    fn splits_are_followed_so_far_and_not_without_end() {
        let mut all = Objects::default();
        for level in 0..12 {
            split(&mut all, &format!("r{level:02}"), &[(&format!("r{:02}", level + 1), 1)]);
        }
        let root = ServiceId::new("shop", "r00");
        let text = shown(&of(&root, HTTP, &all, EVERYWHERE).unwrap());
        assert_eq!(text.matches('[').count(), DEEPEST, "{text}");
        let ports = |_: &ServiceId| Some(vec![HTTP]);
        let all_findings = review(&all, &ports, EVERYWHERE);
        assert_eq!(all_findings[0].verdict, Verdict::PartlyApplied);
        assert!(all_findings[0].notes[0].contains("too deep"), "{all_findings:?}");
        assert_eq!(all_findings[11].verdict, Verdict::Accepted);

        let mut all = Objects::default();
        for level in 0..7 {
            let below = format!("r{:02}", level + 1);
            split(&mut all, &format!("r{level:02}"), &[(&*below, 1); 10]);
        }
        let split = of(&root, HTTP, &all, EVERYWHERE).unwrap();
        assert!((MOST - 10..=MOST).contains(&count(&split)), "{}", count(&split));
    }
}
