use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use weft_config::ServiceId;
use weft_config::edges::{ProxyEdges, bucket};
use weft_crds::smi;

use super::*;
use crate::smi::{Meta, Objects};
use crate::traffic::{KINDS, selector};

fn pod(name: &str, address: &str, owner: (&str, &str), labels: &[(&str, &str)]) -> Arc<PodFacts> {
    Arc::new(PodFacts {
        name: Name::new("shop", name),
        uid: "".into(),
        service_account: "default".into(),
        addresses: vec![address.parse().unwrap()],
        host_network: false,
        node: Some("node1".into()),
        finished: false,
        terminating: false,
        owner: Some((owner.0.into(), owner.1.into())),
        labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
    })
}

fn cluster() -> Cluster {
    let web = |name, address, app| {
        pod(name, address, ("ReplicaSet", "web-5d4f"), &[("app", app), ("pod-template-hash", "5d4f")])
    };
    let pods = vec![
        web("web-5d4f-a", "10.0.0.1", "web"),
        web("web-5d4f-b", "fd00::2", "web"),
        pod("db-0", "10.0.0.3", ("StatefulSet", "db"), &[("app", "db")]),
        pod("batch-x", "10.0.0.4", ("Job", "batch"), &[]),
        // Two that live claim one address: it is nobody's.
        pod("twin-1", "10.0.0.5", ("DaemonSet", "twin"), &[]),
        pod("twin-2", "10.0.0.5", ("DaemonSet", "twin"), &[]),
        Arc::new(PodFacts {
            host_network: true,
            ..PodFacts::clone(&pod("agent", "10.0.0.3", ("DaemonSet", "agent"), &[]))
        }),
        Arc::new(PodFacts {
            terminating: true,
            ..PodFacts::clone(&pod("old-0", "10.0.0.3", ("StatefulSet", "old"), &[]))
        }),
    ];
    let mut objects = Objects::default();
    let split = |service: &str, backends: Value| json!({"spec": {"service": service, "backends": backends}});
    let canary =
        split("web", json!([{"service": "web-v1", "weight": 90}, {"service": "web-v2", "weight": 10}]));
    let inner = split(
        "web-v2",
        json!([{"service": "web-v2a", "weight": "500m"}, {"service": "web-v2b", "weight": 1}]),
    );
    objects.insert(
        smi::TRAFFIC_SPLIT,
        &Name::new("shop", "canary"),
        Meta { created: 1, ..Meta::default() },
        &canary,
    );
    objects.insert(
        smi::TRAFFIC_SPLIT,
        &Name::new("shop", "inner"),
        Meta { created: 2, ..Meta::default() },
        &inner,
    );
    objects.insert(
        smi::TRAFFIC_SPLIT,
        &Name::new("shop", "late"),
        Meta { created: 3, ..Meta::default() },
        &canary,
    );
    let services = ["web", "db"].map(|name| ServiceId::new("shop", name));
    Cluster::new(pods, services.into(), Arc::new(objects))
}

/// From, to, Service, backend, how many of how many milliseconds, how many of them failed.
type Flow<'a> = (&'a str, Option<&'a str>, &'a str, Option<&'a str>, (u64, u64), u64);

fn gathered(flows: &[Flow<'_>]) -> Gathered {
    let named = |name: &str| ServiceName { namespace: "shop".into(), name: name.into() };
    let edge = |(source, endpoint, service, backend, (count, ms), failures): &Flow<'_>| EdgeFigures {
        source: source.parse().unwrap(),
        endpoint: endpoint.map(|endpoint| endpoint.parse().unwrap()),
        service: named(service),
        port: 80,
        backend: backend.map(named),
        failures: *failures,
        buckets: vec![(u8::try_from(bucket(ms * 1000)).unwrap(), *count)],
    };
    let edges = flows.iter().map(edge).collect();
    Gathered::default().with(Some(ProxyEdges { end: 1_700_000_000, edges }))
}

/// Two callers, two pods of a Deployment, a database; some of it through splits.
fn traffic() -> Gathered {
    gathered(&[
        ("10.0.0.4", Some("10.0.0.1:8080"), "web", Some("web-v1"), (90, 4), 1),
        // The same pair, from another proxy.
        ("10.0.0.4", Some("10.0.0.1:8080"), "web", Some("web-v1"), (10, 40), 0),
        ("10.0.0.4", Some("[fd00::2]:8080"), "web", Some("web-v2a"), (7, 4), 0),
        ("10.0.0.4", None, "web", Some("web-v2b"), (2, 0), 2),
        ("10.0.0.1", Some("10.0.0.3:5432"), "db", None, (5, 1), 0),
        ("10.9.9.9", Some("10.0.0.3:5432"), "db", None, (3, 1), 0),
    ])
}

fn ask(path: &str, subject: Subject) -> Value {
    let kind = Kind::of(path).unwrap();
    let namespace = kind.namespaced.then(|| "shop".to_owned());
    let document = answer(&cluster(), &traffic(), &Ask { kind, namespace, subject }).unwrap();
    serde_json::to_value(document).unwrap()
}

fn one(plural: &str, name: &str) -> Value {
    ask(plural, Subject::One(name.to_owned()))
}

fn edges(plural: &str, name: &str) -> Value {
    ask(plural, Subject::Edges(name.to_owned()))
}

fn all(plural: &str, select: &str) -> Value {
    ask(plural, Subject::All(selector::parse(select).unwrap()))
}

/// The figures of each item, short.
fn figures(list: &Value) -> Vec<String> {
    let item = |item: &Value| {
        let edge = &item["edge"];
        let peer = edge["resource"]["name"]
            .as_str()
            .map(|name| format!(" {} {name}", edge["resource"]["kind"].as_str().unwrap()));
        let share =
            item["backend"]["name"].as_str().map(|name| format!(" [{name} {}]", item["backend"]["weight"]));
        let value = |i: usize| item["metrics"][i]["value"].as_str().unwrap().to_owned();
        format!(
            "{}{} {}/{}{}: {} ok, {} failed",
            item["resource"]["name"].as_str().unwrap(),
            share.unwrap_or_default(),
            edge["direction"].as_str().unwrap(),
            edge["side"].as_str().unwrap(),
            peer.unwrap_or_default(),
            value(3),
            value(4)
        )
    };
    list["items"].as_array().unwrap().iter().map(item).collect()
}

#[test]
fn one_object() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&one("deployments", "web")).unwrap());
}

#[test]
fn a_list_with_a_selector() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&all("pods", "app=db")).unwrap());
}

#[test]
fn a_split_by_its_shares() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&one("trafficsplits", "canary")).unwrap());
}

#[test]
fn every_kind_and_its_edges() {
    let mut shown = String::new();
    for kind in KINDS {
        shown += &format!("{}\n", kind.plural);
        let list = all(kind.plural, "");
        for line in figures(&list) {
            shown += &format!("  {line}\n");
        }
        let names: std::collections::BTreeSet<_> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["resource"]["name"].as_str().unwrap())
            .collect();
        for name in names {
            for line in figures(&edges(kind.plural, name)) {
                shown += &format!("    edge {line}\n");
            }
        }
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn sums_agree() {
    let sum = |list: &Value| -> BTreeMap<&str, u64> {
        let mut sum = BTreeMap::new();
        for metric in
            list["items"].as_array().unwrap().iter().flat_map(|item| item["metrics"].as_array().unwrap())
        {
            if metric["unit"].is_null() {
                let name = if metric["name"] == "success_count" { "ok" } else { "failed" };
                *sum.entry(name).or_default() += metric["value"].as_str().unwrap().parse::<u64>().unwrap();
            }
        }
        sum
    };
    let pods = all("pods", "");
    assert_eq!(
        sum(&pods),
        BTreeMap::from([("ok", 114), ("failed", 1)]),
        "what got to no pod is not among them"
    );
    assert_eq!(sum(&all("nodes", "")), sum(&pods));
    assert_eq!(sum(&all("namespaces", "")), sum(&pods));
    assert_eq!(sum(&all("services", "")), BTreeMap::from([("ok", 114), ("failed", 3)]));
}

#[test]
fn what_cannot_be_answered() {
    let refused = |plural: &str, subject| {
        let kind = Kind::of(plural).unwrap();
        let namespace = kind.namespaced.then(|| "shop".to_owned());
        answer(&cluster(), &traffic(), &Ask { kind, namespace, subject }).unwrap_err()
    };
    for (plural, name) in
        [("pods", "nobody"), ("pods", "agent"), ("namespaces", "other"), ("services", "cart")]
    {
        let error = refused(plural, Subject::One(name.into())).to_string();
        assert!(error.contains(plural) && error.contains(name), "{error}");
        assert!(matches!(refused(plural, Subject::Edges(name.into())), Refusal::NotFound(..)));
    }
    let selector = selector::parse("app=web").unwrap();
    assert_eq!(refused("services", Subject::All(selector)), Refusal::NoLabels("services"));
}
