use http_body_util::BodyExt as _;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;
use crate::index::kinds::SliceKind;
use crate::policies::tests::enforced;

fn debug(index: Index) -> Debug {
    let (publisher, metrics, keys) = Default::default();
    Debug { index, publisher, metrics, keys, pod: "weft-operator-1".into() }
}

async fn get(debug: &Debug, path: &str) -> (StatusCode, String) {
    let answer = debug.answer(&Method::GET, &path.parse().unwrap()).await;
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get_json(debug: &Debug, path: &str) -> Value {
    let (status, body) = get(debug, path).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// `web` has an endpoint that runs as nobody, one that is on its way out, and one that is not ready.
fn with_endpoints() -> Index {
    let index = enforced();
    let endpoint = |address: &str, ready: bool, terminating: bool| {
        json!({"addresses": [address], "nodeName": "node1",
            "conditions": {"ready": ready, "serving": ready || terminating, "terminating": terminating}})
    };
    let slice = json!({"metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 8080}],
        "endpoints": [endpoint("10.0.0.3", true, false), endpoint("10.0.0.4", false, true), endpoint("10.0.0.5", false, false)]});
    index.take(&SliceKind, Event::Apply(serde_json::from_value(slice).unwrap()), &mut None);
    index
}

#[tokio::test]
async fn every_policy_is_listed_with_what_became_of_it() {
    let all = get_json(&debug(enforced()), "/debug/smi").await;
    let second = all.as_array().unwrap().iter().find(|object| object["name"] == "second").unwrap();
    let note = "Service shop/web is split by TrafficSplit shop/canary already, which is older.";
    assert_eq!(
        *second,
        json!({"kind": "TrafficSplit", "apiVersion": "split.smi-spec.io/v1alpha4", "namespace": "shop",
            "name": "second", "verdict": "Rejected", "notes": [note]})
    );
}

#[tokio::test]
async fn the_topology_as_people_read_it() {
    let debug = debug(with_endpoints());
    insta::assert_snapshot!(get(&debug, "/debug/services").await.1);
}

#[tokio::test]
async fn one_service_with_its_endpoints_and_resources() {
    let debug = debug(with_endpoints());
    let id = ServiceId::new("shop", "web");
    let (service, slices) = (debug.index.meshed(&id).unwrap(), debug.index.slices(&id));
    let (shadow, splits) = (debug.index.shadow(&id), policies::splits(&debug.index, &service));
    let compiled =
        crate::compile::service(&service, &slices, shadow.as_deref(), &debug.index.scope(), splits);
    debug.publisher.publish(vec![(crate::publish::Owner::Service(id), compiled)]);
    insta::assert_snapshot!(get(&debug, "/debug/services/shop/web").await.1);
    let all = get_json(&debug, "/debug/configuration").await;
    assert_eq!(all["resources"].as_array().unwrap().len(), 3);
    assert_eq!(all["digest"], debug.publisher.digest());
}

#[tokio::test]
async fn what_went_wrong_is_told_where_one_looks_for_it() {
    let debug = debug(enforced());
    let id = ServiceId::new("shop", "v1");
    debug.publisher.set_failures([(id, "Service shop/v1 port 80 gets no listen port".to_owned())].into());
    let v1 = get_json(&debug, "/debug/services/shop/v1").await;
    assert_eq!(
        v1["errors"],
        json!([
            "Service shop/v1 port 80 gets no listen port",
            "it has no endpoints: no pod is selected, or there is no EndpointSlice"
        ])
    );
    debug.publisher.set_failures(std::collections::BTreeMap::new());
    assert_eq!(get_json(&debug, "/debug/services/shop/v1").await["errors"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_service_outside_the_mesh_says_why() {
    let debug = debug(Index::new("weft-system"));
    let service =
        json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let event = Event::Apply(serde_json::from_value(service).unwrap());
    debug.index.take(&crate::index::kinds::ServiceKind, event, &mut None);
    assert_eq!(
        get_json(&debug, "/debug/services/shop/web").await,
        json!({"inMesh": false, "because": "there is no MeshConfig"})
    );
    let (status, body) = get(&debug, "/debug/services/shop/gone").await;
    assert!(status == StatusCode::NOT_FOUND && body.starts_with("there is no Service shop/gone;"), "{body}");
}

#[tokio::test]
async fn pages_are_listed_and_what_is_none_is_told() {
    let debug = debug(enforced());
    let (status, index) = get(&debug, "/").await;
    assert_eq!(status, StatusCode::OK);
    let (status, unknown) = get(&debug, "/elsewhere").await;
    assert_eq!(
        (status, unknown),
        (StatusCode::NOT_FOUND, format!("there is no such page; there are\n{index}"))
    );
    for (path, _) in PAGES {
        let path = path.replace("<namespace>", "shop").replace("<name>", "web").replace("<node>", "node1");
        let (status, body) = get(&debug, &path).await;
        // There are no nodes here.
        let expected = if path.contains("node1") { StatusCode::NOT_FOUND } else { StatusCode::OK };
        assert_eq!(status, expected, "{path}: {body}");
    }
    let post = debug.answer(&Method::POST, &"/debug/services".parse().unwrap()).await;
    assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_replica_tells_how_it_is() {
    let debug = debug(enforced());
    let operator = get_json(&debug, "/debug/operator").await;
    assert_eq!(
        (&operator["pod"], &operator["leads"], &operator["meshConfig"], &operator["services"]),
        (&json!("weft-operator-1"), &json!(false), &json!("weft-system/weft"), &json!(4))
    );
    assert!(operator["awaited"].as_array().unwrap().contains(&json!("Pod")), "{operator}");
}
