//! Whatever is wrong in one object allows nothing that was not allowed without the fault.

use proptest::prelude::*;
use serde_json::{Value, json};
use weft_config::{Access, AccountId, Grant, HttpMatch, ServiceId};
use weft_crds::smi::{HTTP_ROUTE_GROUP, KINDS, Kind, TCP_ROUTE, TRAFFIC_SPLIT, TRAFFIC_TARGET, UDP_ROUTE};

use super::split::{self, RootPort};
use super::{Meta, Name, Objects, access, review};

/// What somebody wants to send.
#[derive(Debug, Clone)]
struct Ask {
    source: u8,
    destination: u8,
    port: u16,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Http { method: &'static str, path: &'static str, header: Option<&'static str> },
    Tcp,
    Udp,
}

fn account(i: u8) -> AccountId {
    AccountId { namespace: format!("ns{}", i % 2).into(), name: format!("a{i}").into() }
}

/// The decision, as plain as can be.
fn allowed(all: &std::collections::BTreeMap<AccountId, Access>, ask: &Ask) -> bool {
    let grants = all.get(&account(ask.destination)).map(|access| &*access.grants).unwrap_or_default();
    grants.iter().any(|grant| allows(grant, ask))
}

fn allows(grant: &Grant, ask: &Ask) -> bool {
    let on = |ports: &Option<Vec<u16>>| ports.as_ref().is_none_or(|ports| ports.contains(&ask.port));
    grant.sources.contains(&account(ask.source))
        && match &ask.what {
            What::Http { method, path, header } => {
                let is = |one: &HttpMatch| {
                    (one.methods.is_empty() || one.methods.iter().any(|allowed| allowed == method))
                        && one.path.as_ref().is_none_or(|pattern| pattern.matches(path))
                        && one.headers.iter().all(|(name, pattern)| {
                            name == "x" && header.is_some_and(|value| pattern.matches(value))
                        })
                };
                on(&grant.tcp) && grant.http.as_ref().is_none_or(|matches| matches.iter().any(is))
            }
            What::Tcp => on(&grant.tcp) && grant.http.is_none(),
            What::Udp => on(&grant.udp),
        }
}

type Written = Vec<(Kind, Name, i64, Value)>;

fn read(written: &Written) -> Objects {
    let mut objects = Objects::default();
    for (kind, name, created, object) in written {
        let meta = Meta { created: *created, ..Meta::default() };
        objects.insert(*kind, name, meta, object);
    }
    objects
}

fn port(i: u8) -> u16 {
    [80, 443, 53][usize::from(i % 3)]
}

fn target() -> impl Strategy<Value = Value> {
    let rule = (0..5u8, 0..2u8, prop::option::weighted(0.3, 0..3u8)).prop_map(|(kind, name, one)| {
        let kind =
            ["HTTPRouteGroup", "HTTPRouteGroup", "TCPRoute", "UDPRoute", "Nonsense"][usize::from(kind)];
        json!({"kind": kind, "name": format!("r{name}"), "matches": one.map(|one| vec![format!("m{one}")])})
    });
    let sources = prop::collection::vec(0..3u8, 0..3);
    let fields = (
        0..2u8,
        prop::option::weighted(0.2, 0..4u8),
        sources,
        prop::collection::vec(rule, 0..4),
        any::<bool>(),
    );
    fields.prop_map(|(destination, on, sources, rules, old)| {
        let subject = |i: u8| {
            let AccountId { namespace, name } = account(i);
            json!({"kind": "ServiceAccount", "namespace": &*namespace, "name": &*name})
        };
        let mut destination = subject(destination);
        if let Some(on) = on {
            destination["port"] = if on == 3 { json!("nonsense") } else { json!(port(on)) };
        }
        let sources: Vec<_> = sources.into_iter().map(subject).collect();
        if old {
            json!({"destination": destination, "sources": sources, "specs": rules})
        } else {
            json!({"spec": {"destination": destination, "sources": sources, "rules": rules}})
        }
    })
}

fn group() -> impl Strategy<Value = Value> {
    let one = (0..3u8, 0..4u8, 0..3u8, 0..3u8).prop_map(|(name, method, path, header)| {
        let mut one = json!({"name": format!("m{name}")});
        one["methods"] =
            [json!(["GET"]), json!(["*"]), json!([]), json!(["POST", "PUT"])][usize::from(method)].clone();
        if path > 0 {
            one["pathRegex"] = json!(["", "/a", "("][usize::from(path)]);
        }
        if header > 0 {
            let pattern = ["", "^1$", "["][usize::from(header)];
            one["headers"] = json!([{"X": pattern}]);
        }
        one
    });
    prop::collection::vec(one, 0..4).prop_map(|matches| json!({"spec": {"matches": matches}}))
}

fn ports() -> impl Strategy<Value = Value> {
    let list = prop::collection::vec(0..4u8, 0..3);
    list.prop_map(|list| {
        let ports = list.into_iter().map(|i| if i == 3 { 0 } else { port(i) });
        json!({"spec": {"matches": {"ports": ports.collect::<Vec<_>>()}}})
    })
}

fn split_object() -> impl Strategy<Value = Value> {
    let backends = prop::collection::vec((0..5u8, -1..3i32), 0..4);
    (0..5u8, backends, prop::option::of(0..4u8)).prop_map(|(root, backends, group)| {
        let backends = backends
            .into_iter()
            .map(|(name, weight)| json!({"service": format!("s{name}"), "weight": weight}));
        let groups = group.into_iter().map(|i| json!({"kind": "HTTPRouteGroup", "name": format!("r{i}")}));
        json!({"spec": {"service": format!("s{root}"), "backends": backends.collect::<Vec<_>>(),
            "matches": groups.collect::<Vec<_>>()}})
    })
}

fn written() -> impl Strategy<Value = Written> {
    let object = prop_oneof![
        4 => target().prop_map(|object| (TRAFFIC_TARGET, object)),
        2 => group().prop_map(|object| (HTTP_ROUTE_GROUP, object)),
        2 => ports().prop_map(|object| (TCP_ROUTE, object)),
        1 => ports().prop_map(|object| (UDP_ROUTE, object)),
        2 => split_object().prop_map(|object| (TRAFFIC_SPLIT, object)),
    ];
    let namespace = prop_oneof![4 => Just(0u8), 1 => Just(1u8)];
    prop::collection::vec((object, namespace, 0..2u8, 0..5i64), 1..14).prop_map(|all| {
        let named = |((kind, object), namespace, name, created): ((Kind, Value), u8, u8, i64)| {
            (kind, Name::new(format!("ns{namespace}"), format!("r{name}")), created, object)
        };
        all.into_iter().map(named).collect()
    })
}

/// Everything there is to ask.
fn asks() -> Vec<Ask> {
    let mut what = vec![What::Tcp, What::Udp];
    for method in ["GET", "POST", "DELETE"] {
        for path in ["/", "/a", "/b/a"] {
            what.extend([None, Some("1"), Some("2")].map(|header| What::Http { method, path, header }));
        }
    }
    let mut asks = Vec::new();
    for (source, destination, on) in
        (0..3).flat_map(|s| (0..2).flat_map(move |d| (0..3).map(move |on| (s, d, on))))
    {
        asks.extend(what.iter().cloned().map(|what| Ask { source, destination, port: port(on), what }));
    }
    asks
}

/// How many ways of spoiling an object there are; one more is to take it away.
const WAYS: u8 = 8;

/// Ways of spoiling what an object says.
fn spoil(object: &Value, way: u8) -> Value {
    let mut spoilt = object.clone();
    let fields = if spoilt["spec"].is_object() { &mut spoilt["spec"] } else { &mut spoilt };
    match way {
        0 => return json!({"spec": 5}),
        1 => fields["matches"] = json!("nonsense"),
        2 => fields["destination"] = json!({"kind": "Group", "name": "a0"}),
        3 => fields["backends"] = json!([{"service": "s1", "weight": "much"}]),
        4 => {
            for one in fields.get_mut("matches").and_then(Value::as_array_mut).into_iter().flatten() {
                one["pathRegex"] = json!("(");
            }
        }
        5 => {
            for one in fields.get_mut("matches").and_then(Value::as_array_mut).into_iter().flatten() {
                one["headers"] = json!([{"x": "["}]);
            }
        }
        6 => fields["sources"] = json!([{"kind": "Group", "name": "a0"}]),
        _ => {
            for list in ["rules", "specs"] {
                for rule in fields.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    rule["name"] = json!("gone");
                }
            }
        }
    }
    spoilt
}

/// Everything that is made of the objects; that it comes to an end and that each object has its finding.
fn make_all(objects: &Objects) {
    let root_ports = [(80, true, false), (443, false, false), (53, false, true)]
        .map(|(port, http, udp)| RootPort { port, http, udp });
    let has_port = |id: &ServiceId, port: RootPort| (&*id.name != "s4").then_some(port.port != 443);
    for (namespace, root, port) in
        (0..2).flat_map(|n| (0..5).flat_map(move |root| root_ports.map(|port| (n, root, port))))
    {
        split::of(&ServiceId::new(format!("ns{namespace}"), format!("s{root}")), port, objects, &has_port);
    }
    let findings = review(objects, &|_| true, &|_| Some(root_ports.to_vec()), &has_port, true);
    assert_eq!(findings.len(), KINDS.iter().map(|kind| objects.names(*kind).len()).sum::<usize>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_fault_in_one_object_never_widens_access(written in written(), way in 0..WAYS) {
        let before = read(&written);
        make_all(&before);
        let before = access::all(&before, &|_| true);
        let denied: Vec<_> = asks().into_iter().filter(|ask| !allowed(&before, ask)).collect();

        for (kind, name, ..) in &written {
            let is_it = |object: &(Kind, Name, i64, Value)| (object.0, &object.1) == (*kind, name);
            let gone = written.iter().filter(|object| !is_it(object)).cloned().collect();
            let mut spoilt = written.clone();
            for object in spoilt.iter_mut().filter(|object| is_it(object)) {
                object.3 = spoil(&object.3, way);
            }
            for faulty in [gone, spoilt] {
                let after = read(&faulty);
                make_all(&after);
                let after = access::all(&after, &|_| true);
                let now = denied.iter().find(|ask| allowed(&after, ask));
                prop_assert!(
                    now.is_none(),
                    "{now:?} is allowed with a fault in {kind:?} {name} (way {way}): {after:?}"
                );
            }
        }
    }
}

/// The test above would be of no use if nearly nothing were allowed.
#[test]
fn the_model_allows_what_a_target_says() {
    let target = json!({"spec": {
        "destination": {"kind": "ServiceAccount", "name": "a0"},
        "sources": [{"kind": "ServiceAccount", "namespace": "ns1", "name": "a1"}],
        "rules": [{"kind": "HTTPRouteGroup", "name": "r0"}]}});
    let group = json!({"spec": {"matches": [{"name": "m", "pathRegex": "/a", "headers": [{"X": "1"}]}]}});
    let name = Name::new("ns0", "r0");
    let written = vec![(TRAFFIC_TARGET, name.clone(), 0, target), (HTTP_ROUTE_GROUP, name, 0, group)];
    let all = access::all(&read(&written), &|_| true);
    let ask = |what| Ask { source: 1, destination: 0, port: 80, what };
    assert!(allowed(&all, &ask(What::Http { method: "GET", path: "/a/b", header: Some("1") })));
    assert!(!allowed(&all, &ask(What::Http { method: "GET", path: "/a/b", header: None })));
    assert!(!allowed(&all, &ask(What::Tcp)) && !allowed(&all, &ask(What::Udp)));
}
