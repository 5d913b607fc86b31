//! What the leader does to the cluster, against a stand-in for the API server: each test is one story, told by the objects and
//! by the writes that made them. The Lease is real as well: nothing is written by who does not hold it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::needless_pass_by_value, reason = "json! is written where it is given")]

mod api;
mod dns;
mod exhausted;
mod leaving;
mod ownership;
mod rest;
mod rivals;
mod rollout;
mod servers;
#[path = "../simulated/mod.rs"]
mod simulated;
mod told;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weft_operator::apply::{WriteError, Writer};
use weft_operator::context::Context;
use weft_operator::index::Index;
use weft_operator::lease::Fence;
use weft_operator::outside::{Network, Outside};
use weft_operator::publish::Publisher;
use weft_operator::run::{self, Ended};
use weft_operator::serve::metrics::Metrics;

use api::ApiServer;
use simulated::chart::{COREFILE, a_mesh, a_service};
use simulated::paths::{CA_MAP, CA_SECRET, COREDNS, DAEMONSET, LEASE, MESH};

const SECOND: &str = "/apis/weft.mesh/v1alpha1/namespaces/weft-system/meshconfigs/second";
const ELSEWHERE: &str = "/apis/weft.mesh/v1alpha1/namespaces/shop/meshconfigs/weft";
const PROXIES: &str = "/api/v1/namespaces/weft-system/services/weft-proxy";
const CART: &str = "/api/v1/namespaces/shop/services/cart";
const SHADOW: &str = "/api/v1/namespaces/weft-system/services/cart-weft-shop";
const EVENTS: &str = "POST /apis/events.k8s.io/v1/namespaces/weft-system/events";

/// A cluster before Weft, but for what the chart makes.
async fn cluster() -> (ApiServer, kube::Client) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (api, client) = ApiServer::start().await;
    api.put(CART, a_service("10.96.0.20", &[80, 81]));
    (api, client)
}

/// One replica. Ends when dropped.
struct Operator {
    writer: Writer,
    metrics: Arc<Metrics>,
    index: Index,
    task: JoinHandle<Result<(), Ended>>,
    stop: watch::Sender<bool>,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn operator(client: kube::Client) -> Operator {
    operator_among(client, Publisher::default(), Network)
}

/// One that asks `outside`.
fn operator_among(client: kube::Client, publisher: Publisher, outside: impl Outside + 'static) -> Operator {
    operator_lingering(client, publisher, outside, Duration::ZERO)
}

/// One that is up to date for so much longer when it was told to end.
fn operator_lingering(
    client: kube::Client,
    publisher: Publisher,
    outside: impl Outside + 'static,
    lingering: Duration,
) -> Operator {
    let fence = Fence::default();
    let (stop, stopping) = watch::channel(false);
    let ctx = Context {
        writer: Writer::new(client.clone(), fence.clone()),
        client,
        index: Index::new("weft-system"),
        publisher,
        outside: Arc::new(outside),
        namespace: "weft-system".into(),
        pod: "me".into(),
        smi_metrics: false,
        proxy_image: "weft-proxy:test".into(),
        metrics: Arc::default(),
        contact: weft_operator::lease::Contact::default(),
    };
    let (writer, metrics, index) = (ctx.writer.clone(), Arc::clone(&ctx.metrics), ctx.index.clone());
    let task = tokio::spawn(run::replica(ctx, fence, stopping, lingering));
    Operator { writer, metrics, index, task, stop }
}

/// Waits until `seen` gives something; what it waits for comes in a second or two.
async fn until<T>(what: &str, api: &ApiServer, seen: impl Fn() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(seen) = seen() {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(20), waiting).await {
        Ok(seen) => seen,
        Err(late) => panic!("{late}: {what}; mesh: {:#?}; writes: {:#?}", api.get(MESH), api.writes()),
    }
}

/// Two more reconciliations, from the first to the last thing they do: whatever was to be done is done.
async fn two_more_looks(api: &ApiServer, operator: &Operator) {
    let looks = || operator.metrics.reconciliations.get();
    let enough = looks() + 3;
    until("two reconciliations", api, || (looks() >= enough).then_some(())).await;
}

fn condition(object: &Value, kind: &str) -> Option<(String, String, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

/// What needs a person, by the status.
fn degraded(api: &ApiServer) -> Option<String> {
    condition(&api.get(MESH)?, "Degraded")
        .filter(|(status, ..)| status == "True")
        .map(|(.., message)| message)
}

fn reason(api: &ApiServer, mesh: &str, kind: &str) -> Option<String> {
    condition(&api.get(mesh)?, kind).map(|(_, reason, _)| reason)
}

fn corefile(api: &ApiServer) -> String {
    api.get(COREDNS).unwrap()["data"]["Corefile"].as_str().unwrap().to_owned()
}

fn target_ports(shadow: &Value) -> Vec<(u64, u64)> {
    let ports = shadow["spec"]["ports"].as_array().unwrap();
    ports.iter().map(|port| (port["port"].as_u64().unwrap(), port["targetPort"].as_u64().unwrap())).collect()
}

/// A mesh that is up, with its shadow and its DNS block.
async fn standing_mesh(spec: Value) -> (ApiServer, Operator) {
    let (api, client) = cluster().await;
    api.put(MESH, a_mesh(&spec));
    let operator = operator(client);
    until("shadow", &api, || api.get(SHADOW)).await;
    until("status", &api, || reason(&api, MESH, "Ready")).await;
    two_more_looks(&api, &operator).await;
    (api, operator)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_mesh_gets_everything_and_then_nothing_more_is_written_or_asked() {
    let (api, operator) = standing_mesh(json!({})).await;

    let daemonset = api.get(DAEMONSET).expect("DaemonSet");
    assert_eq!(daemonset["metadata"]["ownerReferences"][0]["name"], "weft");
    assert_eq!(daemonset["spec"]["template"]["spec"]["containers"][0]["image"], "weft-proxy:test");
    assert!(api.get(PROXIES).is_some());
    assert_eq!(target_ports(&api.get(SHADOW).unwrap()), [(80, 10000), (81, 10001)]);
    assert!(corefile(&api).starts_with(COREFILE), "what was there stays");
    assert!(corefile(&api).contains("weft.mesh:53 {"), "{}", corefile(&api));
    assert_eq!(api.get(MESH).unwrap()["metadata"]["finalizers"], json!(["weft.mesh/cleanup"]));
    assert_eq!(
        reason(&api, MESH, "DNSConfigured").as_deref(),
        Some("Propagating"),
        "there is no DNS pod here"
    );
    assert_eq!(reason(&api, MESH, "Degraded").as_deref(), Some("AllWell"));
    assert!(api.requests().contains(&EVENTS.to_owned()), "changes are told in Events");
    let series = operator.metrics.encode().unwrap();
    for condition in ["Degraded\"} 0", "RolloutPaused\"} 0", "DNSConfigured\"} 0"] {
        assert!(
            series.contains(&format!("weft_operator_condition{{type=\"{condition}\n")),
            "{condition}: {series}"
        );
    }
    // The users' own objects are read, never written.
    assert!(!api.writes().iter().any(|write| write.contains("/namespaces/shop/")), "{:#?}", api.writes());

    let renewals = |request: &String| !request.contains("/leases/");
    let requests = || api.requests().into_iter().filter(renewals).collect::<Vec<_>>();
    let before = requests();
    two_more_looks(&api, &operator).await;
    assert_eq!(requests(), before, "at rest nothing is written or asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_and_ports_follow_the_service() {
    let (api, _operator) = standing_mesh(json!({})).await;
    api.edit(CART, |cart| {
        cart["spec"]["ports"] = json!([{"name": "renamed", "port": 81}, {"name": "new", "port": 82}]);
    });
    let ports = |n: usize| {
        api.get(SHADOW)
            .map(|shadow| target_ports(&shadow))
            .filter(|ports| ports.last().unwrap().0 == n as u64)
    };
    let now = until("port 82", &api, || ports(82)).await;
    assert_eq!(
        now,
        [(81, 10001), (82, 10002)],
        "81 keeps its port, and 80's is not handed out again at once"
    );
    assert_eq!(api.get(SHADOW).unwrap()["spec"]["ports"][0]["name"], "renamed");

    api.delete(CART);
    until("shadow gone", &api, || api.get(SHADOW).is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_mesh_config_waits_and_is_served_when_the_first_is_gone() {
    let (api, _operator) = standing_mesh(json!({})).await;
    let mut second = a_mesh(&json!({}));
    second["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:01Z");
    api.put(SECOND, second);
    until("Conflict", &api, || (reason(&api, SECOND, "Ready")? == "Conflict").then_some(())).await;
    let message = condition(&api.get(SECOND).unwrap(), "Ready").unwrap().2;
    assert!(message.contains("MeshConfig weft is older"), "{message}");
    assert_eq!(api.get(SECOND).unwrap()["metadata"]["finalizers"], Value::Null);

    api.delete(MESH);
    until("the first gone", &api, || api.get(MESH).is_none().then_some(())).await;
    let owner = || api.get(SHADOW).map(|shadow| shadow["metadata"]["ownerReferences"][0]["name"].clone());
    until("the second's shadow", &api, || (owner()? == "second").then_some(())).await;
    until("the second's DaemonSet", &api, || {
        (api.get(DAEMONSET)?["metadata"]["ownerReferences"][0]["name"] == "second").then_some(())
    })
    .await;
    // The status comes last.
    until("no Conflict", &api, || (reason(&api, SECOND, "Ready")? != "Conflict").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_config_elsewhere_is_told_where_it_belongs() {
    let (api, client) = cluster().await;
    api.put(ELSEWHERE, a_mesh(&json!({})));
    let operator = operator(client);
    until("WrongNamespace", &api, || (reason(&api, ELSEWHERE, "Ready")? == "WrongNamespace").then_some(()))
        .await;
    let message = condition(&api.get(ELSEWHERE).unwrap(), "Ready").unwrap().2;
    assert!(message.contains("namespace weft-system: create it there"), "{message}");
    let own = |write: &String| !write.ends_with(CA_SECRET) && !write.ends_with(CA_MAP);
    let writes: Vec<_> = api.writes().into_iter().filter(own).collect();
    assert_eq!(writes, [format!("PATCH {ELSEWHERE}/status")]);
    // Another operator, of another namespace, says it in its own words.
    let theirs = "this operator serves the MeshConfig of namespace other: create it there";
    api.edit_status(ELSEWHERE, |status| status["conditions"][0]["message"] = json!(theirs));
    two_more_looks(&api, &operator).await;
    assert_eq!(condition(&api.get(ELSEWHERE).unwrap(), "Ready").unwrap().2, theirs);
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_takes_out_dns_first_then_shadows_and_leaves_the_corefile_as_it_was() {
    let (api, _operator) = standing_mesh(json!({})).await;
    let before = api.writes().len();
    // A concurrent edit and a hiccup are no reason to leave the block in, however long ago the deletion was.
    api.refuse("PATCH", COREDNS, 409, "the object has been modified", 1);
    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!(corefile(&api), COREFILE);
    assert!(api.get(SHADOW).is_none() && api.get(DAEMONSET).is_none());
    let writes = api.writes().split_off(before);
    let at = |write: String| {
        writes.iter().rposition(|w| *w == write).unwrap_or_else(|| panic!("{write}: {writes:#?}"))
    };
    let (dns, shadow) = (at(format!("PATCH {COREDNS}")), at(format!("DELETE {SHADOW}")));
    assert!(dns < shadow && shadow < at(format!("PATCH {MESH}")), "{writes:#?}");
    assert!(api.get(CART).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_edits_is_set_right() {
    let (api, _operator) = standing_mesh(json!({})).await;
    let ours = corefile(&api);
    api.edit(SHADOW, |shadow| shadow["spec"]["selector"] = json!({"app": "hijacked"}));
    api.edit(DAEMONSET, |set| set["spec"]["template"]["spec"]["serviceAccountName"] = json!("default"));
    api.edit(COREDNS, |map| map["data"]["Corefile"] = json!(format!("# by hand\n{COREFILE}")));
    until("shadow", &api, || {
        (api.get(SHADOW)?["spec"]["selector"]["app.kubernetes.io/name"] == "weft-proxy").then_some(())
    })
    .await;
    until("DaemonSet", &api, || {
        (api.get(DAEMONSET)?["spec"]["template"]["spec"]["serviceAccountName"] == "weft-proxy").then_some(())
    })
    .await;
    until("DNS block", &api, || (corefile(&api) == format!("# by hand\n{ours}")).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mesh_config_no_longer_asks_for_goes() {
    let selector =
        |api: &ApiServer| api.get(DAEMONSET).unwrap()["spec"]["template"]["spec"]["nodeSelector"].clone();
    let (api, _operator) = standing_mesh(json!({"proxy": {"nodeSelector": {"mesh": "yes"}}})).await;
    assert_eq!(selector(&api), json!({"mesh": "yes"}));
    api.edit(MESH, |mesh| mesh["spec"] = json!({}));
    until("no node selector", &api, || {
        selector(&api).as_object().is_none_or(serde_json::Map::is_empty).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_that_is_to_be_left_alone_is_left_as_it_was_found() {
    let (api, _operator) = standing_mesh(json!({})).await;
    api.edit(MESH, |mesh| mesh["spec"] = json!({"dns": {"provider": "None"}}));
    until("Manual", &api, || (reason(&api, MESH, "DNSConfigured")? == "Manual").then_some(())).await;
    assert_eq!(corefile(&api), COREFILE);
    let (status, _, message) = condition(&api.get(MESH).unwrap(), "DNSConfigured").unwrap();
    assert_eq!(status, "True");
    assert!(
        message.contains("weft.mesh:53 {") && message.contains("forward cluster.local 10.96.0.10"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_daemonset_is_told_in_the_status() {
    let (api, client) = cluster().await;
    api.refuse(
        "PATCH",
        DAEMONSET,
        422,
        "requests: Invalid value: must be less than or equal to memory limit",
        u32::MAX,
    );
    api.put(MESH, a_mesh(&json!({})));
    let _operator = operator(client);
    for (kind, told) in [("ProxiesReady", "False"), ("Degraded", "True")] {
        let (status, reason, message) = until(kind, &api, || condition(&api.get(MESH)?, kind)).await;
        assert_eq!((status.as_str(), reason.as_str()), (told, "NotApplied"));
        assert!(
            message.contains("DaemonSet weft-system/weft-proxy") && message.contains("memory limit"),
            "{message}"
        );
    }
    until("the rest goes on", &api, || corefile(&api).contains("weft.mesh:53").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_that_cannot_be_edited_is_told_in_the_status() {
    let (api, client) = cluster().await;
    // Neither by itself nor by a list, with which a watch begins.
    api.refuse("GET", COREDNS, 403, "no", u32::MAX);
    api.refuse("GET", "/api/v1/namespaces/kube-system/configmaps", 403, "no", u32::MAX);
    api.put(MESH, a_mesh(&json!({})));
    let _operator = operator(client);
    let (status, reason, message) =
        until("DNSConfigured", &api, || condition(&api.get(MESH)?, "DNSConfigured")).await;
    assert_eq!((status.as_str(), reason.as_str()), ("False", "DNSFailed"));
    assert!(message.contains("dns.manage"), "{message}");
    until("the rest goes on", &api, || api.get(SHADOW)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_hold_the_lease_writes_nothing() {
    let (api, client) = cluster().await;
    let held = |holder: &str, seconds: u32| {
        let time = "2026-01-01T00:00:00.000000Z";
        let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": seconds, "acquireTime": time, "renewTime": time});
        move |lease: &mut Value| lease["spec"] = spec
    };
    api.edit(LEASE, held("other", 10));
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client);
    for listed in ["coordination.k8s.io/v1/namespaces/weft-system/leases", "weft.mesh/v1alpha1/meshconfigs"] {
        let request = format!("GET /apis/{listed}");
        until(listed, &api, || api.requests().contains(&request).then_some(())).await;
    }
    assert_eq!(api.writes(), Vec::<String>::new());
    let refused = operator.writer.merge::<ConfigMap>("kube-system", "coredns", &json!({})).await.unwrap_err();
    assert!(matches!(refused, WriteError::NotLeader(_)));
    assert_eq!(refused.to_string(), "not writing ConfigMap kube-system/coredns: this replica does not lead");

    // Given back: the stand-by takes over at once.
    api.edit(LEASE, held("", 1));
    until("taken over", &api, || (api.get(LEASE)?["spec"]["holderIdentity"] == "me").then_some(())).await;
    until("shadow", &api, || api.get(SHADOW)).await;

    // Lost: it stops at once, and what drifts is the other's to set right.
    api.edit(LEASE, held("other", 10));
    until("the lead given up", &api, || (operator.metrics.leading.get() == 0).then_some(())).await;
    let refused = operator.writer.delete::<ConfigMap>("kube-system", "coredns", "u").await.unwrap_err();
    assert!(matches!(refused, WriteError::NotLeader(_)));
}

fn definition(group: &str, kind: &str, version: &str) -> Value {
    let versions = json!([{"name": version, "served": true, "storage": true}]);
    let names = json!({"kind": kind, "plural": format!("{}s", kind.to_lowercase())});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": versions},
        "status": {"conditions": [{"type": "Established", "status": "True", "reason": "", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn authors_of_policies_are_told_once_and_again_when_it_is_otherwise() {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    const SPLIT: &str = "/apis/split.smi-spec.io/v1alpha2/namespaces/shop/trafficsplits/canary";
    let (api, operator) = standing_mesh(json!({})).await;
    let split = |backend: &str| {
        json!({"apiVersion": "split.smi-spec.io/v1alpha2", "kind": "TrafficSplit", "metadata": {},
        "spec": {"service": "cart", "backends": [{"service": backend, "weight": 1}]}})
    };
    api.put(SPLIT, split("cart-v2"));
    // The kind comes after the operator, in the version that another tool brought along.
    let crd = definition("split.smi-spec.io", "TrafficSplit", "v1alpha2");
    api.put(&format!("{DEFINITIONS}/trafficsplits.split.smi-spec.io"), crd);
    let told = |n: usize| {
        let events = api.events_on("TrafficSplit", "canary");
        (events.len() >= n).then_some(events)
    };
    let [first] = until("the first Event", &api, || told(1)).await.try_into().unwrap();
    assert!(first.starts_with("Warning Rejected: Backend cart-v2: there is no such Service"), "{first}");
    let counts = |key: &str, n: u64| (api.get(MESH)?["status"]["smi"][key] == n).then_some(());
    until("the count", &api, || counts("rejected", 1)).await;
    two_more_looks(&api, &operator).await;
    assert_eq!(told(1).unwrap().len(), 1, "at rest nothing is told");

    api.put("/api/v1/namespaces/shop/services/cart-v2", a_service("10.96.0.21", &[80, 81]));
    let [_, second] = until("the second Event", &api, || told(2)).await.try_into().unwrap();
    assert_eq!(second, "Normal Accepted: It is in force as it is written.");
    until("the count", &api, || counts("accepted", 1)).await;
    assert_eq!(
        reason(&api, MESH, "Degraded").as_deref(),
        Some("AllWell"),
        "that is between its author and us"
    );

    api.delete(&format!("{DEFINITIONS}/trafficsplits.split.smi-spec.io"));
    until("without the kind there are none", &api, || counts("accepted", 0)).await;
}
