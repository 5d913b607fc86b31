//! What becomes of `TrafficSplit`s.
//!
//! The specification leaves a few things open; so it is here. Of several splits of one Service the oldest is in force. A
//! backend whose Service is missing, or lacks the port, is left out and its share goes to the others; when none is left, or
//! all have weight 0, the Service itself gets the traffic. A backend that is the root of another split, or of this one, is
//! taken as the plain Service: splits are not followed any further, so there are no loops.

use weft_config::{EndpointsId, ServiceId, Split, SplitBackend};
use weft_crds::smi::{self, TrafficSplit};

use super::{Finding, Name, Object, Objects, routes};

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

/// What is known of a backend's Service. `None`: it is not in the mesh, or there is no such Service.
pub type HasPort<'a> = dyn Fn(&ServiceId, RootPort) -> Option<bool> + 'a;

/// The split of the port `port` of the Service `root`.
pub fn of(root: &ServiceId, port: RootPort, objects: &Objects, has_port: &HasPort<'_>) -> Option<Split> {
    let object = *objects.splits_of(root).first()?;
    let split = object.read.as_ref().ok()?;
    plan(object, split, port, objects, has_port, &mut Vec::new())
}

fn plan(
    object: &Object<TrafficSplit>,
    split: &TrafficSplit,
    port: RootPort,
    objects: &Objects,
    has_port: &HasPort<'_>,
    notes: &mut Vec<String>,
) -> Option<Split> {
    let namespace = &object.name.namespace;
    let mut matches = Vec::new();
    if !split.matches.is_empty() {
        if !port.http {
            notes
                .push(format!("Port {} is not split: matches are for HTTP, and it carries none.", port.port));
            return None;
        }
        for group in &split.matches {
            let name = Name::new(namespace.clone(), group.as_str());
            matches.extend(routes::http(objects, &name, None, notes));
        }
        if matches.is_empty() {
            notes.push("No request is split: there is no match left.".to_owned());
            return None;
        }
    }
    let mut backends: Vec<(EndpointsId, u64)> = Vec::new();
    for backend in split.backends.iter().filter(|backend| backend.weight > 0) {
        let service = ServiceId::new(namespace.clone(), backend.service.as_str());
        match has_port(&service, port) {
            Some(true) => backends.push((EndpointsId { service, port: port.port }, backend.weight)),
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
    if backends.is_empty() {
        notes.push(format!(
            "Port {}: no backend is left, so its traffic goes to the Service {} itself.",
            port.port, split.service
        ));
        return None;
    }
    let weights = in_32_bits(&backends.iter().map(|(_, weight)| *weight).collect::<Vec<_>>());
    let backends = backends.into_iter().zip(weights);
    Some(Split {
        matches,
        backends: backends
            .map(|((endpoints, _), weight)| SplitBackend { endpoints, weight, split: None })
            .collect(),
    })
}

/// The same proportions in numbers whose sum is small enough. A share that is not 0 stays so.
fn in_32_bits(weights: &[u64]) -> Vec<u32> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let divisor = sum.div_ceil(u128::from(u32::MAX >> 1)).max(1);
    let scaled = weights.iter().map(|weight| (u128::from(*weight) / divisor).max(1));
    scaled.map(|weight| u32::try_from(weight).unwrap_or(u32::MAX >> 1)).collect()
}

/// What becomes of every split. `ports` are those of a Service in the mesh.
pub fn review(
    objects: &Objects,
    ports: &dyn Fn(&ServiceId) -> Option<Vec<RootPort>>,
    has_port: &HasPort<'_>,
) -> Vec<Finding> {
    let review = |object: &Object<TrafficSplit>| {
        let split = match &object.read {
            Ok(split) => split,
            Err(error) => {
                return object.finding(
                    smi::TRAFFIC_SPLIT,
                    false,
                    vec![format!("It cannot be read: {error}.")],
                );
            }
        };
        let root = ServiceId::new(object.name.namespace.clone(), split.service.as_str());
        if let Some(first) = objects.splits_of(&root).first().filter(|first| first.name != object.name) {
            let note =
                format!("Service {root} is split by TrafficSplit {} already, which is older.", first.name);
            return object.finding(smi::TRAFFIC_SPLIT, false, vec![note]);
        }
        let Some(ports) = ports(&root) else {
            let note = format!("There is no Service {root} in the mesh.");
            return object.finding(smi::TRAFFIC_SPLIT, false, vec![note]);
        };
        let mut notes = Vec::new();
        let planned = |port: RootPort| plan(object, split, port, objects, has_port, &mut notes).is_some();
        let some = ports.into_iter().map(planned).fold(false, |some, planned| some | planned);
        let nested = split.backends.iter().filter(|backend| {
            let service = ServiceId::new(object.name.namespace.clone(), backend.service.as_str());
            service != root && !objects.splits_of(&service).is_empty()
        });
        notes.extend(nested.map(|backend| {
            format!("Backend {} is split itself; its share goes to the plain Service.", backend.service)
        }));
        notes.dedup();
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
        assert_eq!(verdict, Verdict::Partly);
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
        assert_eq!(findings(&all, HTTP)[0].0, Verdict::Partly);
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
}
