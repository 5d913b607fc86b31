//! How a change of the proxies goes from node to node, as the DaemonSet and the status tell it. What its controller does with
//! that is simulated beside the state machine, and seen end to end.

use serde_json::{Value, json};

use super::api::ApiServer;
use super::{
    DAEMONSET, MESH, a_mesh, cluster, condition, operator, reason, standing_mesh, two_more_looks, until,
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
    let (api, _operator) = standing_mesh(spec(json!("info"))).await;
    assert_eq!(strategy(&api), Some(rolls(1)));
    let (_, wanted) = rolling(&api, 16).await;
    let replace = |node: u32| {
        put_pod(&api, &format!("new{node}"), &format!("n{node}"), &wanted, None);
        api.delete(&format!("{PODS}/old{node}"));
    };
    (0..4).for_each(replace);
    until("four nodes at a time", &api, || (strategy(&api)? == rolls(4)).then_some(())).await;
    (4..16).for_each(replace);
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
