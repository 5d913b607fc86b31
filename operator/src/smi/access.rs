//! What becomes of `TrafficTarget`s: what may be sent to those who run as an account.
//!
//! Targets only allow. What of them cannot be understood allows nothing: a rule whose route is missing matches nothing, a
//! target that cannot be read is as if it were not there. In a target with rules of several kinds those of one kind are
//! alternatives, and a request must meet each kind that says something of its protocol: with a `TCPRoute` and an
//! `HTTPRouteGroup` it must come to one of these ports and be one of these requests.
//!
//! A target opens accounts of its own namespace only: whoever may write one elsewhere has no say in whom these let in.

use std::collections::BTreeMap;

use weft_config::{Access, AccountId, Grant};
use weft_crds::smi::{self, RouteKind, Rule, ServiceAccount, TrafficTarget};

use super::{Finding, InMesh, Name, Object, Objects, Verdict, routes};

/// What is added for those whose targets are all right while nobody asks for access control.
const NOT_ENFORCED: &str =
    "It is not enforced, and everything is allowed: the MeshConfig's spec.accessControl is Disabled.";

/// What may be sent to whom, for every account some target names that counts. An account that is not in it gets nothing.
pub fn all(objects: &Objects, in_mesh: &InMesh<'_>) -> BTreeMap<AccountId, Access> {
    let mut all: BTreeMap<AccountId, Access> = BTreeMap::new();
    for object in objects.targets.values().filter(|object| in_mesh(&object.name.namespace)) {
        let Ok(target) = &object.read else { continue };
        if let Some(grant) = grant(object, target, objects, &mut Vec::new()) {
            all.entry(account(&target.destination)).or_default().grants.push(grant);
        }
    }
    all
}

/// What becomes of every target. Without access control one that is all right is so, and is told that it does nothing.
pub(super) fn review(objects: &Objects, enforced: bool) -> Vec<Finding> {
    let review = |object: &Object<TrafficTarget>| {
        let target = match &object.read {
            Ok(target) => target,
            Err(error) => return object.unreadable(smi::TRAFFIC_TARGET, error),
        };
        let mut notes = Vec::new();
        let some = grant(object, target, objects, &mut notes).is_some();
        let mut finding = object.finding(smi::TRAFFIC_TARGET, some, notes);
        if finding.verdict != Verdict::Rejected && !enforced {
            finding.notes.push(NOT_ENFORCED.to_owned());
        }
        finding
    };
    objects.targets.values().map(|object| review(object)).collect()
}

fn account(account: &ServiceAccount) -> AccountId {
    AccountId { namespace: account.namespace.as_str().into(), name: account.name.as_str().into() }
}

/// `None`: it allows nothing.
fn grant(
    object: &Object<TrafficTarget>,
    target: &TrafficTarget,
    objects: &Objects,
    notes: &mut Vec<String>,
) -> Option<Grant> {
    let namespace = &object.name.namespace;
    if *target.destination.namespace != **namespace {
        notes.push(format!(
            "It allows nothing: its destination is in namespace {0}, and only a target there may open it. Move it to {0}.",
            target.destination.namespace
        ));
        return None;
    }
    if target.sources.is_empty() {
        notes.push("It allows nothing: it has no sources.".to_owned());
        return None;
    }
    let of = |kind| target.rules.iter().filter(move |rule| rule.kind == kind);
    let has = |kind| of(kind).next().is_some();
    // Without rules anything goes. With rules a protocol no rule is for does not.
    let (http, tcp, udp) = (has(RouteKind::Http), has(RouteKind::Tcp), has(RouteKind::Udp));
    let any = target.rules.is_empty();
    let requests = http.then(|| {
        let mut matches = Vec::new();
        for rule in of(RouteKind::Http) {
            let name = Name::new(namespace.clone(), rule.name.as_str());
            matches.extend(routes::http(objects, &name, rule.matches.as_deref(), notes));
        }
        matches
    });
    let mut ports = |kind, named: bool, other: bool| match (named, other || any) {
        (true, _) => ports_of(objects, namespace, of(kind).collect(), kind, notes),
        (false, true) => None,
        (false, false) => Some(Vec::new()),
    };
    let mut tcp_ports = ports(RouteKind::Tcp, tcp, http);
    let mut udp_ports = ports(RouteKind::Udp, udp, false);
    if let Some(port) = target.port {
        for list in [&mut tcp_ports, &mut udp_ports] {
            *list = Some(match list.take() {
                None => vec![port],
                Some(ports) => ports.into_iter().filter(|one| *one == port).collect(),
            });
        }
    }
    let nothing = |list: &Option<Vec<u16>>| list.as_ref().is_some_and(Vec::is_empty);
    let no_request = requests.as_ref().is_some_and(Vec::is_empty);
    if (nothing(&tcp_ports) || no_request) && nothing(&udp_ports) {
        notes.push("It allows nothing: none of its rules matches anything.".to_owned());
        return None;
    }
    Some(Grant {
        name: object.name.to_string(),
        sources: target.sources.iter().map(account).collect(),
        http: requests,
        tcp: tcp_ports,
        udp: udp_ports,
    })
}

/// The ports of the routes `rules` refer to. `None`: any.
fn ports_of(
    objects: &Objects,
    namespace: &str,
    rules: Vec<&Rule>,
    kind: RouteKind,
    notes: &mut Vec<String>,
) -> Option<Vec<u16>> {
    let mut all = Vec::new();
    for rule in rules {
        let name = Name::new(namespace, rule.name.as_str());
        let what = if kind == RouteKind::Tcp { "TCPRoute" } else { "UDPRoute" };
        match objects.ports(kind, &name).map(|route| &route.read) {
            Some(Ok(route)) if route.ports.is_empty() => return None,
            Some(Ok(route)) => all.extend(&route.ports),
            Some(Err(error)) => notes.push(format!("{what} {name} cannot be read: {error}.")),
            None => notes.push(format!("There is no {what} {name}.")),
        }
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_crds::smi::{HTTP_ROUTE_GROUP, TCP_ROUTE, TRAFFIC_TARGET, UDP_ROUTE};

    use super::*;
    use crate::smi::{Meta, Verdict};

    fn grants(rules: &Value, port: Option<u16>) -> (Option<Grant>, Finding) {
        let mut objects = Objects::default();
        let named = |name: &str| Name::new("shop", name);
        let group = json!({"spec": {"matches": [{"name": "read", "methods": ["GET"]}, {"name": "bad", "pathRegex": "("}]}});
        objects.insert(HTTP_ROUTE_GROUP, &named("http"), Meta::default(), &group);
        let ports = json!({"spec": {"matches": {"ports": [80, 443]}}});
        objects.insert(TCP_ROUTE, &named("tcp"), Meta::default(), &ports);
        objects.insert(TCP_ROUTE, &named("any"), Meta::default(), &json!({"spec": {}}));
        objects.insert(
            UDP_ROUTE,
            &named("udp"),
            Meta::default(),
            &json!({"spec": {"matches": {"ports": [53]}}}),
        );
        let target = json!({"spec": {
            "destination": {"kind": "ServiceAccount", "name": "api", "port": port},
            "sources": [{"kind": "ServiceAccount", "name": "web"}], "rules": rules}});
        objects.insert(TRAFFIC_TARGET, &named("target"), Meta::default(), &target);
        let grant = all(&objects, &|_| true).into_values().flat_map(|access| access.grants).next();
        (grant, review(&objects, true).remove(0))
    }

    fn rule(kind: &str, name: &str) -> Value {
        json!({"kind": kind, "name": name})
    }

    #[test]
    fn rules_of_several_kinds_must_all_be_met() {
        let (grant, finding) = grants(
            &json!([rule("TCPRoute", "tcp"), {"kind": "HTTPRouteGroup", "name": "http", "matches": ["read"]}]),
            None,
        );
        let grant = grant.unwrap();
        assert_eq!((grant.tcp, grant.udp), (Some(vec![80, 443]), Some(vec![])));
        assert_eq!(grant.http.unwrap().len(), 1);
        assert_eq!(finding.verdict, Verdict::Accepted, "{finding:?}");
    }

    #[test]
    fn a_protocol_no_rule_is_for_is_not_allowed() {
        let udp = grants(&json!([rule("UDPRoute", "udp")]), None).0.unwrap();
        assert_eq!((udp.tcp, udp.udp), (Some(vec![]), Some(vec![53])));
        let http = grants(&json!([{"kind": "HTTPRouteGroup", "name": "http", "matches": ["read"]}]), None)
            .0
            .unwrap();
        assert_eq!((http.tcp, http.udp), (None, Some(vec![])), "on any port, but nothing else");
        let any = grants(&json!([rule("TCPRoute", "any")]), None).0.unwrap();
        assert_eq!((any.tcp, any.udp, any.http), (None, Some(vec![]), None));
        let all = grants(&json!([]), None).0.unwrap();
        assert_eq!((all.tcp, all.udp, all.http), (None, None, None));
    }

    #[test]
    fn the_port_of_older_versions_limits_everything() {
        let port = grants(&json!([]), Some(8080)).0.unwrap();
        assert_eq!((port.tcp, port.udp), (Some(vec![8080]), Some(vec![8080])));
        let (none, finding) = grants(&json!([rule("TCPRoute", "tcp")]), Some(8080));
        assert_eq!((none, finding.verdict), (None, Verdict::Rejected));
    }

    #[test]
    fn what_is_missing_or_not_understood_allows_nothing() {
        for (rules, why) in [
            (json!([rule("HTTPRouteGroup", "gone")]), "no HTTPRouteGroup shop/gone"),
            (json!([rule("TCPRoute", "gone")]), "no TCPRoute shop/gone"),
            (json!([{"kind": "HTTPRouteGroup", "name": "http", "matches": ["bad"]}]), "pathRegex"),
            (json!([{"kind": "HTTPRouteGroup", "name": "http", "matches": ["none"]}]), "no match \"none\""),
            (json!([rule("Route", "x")]), "cannot be read"),
        ] {
            let (grant, finding) = grants(&rules, None);
            assert_eq!((grant, finding.verdict), (None, Verdict::Rejected), "{rules}");
            assert!(finding.notes.join(" ").contains(why), "{finding:?}");
        }
        let (some, finding) =
            grants(&json!([rule("HTTPRouteGroup", "http"), rule("HTTPRouteGroup", "gone")]), None);
        assert_eq!((some.unwrap().http.unwrap().len(), finding.verdict), (1, Verdict::PartlyApplied));
    }
    #[test]
    fn without_access_control_a_target_is_told_so() {
        let mut objects = Objects::default();
        let account = json!({"kind": "ServiceAccount", "name": "api"});
        let target = json!({"spec": {"destination": account, "sources": [account]}});
        objects.insert(TRAFFIC_TARGET, &Name::new("shop", "target"), Meta::default(), &target);
        let [finding] = review(&objects, false).try_into().unwrap();
        assert_eq!((finding.verdict, &*finding.notes), (Verdict::Accepted, &[NOT_ENFORCED.to_owned()][..]));
        let [finding] = review(&objects, true).try_into().unwrap();
        assert_eq!((finding.verdict, finding.notes.len()), (Verdict::Accepted, 0));
    }

    #[test]
    fn a_target_outside_the_mesh_allows_nothing() {
        let mut objects = Objects::default();
        let account = json!({"kind": "ServiceAccount", "name": "api"});
        let target = json!({"spec": {"destination": account, "sources": [account]}});
        objects.insert(TRAFFIC_TARGET, &Name::new("else", "target"), Meta::default(), &target);
        assert_eq!(all(&objects, &|namespace| namespace == "else").len(), 1);
        assert!(all(&objects, &|namespace| namespace == "shop").is_empty());
    }

    #[test]
    fn a_target_opens_its_own_namespace_to_anybody_and_no_other_to_anybody() {
        let mut objects = Objects::default();
        let of = |namespace: &str| json!({"kind": "ServiceAccount", "name": "api", "namespace": namespace});
        let target =
            |destination, source| json!({"spec": {"destination": of(destination), "sources": [of(source)]}});
        objects.insert(TRAFFIC_TARGET, &Name::new("shop", "a"), Meta::default(), &target("shop", "else"));
        objects.insert(TRAFFIC_TARGET, &Name::new("else", "b"), Meta::default(), &target("shop", "else"));
        let access = all(&objects, &|_| true);
        let [grant] = &*access[&AccountId { namespace: "shop".into(), name: "api".into() }].grants else {
            panic!("one of the two counts: {access:?}")
        };
        assert_eq!(grant.name, "shop/a");
        let rejected =
            review(&objects, true).into_iter().find(|one| one.verdict == Verdict::Rejected).unwrap();
        assert!(rejected.notes.join(" ").contains("Move it to shop"), "{rejected:?}");
    }
}
