//! Two meshes that both were served, and one domain: it stays with who has it, and nobody loses more than what he asked for in
//! vain.

use super::*;

const RIVAL: &str = "/apis/weft.mesh/v1alpha1/namespaces/other/meshconfigs/weft";

/// Another mesh, older than ours, which is served and asks for `domains`; it has `had` of them.
fn rival(api: &ApiServer, domains: &[&str], had: &[&str]) {
    let mut mesh = a_mesh(&json!({"domains": domains}));
    mesh["metadata"] =
        json!({"creationTimestamp": "2025-01-01T00:00:00Z", "finalizers": ["weft.mesh/cleanup"]});
    mesh["status"] = json!({"dns": {"provider": "CoreDNS", "domains": had}});
    api.put("/api/v1/namespaces/other/services/weft-operator", a_service("10.96.0.30", &[9443]));
    api.put(RIVAL, mesh);
}

fn ends(api: &ApiServer, path: &str) {
    api.edit(path, |mesh| mesh["metadata"]["finalizers"] = json!([]));
    api.delete(path);
}

fn domains(api: &ApiServer) -> Value {
    api.get(MESH).unwrap()["status"]["dns"]["domains"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_domain_of_another_goes_on_with_his_own() {
    let (api, operator) = standing_mesh(json!({})).await;
    assert_eq!(domains(&api), json!(["weft.mesh"]));
    rival(&api, &["other.mesh"], &["other.mesh"]);
    api.edit(MESH, |mesh| mesh["spec"] = json!({"domains": ["weft.mesh", "other.mesh", "more.mesh"]}));
    until("more", &api, || corefile(&api).contains("more.mesh:53 {").then_some(())).await;
    let message = until("Degraded", &api, || degraded(&api)).await;
    assert_eq!(
        message,
        "MeshConfig other/weft has other.mesh: name other domains in spec.domains, or delete one of the two; until then this one is served without other.mesh"
    );
    assert_eq!(reason(&api, MESH, "Degraded").as_deref(), Some("DomainTaken"));

    // The other, the older of the two, asks for one of ours.
    api.edit(RIVAL, |mesh| mesh["spec"] = json!({"domains": ["other.mesh", "weft.mesh"]}));
    two_more_looks(&api, &operator).await;
    assert!(corefile(&api).contains("weft.mesh:53 {"), "{}", corefile(&api));
    assert!(!corefile(&api).contains("other.mesh:53 {") && api.get(SHADOW).is_some());
    assert_eq!(domains(&api), json!(["weft.mesh", "more.mesh"]));

    ends(&api, RIVAL);
    until("all", &api, || corefile(&api).contains("other.mesh:53 {").then_some(())).await;
    until("all is well", &api, || (reason(&api, MESH, "Degraded")? == "AllWell").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_all_his_domains_has_no_lines_left_and_goes_on_to_carry_until_he_has_them_again() {
    let (api, client) = cluster().await;
    api.put(MESH, a_mesh(&json!({})));
    let before = operator(client.clone());
    until("lines", &api, || corefile(&api).contains("weft.mesh:53 {").then_some(())).await;
    until("told", &api, || (domains(&api) == json!(["weft.mesh"])).then_some(())).await;
    let lines = corefile(&api);
    api.refuse("PATCH", COREDNS, 403, "a policy says no", u32::MAX);
    rival(&api, &["weft.mesh"], &["weft.mesh"]);
    let told = until("told", &api, || {
        condition(&api.get(MESH)?, "Ready")
            .filter(|(_, reason, message)| reason == "DomainTaken" && message.contains("a policy says no"))
    })
    .await;
    assert!(told.2.contains("Its lines are still in DNS: "), "{told:?}");
    assert_eq!(domains(&api), json!(["weft.mesh"]));
    api.refuse_no_more();
    until("no lines", &api, || (corefile(&api) == COREFILE).then_some(())).await;
    until("told", &api, || (domains(&api) == json!([])).then_some(())).await;
    let told = condition(&api.get(MESH).unwrap(), "Ready").unwrap();
    assert!(told.1 == "DomainTaken" && told.2.ends_with("until then none of its names resolves"), "{told:?}");
    assert_eq!(reason(&api, MESH, "Degraded").as_deref(), Some("DomainTaken"));
    // What has a connection goes on, and what comes is carried.
    api.put("/api/v1/namespaces/shop/services/pay", a_service("10.96.0.30", &[80]));
    until("the new shadow", &api, || api.get("/api/v1/namespaces/weft-system/services/pay-weft-shop")).await;
    assert!(api.get(SHADOW).is_some() && api.get(DAEMONSET).is_some());

    // A leader may have ended between lines and status: the next one looks.
    drop(before);
    api.edit(COREDNS, |map| map["data"]["Corefile"] = json!(lines));
    let operator = operator(client);
    until("no lines", &api, || (corefile(&api) == COREFILE).then_some(())).await;
    two_more_looks(&api, &operator).await;
    let writes = api.writes();
    two_more_looks(&api, &operator).await;
    assert_eq!(api.writes(), writes, "that was all");

    ends(&api, RIVAL);
    until("lines again", &api, || corefile(&api).contains("weft.mesh:53 {").then_some(())).await;
    until("not taken", &api, || (reason(&api, MESH, "Ready")? != "DomainTaken").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_his_domains_goes_with_his_lines() {
    let (api, operator) = standing_mesh(json!({})).await;
    api.refuse("PATCH", COREDNS, 500, "not now", u32::MAX);
    rival(&api, &["weft.mesh"], &["weft.mesh"]);
    until("DomainTaken", &api, || (reason(&api, MESH, "Ready")? == "DomainTaken").then_some(())).await;
    api.edit(SHADOW, |shadow| shadow["metadata"]["ownerReferences"] = json!([]));
    api.delete(MESH);
    assert!(api.get(MESH).is_some() && corefile(&api).contains("weft.mesh:53 {"));
    // With the operator may go the last who has the right to.
    two_more_looks(&api, &operator).await;
    operator.stop.send_replace(true);
    two_more_looks(&api, &operator).await;
    api.refuse_no_more();
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!(corefile(&api), COREFILE);
    assert!(api.get(SHADOW).is_none());
    until("its end", &api, || operator.task.is_finished().then_some(())).await;
}

/// Each would have shadows of the other's, and of the shadows of its own shadows, without end.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_mesh_is_made_of_is_not_in_ours() {
    let (api, client) = cluster().await;
    rival(&api, &["other.mesh"], &["other.mesh"]);
    let mut shadow = a_service("10.96.0.31", &[80]);
    shadow["metadata"] = json!({"ownerReferences":
        [{"apiVersion": "weft.mesh/v1alpha1", "kind": "MeshConfig", "name": "weft", "uid": "u", "controller": true}]});
    api.put("/api/v1/namespaces/other/services/cart-weft-shop", shadow);
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client);
    until("shadow", &api, || api.get(SHADOW)).await;
    two_more_looks(&api, &operator).await;
    assert_eq!(api.get("/api/v1/namespaces/weft-system/services/cart-weft-shop-weft-other"), None);
    // The cart, and the other's own Service.
    assert_eq!(api.get(MESH).unwrap()["status"]["shadowServices"], 2);
}

/// As after `helm uninstall --no-hooks` of the other: the clean-up has yet to come.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_status_of_a_mesh_that_nobody_serves_says_of_dns_stays() {
    let (api, client) = cluster().await;
    rival(&api, &["other.mesh"], &["other.mesh"]);
    api.delete("/api/v1/namespaces/other/services/weft-operator");
    let _operator = operator(client);
    until("WrongNamespace", &api, || (reason(&api, RIVAL, "Ready")? == "WrongNamespace").then_some(())).await;
    let dns = api.get(RIVAL).unwrap()["status"]["dns"].clone();
    assert_eq!((&dns["provider"], &dns["domains"]), (&json!("CoreDNS"), &json!(["other.mesh"])));
}

/// With the finalizer that its own operator takes off, when its lines are out.
#[tokio::test(flavor = "multi_thread")]
async fn the_removal_of_another_mesh_is_its_own_operators() {
    let (api, client) = cluster().await;
    rival(&api, &["other.mesh"], &["other.mesh"]);
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client);
    until("shadow", &api, || api.get(SHADOW)).await;
    api.delete(RIVAL);
    two_more_looks(&api, &operator).await;
    assert!(api.get(RIVAL).unwrap()["metadata"]["deletionTimestamp"].is_string());
    assert!(
        !api.requests().iter().any(|request| *request == format!("PATCH {RIVAL}")),
        "{:#?}",
        api.writes()
    );
}

/// Its Service is the chart's, and nobody brings it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_whose_operators_service_is_gone_is_told_so_once() {
    let (api, client) = cluster().await;
    rival(&api, &["other.mesh"], &["other.mesh"]);
    api.delete("/api/v1/namespaces/other/services/weft-operator");
    let operator = operator(client);
    until("WrongNamespace", &api, || (reason(&api, RIVAL, "Ready")? == "WrongNamespace").then_some(())).await;
    // Its operator runs all the same, and says how it is.
    let ready = json!([{"type": "Ready", "status": "True", "reason": "Ready", "message": "", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    api.edit_status(RIVAL, |status| status["conditions"] = ready);
    two_more_looks(&api, &operator).await;
    assert_eq!(reason(&api, RIVAL, "Ready").as_deref(), Some("Ready"));
}
