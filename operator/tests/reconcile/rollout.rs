//! How a change of the proxies goes from node to node, as the DaemonSet and the status tell it. What its controller does with
//! that is simulated beside the state machine, and seen end to end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use weft_config::status::ProxyStatus;
use weft_operator::dns::check::Answer;
use weft_operator::index::ProxyPod;
use weft_operator::outside::{Network, Outside};
use weft_operator::publish::Publisher;
use weft_operator::reconcile::proxies::Told;

use super::api::ApiServer;
use super::{
    CART, DAEMONSET, MESH, Operator, a_mesh, cluster, condition, operator, operator_among, reason,
    standing_mesh, two_more_looks, until,
};

const PODS: &str = "/api/v1/namespaces/weft-system/pods";
const PROXY: &str = "/api/v1/namespaces/weft-system/pods/new0";

fn strategy(api: &ApiServer) -> Option<Value> {
    Some(api.get(DAEMONSET)?["spec"]["updateStrategy"].clone())
}

fn template(api: &ApiServer) -> String {
    let labels = &api.get(DAEMONSET).unwrap()["spec"]["template"]["metadata"]["labels"];
    labels["weft.mesh/template"].as_str().unwrap().to_owned()
}

const OLD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 1, 1));
const NEW: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 2));

/// Proxies that answer what they are told to.
#[derive(Clone, Default)]
struct Proxies {
    /// By address; who is not among these does not answer.
    says: Arc<Mutex<BTreeMap<IpAddr, ProxyStatus>>>,
    /// Who was asked, question by question.
    asked: Arc<Mutex<Vec<Vec<IpAddr>>>>,
}

impl Outside for Proxies {
    fn ask_dns<'a>(&'a self, server: SocketAddr, domain: &'a str) -> BoxFuture<'a, Answer> {
        Network.ask_dns(server, domain).boxed()
    }

    fn own_dns(&self) -> Option<SocketAddr> {
        Network.own_dns()
    }

    fn ask_proxies(&self, pods: Vec<ProxyPod>, _: Vec<u16>) -> BoxFuture<'_, Vec<Told>> {
        self.asked.lock().unwrap().push(pods.iter().map(|pod| pod.address).collect());
        let says = self.says.lock().unwrap();
        let told = pods.into_iter().map(|pod| (says.get(&pod.address).cloned(), pod));
        ready(told.map(|(said, pod)| (pod, said)).collect()).boxed()
    }

    fn time(&self) -> Timestamp {
        Network.time()
    }
}

/// A mesh that is up, whose proxies are `proxies`. It has no Services, so that nobody asks for listen ports.
async fn mesh_among(proxies: &Proxies, spec: Value) -> (ApiServer, Operator) {
    let (api, client) = cluster().await;
    api.delete(CART);
    api.put(MESH, a_mesh(&spec));
    let operator = operator_among(client, Publisher::default(), proxies.clone());
    until("DaemonSet", &api, || api.get(DAEMONSET)).await;
    (api, operator)
}

/// How a proxy pod is: ready, or not since it waits for the reason given.
fn status(waits: Option<&str>) -> Value {
    let ready = waits.is_none();
    let state = match waits {
        None => json!({"running": {}}),
        Some(reason) => json!({"waiting": {"reason": reason, "message": "back-off"}}),
    };
    json!({"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}], "containerStatuses": [
        {"name": "proxy", "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": state}]})
}

/// A proxy pod of `template` on `node`; one whose name begins with `new` is younger than the others.
fn put_pod(api: &ApiServer, name: &str, node: &str, template: &str, waits: Option<&str>) {
    let minute = u8::from(name.starts_with("new"));
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"labels": {"weft.mesh/template": template},
            "creationTimestamp": format!("2026-01-01T00:0{minute}:00Z"),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "weft-proxy", "uid": "d", "controller": true}]},
        "spec": {"nodeName": node, "containers": [{"name": "proxy", "image": "proxy:some"}]},
        "status": status(waits)});
    api.put(&format!("{PODS}/{name}"), pod);
}

fn has_address(api: &ApiServer, pod: &str, address: IpAddr) {
    api.edit(&format!("{PODS}/{pod}"), |pod| pod["status"]["podIP"] = json!(address));
}

/// Observes for no time: what is looked at here is the order of things.
fn spec(more: Value) -> Value {
    let mut spec = json!({"proxy": {"rollout": {"observeSeconds": 0}}});
    spec["proxy"]["logLevel"] = more;
    spec
}

fn rolls(surge: u64) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0}})
}

/// A mesh on `nodes` nodes whose rollout to another log level has begun; gives the template before and the one that is wanted.
async fn rolling(api: &ApiServer, nodes: u32) -> (String, String) {
    let before = template(api);
    for node in 0..nodes {
        put_pod(api, &format!("old{node}"), &format!("n{node}"), &before, None);
    }
    api.edit(DAEMONSET, |set| set["status"]["desiredNumberScheduled"] = json!(nodes));
    until("Complete", api, || (reason(api, MESH, "RolloutPaused")? == "Complete").then_some(())).await;
    api.edit(MESH, |mesh| mesh["spec"] = spec(json!("debug")));
    until("another template", api, || (template(api) != before).then_some(())).await;
    until("Rolling", api, || (reason(api, MESH, "RolloutPaused")? == "Rolling").then_some(())).await;
    until("one node at a time", api, || (strategy(api)? == rolls(1)).then_some(())).await;
    let wanted = template(api);
    (before, wanted)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_in_growing_steps_and_ends() {
    let (api, operator) = standing_mesh(spec(json!("info"))).await;
    assert_eq!(strategy(&api), Some(rolls(1)));
    let (_, wanted) = rolling(&api, 16).await;
    let put = |node| put_pod(&api, &format!("new{node}"), &format!("n{node}"), &wanted, None);
    let take = |node| api.delete(&format!("{PODS}/old{node}"));
    (0..4).for_each(put);
    two_more_looks(&api, &operator).await;
    (0..4).for_each(take);
    until("four nodes at a time", &api, || (strategy(&api)? == rolls(4)).then_some(())).await;
    (4..16).for_each(put);
    (4..16).for_each(take);
    until("Complete", &api, || (reason(&api, MESH, "RolloutPaused")? == "Complete").then_some(())).await;
    until("at rest", &api, || (strategy(&api)? == rolls(1)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_proxy_that_fails_stops_it_for_the_next_leader_too_until_the_former_spec_is_back() {
    let (api, client) = cluster().await;
    api.put(MESH, a_mesh(&spec(json!("info"))));
    let first = operator(client.clone());
    until("DaemonSet", &api, || api.get(DAEMONSET)).await;
    let (before, wanted) = rolling(&api, 3).await;
    put_pod(&api, "new0", "n0", &wanted, Some("CrashLoopBackOff"));

    let hold = json!({"type": "OnDelete"});
    until("held", &api, || (strategy(&api)? == hold).then_some(())).await;
    let paused = || condition(&api.get(MESH)?, "RolloutPaused").filter(|(status, ..)| status == "True");
    let (_, _, message) = until("RolloutPaused", &api, paused).await;
    for words in ["new0", "n0", "proxy:some", "CrashLoopBackOff"] {
        assert!(message.contains(words), "{words} is not in {message}");
    }
    assert_eq!(reason(&api, MESH, "Degraded").as_deref(), Some("RolloutPaused"));

    // The DaemonSet's controller takes the new pod away, and another leader comes.
    api.delete(&format!("{PODS}/new0"));
    drop(first);
    api.edit(super::LEASE, |lease| lease["spec"] = json!({"holderIdentity": ""}));
    api.edit_status(MESH, |status| *status = json!({}));
    let _second = operator(client);
    assert_eq!(until("told by the next leader", &api, paused).await.2, message);
    assert_eq!(strategy(&api), Some(hold));

    api.edit(MESH, |mesh| mesh["spec"] = spec(json!("info")));
    until("Complete", &api, || (reason(&api, MESH, "RolloutPaused")? == "Complete").then_some(())).await;
    assert_eq!(template(&api), before);
    until("at rest", &api, || (strategy(&api)? == rolls(1)).then_some(())).await;
    let annotations = api.get(DAEMONSET).unwrap()["metadata"]["annotations"].clone();
    assert!(annotations.as_object().is_none_or(serde_json::Map::is_empty), "{annotations}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_stopped_by_what_only_a_watch_that_is_behind_shows() {
    let spec = |level: &str| {
        let rollout = json!({"observeSeconds": 0, "patienceSeconds": 10});
        json!({"proxy": {"rollout": rollout, "logLevel": level}})
    };
    let (api, operator) = standing_mesh(spec("info")).await;
    let before = template(&api);
    put_pod(&api, "old0", "n0", &before, None);
    until("Complete", &api, || (reason(&api, MESH, "RolloutPaused")? == "Complete").then_some(())).await;
    api.edit(MESH, |mesh| mesh["spec"] = spec("debug"));
    until("one node at a time", &api, || {
        (template(&api) != before && strategy(&api)? == rolls(1)).then_some(())
    })
    .await;
    let wanted = template(&api);
    // Shown as not ready; it is ready well before that has lasted too long.
    put_pod(&api, "new0", "n0", &wanted, Some("ContainerCreating"));
    two_more_looks(&api, &operator).await;
    api.mute(Some(PROXY));
    api.edit(PROXY, |pod| pod["status"] = status(None));
    // The look that would have stopped it.
    let asked = || api.requests().iter().filter(|request| **request == format!("GET {PODS}")).count();
    let before = asked();
    until("the pods are asked for", &api, || (asked() > before).then_some(())).await;
    two_more_looks(&api, &operator).await;
    assert_eq!(reason(&api, MESH, "RolloutPaused").as_deref(), Some("Rolling"));
    assert_eq!(strategy(&api), Some(rolls(1)));
    api.delete(&format!("{PODS}/old0"));
    api.mute(None);
    until("Complete", &api, || (reason(&api, MESH, "RolloutPaused")? == "Complete").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_stopped_by_the_look_that_hears_of_the_trouble() {
    let proxies = Proxies::default();
    let (api, operator) = mesh_among(&proxies, spec(json!("info"))).await;
    let (_, wanted) = rolling(&api, 2).await;
    put_pod(&api, "new0", "n0", &wanted, None);
    let fails = ProxyStatus { requests: 100, failures: 40, ..ProxyStatus::default() };
    *proxies.says.lock().unwrap() = BTreeMap::from([(OLD, ProxyStatus::default()), (NEW, fails)]);
    has_address(&api, "old1", OLD);
    two_more_looks(&api, &operator).await;
    // From now on the new one is asked as well.
    let before = api.writes().len();
    has_address(&api, "new0", NEW);
    let held = || (strategy(&api)? == json!({"type": "OnDelete"})).then_some(());
    until("held", &api, held).await;
    // The status comes at the end of each look.
    assert_eq!(api.writes()[before], format!("PATCH {DAEMONSET}"), "{:#?}", &api.writes()[before..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_behind_is_asked_twice_in_a_look_and_one_that_does_not_answer_once() {
    let proxies = Proxies::default();
    let (behind, dead) = (NEW, OLD);
    proxies.says.lock().unwrap().insert(behind, ProxyStatus::default());
    let (api, operator) = mesh_among(&proxies, spec(json!("info"))).await;
    for (name, address) in [("behind", behind), ("dead", dead)] {
        put_pod(&api, name, "n", &template(&api), None);
        has_address(&api, name, address);
    }
    let first = || proxies.asked.lock().unwrap().iter().position(|asked| !asked.is_empty());
    let first = until("asked", &api, first).await;
    two_more_looks(&api, &operator).await;
    let asked = proxies.asked.lock().unwrap()[first..].to_vec();
    for (n, asked) in asked.iter().enumerate() {
        assert_eq!(*asked, if n % 2 == 0 { vec![behind, dead] } else { vec![behind] }, "question {n}");
    }
    assert!(asked.len() >= 4, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stays_told_as_stopped_while_another_change_is_refused() {
    let (api, _operator) = standing_mesh(spec(json!("info"))).await;
    let (_, wanted) = rolling(&api, 2).await;
    put_pod(&api, "new0", "n0", &wanted, Some("CrashLoopBackOff"));
    let paused = || condition(&api.get(MESH)?, "RolloutPaused").filter(|(status, ..)| status == "True");
    let told = until("RolloutPaused", &api, paused).await;
    api.refuse("PATCH", DAEMONSET, 422, "a webhook says no", u32::MAX);
    api.edit(MESH, |mesh| mesh["spec"] = spec(json!("trace")));
    until("refused", &api, || (reason(&api, MESH, "Degraded")? == "NotApplied").then_some(())).await;
    assert_eq!(paused(), Some(told));
    api.refuse_no_more();
    until("Rolling", &api, || (reason(&api, MESH, "RolloutPaused")? == "Rolling").then_some(())).await;
    until("well", &api, || (reason(&api, MESH, "Degraded")? == "AllWell").then_some(())).await;
}
