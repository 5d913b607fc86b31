//! What is ours comes back, whatever somebody does to it; what is not ours is left alone, whatever it looks like. And how a mesh
//! ends where no operator is there, or its namespace goes.

use weft_config::ServiceId;
use weft_operator::cleanup::{self, Cleanup};

use super::*;

const SECRET: &str = "/api/v1/namespaces/weft-system/secrets/weft-ca";
const CA: &str = "/api/v1/namespaces/weft-system/configmaps/weft-ca";
const PROXIES: &str = "/api/v1/namespaces/weft-system/services/weft-proxy";
const NAMESPACE: &str = "/api/v1/namespaces/weft-system";
const KUBE_DNS: &str = "/api/v1/namespaces/kube-system/configmaps/kube-dns";
const RESOLVER: &str = "/api/v1/namespaces/weft-system/services/weft-dns";
const STUBS: &str = "{\"corp.example\": [\"192.0.2.53\"]}";
const RIVAL: &str = "/apis/weft.mesh/v1alpha1/namespaces/other/meshconfigs/weft";

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_deletes_comes_back() {
    let (api, _operator) = standing_mesh(json!({})).await;
    let data = |path: &str| api.get(path).map(|object| object["data"].clone());
    let (secret, certificate) = (data(SECRET).unwrap(), data(CA).unwrap());
    assert!(secret["ca.key"].is_string() && certificate["ca.crt"].is_string());
    let ports = target_ports(&api.get(SHADOW).unwrap());
    for path in [SECRET, CA, PROXIES, DAEMONSET, SHADOW, LEASE] {
        api.delete(path);
        until(path, &api, || api.get(path)).await;
    }
    until("the CA as it was", &api, || (data(SECRET)? == secret && data(CA)? == certificate).then_some(()))
        .await;
    until("the Lease is held", &api, || (api.get(LEASE)?["spec"]["holderIdentity"] == "me").then_some(()))
        .await;
    assert_eq!(target_ports(&api.get(SHADOW).unwrap()), ports);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_adds_to_our_lists_goes() {
    let (api, operator) = standing_mesh(json!({})).await;
    let ports = target_ports(&api.get(SHADOW).unwrap());
    let pod = |api: &ApiServer| api.get(DAEMONSET).unwrap()["spec"]["template"]["spec"].clone();
    let before = pod(&api);
    api.edit(SHADOW, |shadow| {
        let more = json!({"name": "more", "port": 9999, "protocol": "TCP", "targetPort": 1});
        shadow["spec"]["ports"].as_array_mut().unwrap().push(more);
    });
    until("the shadow's ports", &api, || (target_ports(&api.get(SHADOW).unwrap()) == ports).then_some(()))
        .await;
    // With what he added it would be no valid object: two ports of one name.
    api.edit(SHADOW, |shadow| {
        let ports = &mut shadow["spec"]["ports"];
        *ports = json!([{"name": "p80", "port": 9999, "protocol": "TCP", "targetPort": 1}, ports[1]]);
    });
    until("the shadow's ports", &api, || (target_ports(&api.get(SHADOW).unwrap()) == ports).then_some(()))
        .await;
    api.edit(DAEMONSET, |set| {
        let pod = &mut set["spec"]["template"]["spec"];
        pod["containers"][0]["env"].as_array_mut().unwrap().push(json!({"name": "DEBUG", "value": "1"}));
        pod["containers"].as_array_mut().unwrap().push(json!({"name": "sidecar", "image": "theirs:1"}));
    });
    until("the proxies' pods", &api, || (pod(&api) == before).then_some(())).await;
    let writes = api.writes();
    two_more_looks(&api, &operator).await;
    assert_eq!(api.writes(), writes, "that was all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_somebody_damages_comes_back_and_one_that_is_emptied_is_made_anew() {
    let (api, _operator) = standing_mesh(json!({})).await;
    let data = |path: &str| api.get(path).unwrap()["data"].clone();
    let before = data(SECRET);
    api.edit(SECRET, |secret| secret["data"]["ca.key"] = json!("bm9uc2Vuc2U="));
    until("the Secret as it was", &api, || (data(SECRET) == before).then_some(())).await;
    let certificate = data(CA);
    api.edit(CA, |map| map["data"]["ca.crt"] = json!("mine"));
    until("the certificate as it was", &api, || (data(CA) == certificate).then_some(())).await;

    api.edit(SECRET, |secret| secret["data"] = json!({}));
    until("another certificate", &api, || {
        let now = data(CA);
        (now["ca.crt"].is_string() && now != certificate).then_some(())
    })
    .await;
    assert_ne!(data(SECRET)["ca.key"], before["ca.key"]);
}

/// A Service in our namespace under the name that a shadow should have.
fn in_the_way(labels: Value) -> Value {
    let mut service = a_service("10.96.0.99", &[80]);
    service["metadata"]["labels"] = labels;
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn somebodys_service_in_the_place_of_a_shadow_is_left_alone_and_told_of() {
    let alike = json!({"weft.mesh/shadow": "true", "weft.mesh/service-namespace": "shop", "weft.mesh/service-name": "cart",
        "app.kubernetes.io/managed-by": "weft-operator"});
    for labels in [json!({}), alike] {
        let (api, client) = cluster().await;
        api.put(SHADOW, in_the_way(labels));
        api.put(MESH, a_mesh(&json!({})));
        let operator = operator(client);
        let message = until("Degraded", &api, || degraded(&api)).await;
        assert!(message.contains("Service weft-system/cart-weft-shop is there already"), "{message}");
        let theirs = api.get(SHADOW).unwrap();

        // Neither when its Service goes nor when the mesh does.
        api.delete(CART);
        two_more_looks(&api, &operator).await;
        api.put(CART, a_service("10.96.0.20", &[80]));
        two_more_looks(&api, &operator).await;
        api.delete(MESH);
        until("the mesh is gone", &api, || api.get(MESH).is_none().then_some(())).await;
        assert_eq!(api.get(SHADOW), Some(theirs));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shadow_comes_as_soon_as_nothing_is_in_its_way() {
    let (api, client) = cluster().await;
    api.put(SHADOW, in_the_way(json!({})));
    api.put(MESH, a_mesh(&json!({})));
    let _operator = operator(client);
    let degraded = |is: &str| condition(&api.get(MESH)?, "Degraded").filter(|(status, ..)| status == is);
    until("Degraded", &api, || degraded("True")).await;
    api.delete(SHADOW);
    until("shadow", &api, || api.get(SHADOW)).await;
    until("not Degraded", &api, || degraded("False")).await;
}

/// Nobody can tell any more from its labels what it was, or they name another.
#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_made_unrecognizable_comes_back_or_goes_with_its_service() {
    let (api, _operator) = standing_mesh(json!({})).await;
    let before = api.get(SHADOW).unwrap()["metadata"]["labels"].clone();
    let mut other = before.clone();
    other["weft.mesh/service-name"] = json!("other");
    for labels in [json!({}), other] {
        api.edit(SHADOW, |shadow| shadow["metadata"]["labels"] = labels.clone());
        until("its labels", &api, || (api.get(SHADOW)?["metadata"]["labels"] == before).then_some(())).await;
        api.delete(CART);
        until("the shadow is gone", &api, || api.get(SHADOW).is_none().then_some(())).await;

        // As if somebody had done that while no operator was there.
        let mut object = a_service("10.96.0.99", &[80]);
        object["metadata"] =
            json!({"labels": labels, "managedFields": [{"manager": "weft-operator", "operation": "Apply"}]});
        api.put(SHADOW, object);
        until("that is gone as well", &api, || api.get(SHADOW).is_none().then_some(())).await;
        api.put(CART, a_service("10.96.0.20", &[80, 81]));
        until("shadow", &api, || api.get(SHADOW)).await;
    }
}

/// It would be left, should somebody take its owner off and the MeshConfig go before it is kept.
#[tokio::test(flavor = "multi_thread")]
async fn before_a_meshconfig_is_kept_nothing_is_made_for_it() {
    let (api, client) = cluster().await;
    api.refuse("PATCH", MESH, 500, "not now", 1000);
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client);
    two_more_looks(&api, &operator).await;
    assert!(api.get(SHADOW).is_none() && api.get(DAEMONSET).is_none(), "{:?}", api.writes());
    api.refuse_no_more();
    until("shadow", &api, || api.get(SHADOW)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebodys_daemonset_of_our_name_is_left_alone_and_told_of() {
    let (api, client) = cluster().await;
    let theirs = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"labels": {"app": "theirs"}},
        "spec": {"selector": {"matchLabels": {"app": "theirs"}}, "template": {"metadata": {"labels": {"app": "theirs"}}}}});
    api.put(DAEMONSET, theirs);
    api.put(MESH, a_mesh(&json!({})));
    let before = api.get(DAEMONSET);
    let operator = operator(client);
    let (_, reason, message) =
        until("ProxiesReady", &api, || condition(&api.get(MESH)?, "ProxiesReady")).await;
    assert_eq!(reason, "NotApplied");
    assert!(message.contains("was not made by Weft") && message.contains("delete it"), "{message}");
    two_more_looks(&api, &operator).await;
    assert_eq!(api.get(DAEMONSET), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_meshes_with_one_domain_the_newer_touches_nothing_until_the_older_is_gone() {
    let (api, client) = cluster().await;
    let mut older = a_mesh(&json!({}));
    older["metadata"]["creationTimestamp"] = json!("2025-01-01T00:00:00Z");
    older["status"] = json!({"services": 7});
    api.put(RIVAL, older);
    api.put("/api/v1/namespaces/other/services/weft-operator", a_service("10.96.0.30", &[9443]));
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client);
    until("DomainTaken", &api, || (reason(&api, MESH, "Ready")? == "DomainTaken").then_some(())).await;
    let message = condition(&api.get(MESH).unwrap(), "Ready").unwrap().2;
    assert!(message.contains("MeshConfig other/weft has weft.mesh"), "{message}");
    two_more_looks(&api, &operator).await;
    assert_eq!(corefile(&api), COREFILE);
    assert!(api.get(SHADOW).is_none() && api.get(DAEMONSET).is_none());
    assert_eq!(api.get(MESH).unwrap()["metadata"]["finalizers"], Value::Null);
    assert_eq!(api.get(RIVAL).unwrap()["status"], json!({"services": 7}), "it has an operator of its own");

    api.delete(RIVAL);
    until("the newer is served", &api, || api.get(SHADOW)).await;
    until("its block", &api, || corefile(&api).contains("weft.mesh:53 {").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_namespace_is_deleted_dns_is_put_right_and_nothing_holds_it_up() {
    let (api, client) = cluster().await;
    api.put(NAMESPACE, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {}}));
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client);
    until("block", &api, || corefile(&api).contains("weft.mesh:53 {").then_some(())).await;
    until("shadow", &api, || api.get(SHADOW)).await;
    two_more_looks(&api, &operator).await;
    // Kubernetes marks the namespace first, seconds before what is in it.
    api.edit(NAMESPACE, |namespace| {
        namespace["metadata"]["finalizers"] = json!(["kubernetes"]);
        namespace["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    });
    until("no finalizer", &api, || {
        let finalizers = api.get(MESH)?["metadata"]["finalizers"].clone();
        finalizers.as_array().is_none_or(Vec::is_empty).then_some(())
    })
    .await;
    assert_eq!(corefile(&api), COREFILE);
    api.delete(MESH);
    assert!(api.get(MESH).is_none());
}

/// A mesh whose operator is gone for good.
pub(super) async fn left_behind() -> (ApiServer, kube::Client) {
    let (api, client) = cluster().await;
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client.clone());
    until("shadow", &api, || api.get(SHADOW)).await;
    until("block", &api, || corefile(&api).contains("weft.mesh:53 {").then_some(())).await;
    two_more_looks(&api, &operator).await;
    resign(&api, &operator).await;
    (api, client)
}

/// It gives the Lease back; nobody takes it.
pub(super) async fn resign(api: &ApiServer, operator: &Operator) {
    operator.stop.send_replace(true);
    until("its end", api, || operator.task.is_finished().then_some(())).await;
    until("given back", api, || (api.get(LEASE)?["spec"]["holderIdentity"] == "").then_some(())).await;
}

/// kube-proxy still sends queries, and proxies, to it.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_told_to_end_gives_the_lease_back_and_stays_up_to_date_a_little_longer() {
    const PAY: &str = "/api/v1/namespaces/shop/services/pay";
    let (api, client) = cluster().await;
    api.put(MESH, a_mesh(&json!({})));
    let mut operator = operator_lingering(client, Publisher::default(), Network, Duration::from_secs(3));
    until("shadow", &api, || api.get(SHADOW)).await;
    operator.stop.send_replace(true);
    until("given back", &api, || (api.get(LEASE)?["spec"]["holderIdentity"] == "").then_some(())).await;
    api.put(PAY, a_service("10.96.0.30", &[80]));
    until("known", &api, || operator.index.service(&ServiceId::new("shop", "pay"))).await;
    assert!(!operator.task.is_finished(), "it answers still");
    assert!(api.get("/api/v1/namespaces/weft-system/services/pay-weft-shop").is_none(), "and writes nothing");
    let ended = tokio::time::timeout(Duration::from_secs(20), &mut operator.task).await.unwrap();
    assert!(matches!(ended, Ok(Ok(()))), "{ended:?}");
}

pub(super) fn clean_up(client: &kube::Client, force: bool) -> Cleanup<'static> {
    let (client, writing) = (client.clone(), client.clone());
    let patience = Duration::from_secs(60);
    Cleanup { client, writing, namespace: "weft-system", me: "weft-cleanup", patience, force }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_operator_the_clean_up_does_its_work() {
    for force in [false, true] {
        let (api, client) = left_behind().await;
        clean_up(&client, force).run().await.unwrap();
        assert_eq!(corefile(&api), COREFILE);
        for path in [MESH, SHADOW, DAEMONSET] {
            assert!(api.get(path).is_none(), "{path}");
        }
        assert!(api.get(CART).is_some());
        let holder = api.get(LEASE).unwrap()["spec"]["holderIdentity"].clone();
        assert_eq!(holder, "", "the Lease was given back, or never taken");
    }
}

/// Its lines are known by where they lead, and nobody there knows the resolver's address.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_operator_kube_dns_is_told_to_forget_the_mesh() {
    let (api, client) = cluster().await;
    api.put(RESOLVER, a_service("10.96.0.77", &[53]));
    api.put(
        KUBE_DNS,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"stubDomains": STUBS}}),
    );
    api.put(MESH, a_mesh(&json!({"dns": {"provider": "KubeDNS"}})));
    let operator = operator(client.clone());
    let stubs = || Some(api.get(KUBE_DNS)?["data"]["stubDomains"].as_str()?.to_owned());
    until("stub domains", &api, || stubs().filter(|text| text.contains("weft.mesh"))).await;
    two_more_looks(&api, &operator).await;
    resign(&api, &operator).await;
    clean_up(&client, false).run().await.unwrap();
    assert_eq!(stubs().unwrap(), STUBS);
    assert!(api.get(MESH).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_up_beside_an_operator_leaves_the_work_to_it() {
    let (api, client) = cluster().await;
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client.clone());
    until("block", &api, || corefile(&api).contains("weft.mesh:53 {").then_some(())).await;
    two_more_looks(&api, &operator).await;
    clean_up(&client, false).run().await.unwrap();
    assert_eq!(corefile(&api), COREFILE);
    assert_eq!(api.get(LEASE).unwrap()["spec"]["holderIdentity"], "me");
    assert!(matches!(clean_up(&client, false).run().await, Ok(())), "a second time there is nothing to do");
}

/// Neither its labels nor its owner tell it any more, and no watch ever told of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_a_shadow_goes_with_the_mesh_though_nobody_has_heard_of_it() {
    let (api, client) = cluster().await;
    api.mute(Some(SHADOW));
    api.put(MESH, a_mesh(&json!({})));
    let _operator = operator(client);
    until("shadow", &api, || api.get(SHADOW)).await;
    until("status", &api, || reason(&api, MESH, "Ready")).await;
    api.edit(SHADOW, |shadow| {
        shadow["metadata"]["labels"] = json!({"weft.mesh/shadow": "true", "weft.mesh/service-namespace": "shop",
            "weft.mesh/service-name": "another"});
        shadow["metadata"]["ownerReferences"] = json!([]);
    });
    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!(api.get(SHADOW), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corefile_that_cannot_be_edited_stops_the_clean_up_unless_it_is_forced() {
    let (api, client) = left_behind().await;
    api.edit(COREDNS, |map| {
        let text = map["data"]["Corefile"].as_str().unwrap().replace("# END weft.mesh", "");
        map["data"]["Corefile"] = json!(text);
    });
    let error = clean_up(&client, false).run().await.unwrap_err();
    assert!(matches!(error, cleanup::CleanupError::Dns(_)), "{error}");
    assert!(error.to_string().contains("by hand"), "{error}");
    assert!(api.get(MESH).is_some() && api.get(SHADOW).is_some());
    clean_up(&client, true).run().await.unwrap();
    assert!(api.get(MESH).is_none() && api.get(SHADOW).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_written_and_told_once_though_the_watch_does_not_tell_of_it() {
    let (api, operator) = standing_mesh(json!({})).await;
    api.mute(Some(MESH));
    let said = || api.writes().iter().filter(|write| **write == format!("PATCH {MESH}/status")).count();
    let told = || api.requests().iter().filter(|request| request.contains("/events")).count();
    let before = (said(), told());
    // Nodes without a proxy: another reason than before.
    let generation = api.get(DAEMONSET).unwrap()["metadata"]["generation"].clone();
    api.edit_status(DAEMONSET, |status| {
        *status = json!({"desiredNumberScheduled": 2, "observedGeneration": generation});
    });
    until("ProxiesNotReady", &api, || {
        (reason(&api, MESH, "ProxiesReady")? == "ProxiesNotReady").then_some(())
    })
    .await;
    two_more_looks(&api, &operator).await;
    let after = (said(), told());
    assert_eq!(after.0, before.0 + 1);
    assert!(after.1 > before.1);
    two_more_looks(&api, &operator).await;
    assert_eq!((said(), told()), after, "that was all");
    // What somebody else makes of it is seen again when the watch tells.
    api.edit_status(MESH, |status| status["conditions"] = json!([]));
    assert_eq!(reason(&api, MESH, "ProxiesReady"), None);
    api.mute(None);
    until("the status as it was", &api, || {
        (reason(&api, MESH, "ProxiesReady")? == "ProxiesNotReady").then_some(())
    })
    .await;
}
