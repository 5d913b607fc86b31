//! The mesh domains in DNS servers of all kinds, and somebody who undoes our lines.

use std::time::Duration;

use serde_json::{Value, json};

use super::api::ApiServer;
use super::{
    CART, COREDNS, COREFILE, MESH, SECOND, a_mesh, a_service, cluster, condition, corefile, operator, reason,
    standing_mesh, two_more_looks, until,
};

pub(super) const CUSTOM: &str = "/api/v1/namespaces/kube-system/configmaps/coredns-custom";
pub(super) const KUBE_DNS: &str = "/api/v1/namespaces/kube-system/configmaps/kube-dns";
pub(super) const NODE_CACHE: &str = "/api/v1/namespaces/kube-system/configmaps/node-local-dns";
pub(super) const RESOLVER: &str = "/api/v1/namespaces/weft-system/services/weft-dns";
const KEY: &str = "weft.mesh.weft-system.server";

pub(super) fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": data})
}

fn patches(api: &ApiServer, path: &str) -> usize {
    api.writes().iter().filter(|write| **write == format!("PATCH {path}")).count()
}

pub(super) fn message(api: &ApiServer) -> String {
    condition(&api.get(MESH).unwrap(), "DNSConfigured").unwrap().2
}

fn found(api: &ApiServer) -> String {
    api.get(MESH).unwrap()["status"]["dns"]["provider"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_corefile_imports_servers_the_lines_stand_under_a_key_of_their_own() {
    let (api, client) = cluster().await;
    let text = format!("{COREFILE}\nimport custom/*.server\n");
    api.put(COREDNS, config_map(json!({"Corefile": text})));
    api.put(CUSTOM, config_map(json!({"corp.server": "corp.example:53 {\n}\n"})));
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client);
    let lines = until("our key", &api, || Some(api.get(CUSTOM)?["data"][KEY].as_str()?.to_owned())).await;
    assert!(lines.contains("weft.mesh:53 {"), "{lines}");
    two_more_looks(&api, &operator).await;
    assert_eq!((corefile(&api), patches(&api, COREDNS)), (text, 0), "the Corefile is the distribution's");
    assert!(
        message(&api).contains(&format!("under {KEY} in ConfigMap kube-system/coredns-custom")),
        "{}",
        message(&api)
    );
    assert_eq!(found(&api), "CoreDNS");

    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!(api.get(CUSTOM).unwrap()["data"], json!({"corp.server": "corp.example:53 {\n}\n"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_may_have_a_domain_of_its_own() {
    let (api, client) = cluster().await;
    let original = ".:53 {\n    errors\n    kubernetes k8s.corp.example in-addr.arpa ip6.arpa\n    forward . /etc/resolv.conf\n    cache 30\n}\n";
    api.edit(COREDNS, |map| map["data"]["Corefile"] = json!(original));
    api.put(MESH, a_mesh(&json!({"clusterDomain": "k8s.corp.example"})));
    let _operator = operator(client);
    until("lines", &api, || corefile(&api).contains("weft.mesh:53").then_some(())).await;
    let text = corefile(&api);
    assert!(
        text.contains(".weft-system.svc.k8s.corp.example") && text.contains("forward k8s.corp.example "),
        "{text}"
    );
    assert!(!text.contains("cluster.local"), "{text}");
    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!(corefile(&api), original);
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_dns_is_told_to_ask_our_resolver() {
    let (api, client) = cluster().await;
    api.delete(COREDNS);
    api.put(KUBE_DNS, config_map(json!({"stubDomains": "{\"corp.example\": [\"192.0.2.53\"]}"})));
    api.put(RESOLVER, a_service("10.96.0.77", &[53]));
    api.put(MESH, a_mesh(&json!({"domains": ["weft.mesh", "traefik.mesh"]})));
    let _operator = operator(client);
    let stubs = || Some(api.get(KUBE_DNS)?["data"]["stubDomains"].as_str()?.to_owned());
    let text = until("stub domains", &api, || stubs().filter(|text| text.contains("traefik.mesh"))).await;
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&all["weft.mesh"], &all["corp.example"]), (&json!(["10.96.0.77"]), &json!(["192.0.2.53"])));
    until("its name", &api, || (found(&api) == "KubeDNS").then_some(())).await;

    api.edit(MESH, |mesh| mesh["spec"] = json!({"domains": ["traefik.mesh"]}));
    until("fewer", &api, || stubs().filter(|text| !text.contains("weft.mesh"))).await;
    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!(stubs().unwrap(), "{\"corp.example\": [\"192.0.2.53\"]}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_that_was_made_for_our_lines_goes_with_them() {
    let (api, client) = cluster().await;
    api.put(RESOLVER, a_service("10.96.0.77", &[53]));
    api.put(MESH, a_mesh(&json!({"dns": {"provider": "KubeDNS"}})));
    let operator = operator(client);
    let made = until("kube-dns's ConfigMap", &api, || api.get(KUBE_DNS)).await;
    assert_eq!(made["data"]["stubDomains"], "{\"weft.mesh\": [\"10.96.0.77\"]}\n");
    assert_eq!(made["metadata"]["labels"]["weft.mesh/made-for"], "weft-system");
    assert_eq!(corefile(&api), COREFILE, "CoreDNS was not asked for");
    two_more_looks(&api, &operator).await;
    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!(api.get(KUBE_DNS), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_charts_resolver_kube_dns_cannot_be_told_and_the_status_says_so() {
    let (api, client) = cluster().await;
    api.put(MESH, a_mesh(&json!({"dns": {"provider": "KubeDNS"}})));
    let _operator = operator(client);
    until("DNSFailed", &api, || (reason(&api, MESH, "DNSConfigured")? == "DNSFailed").then_some(())).await;
    assert_eq!(
        message(&api),
        "Service weft-system/weft-dns has no ClusterIP: the chart makes it, run helm upgrade"
    );
}

/// A NodeLocal DNSCache stands in front, with this Corefile.
pub(crate) fn put_node_cache(api: &ApiServer, corefile: &str) {
    api.put(NODE_CACHE, config_map(json!({"Corefile": corefile})));
    api.put(
        "/apis/apps/v1/namespaces/kube-system/daemonsets/node-local-dns",
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {}, "spec": {"selector": {}, "template": {"spec": {"containers": []}}}}),
    );
}

/// Its Corefile as it is.
pub(crate) fn node_cache(api: &ApiServer) -> String {
    api.get(NODE_CACHE).unwrap()["data"]["Corefile"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_local_cache_is_told_as_well_and_left_as_it_was() {
    const CACHE: &str = "cluster.local:53 {\n    bind 169.254.20.10\n    forward . 10.96.0.99 {\n        force_tcp\n    }\n}\n";
    let (api, client) = cluster().await;
    put_node_cache(&api, CACHE);
    api.put(MESH, a_mesh(&json!({})));
    let _operator = operator(client);
    let cache = || node_cache(&api);
    until("the cache's lines", &api, || cache().contains("weft.mesh:53").then_some(())).await;
    assert!(cache().contains("bind 169.254.20.10\n    forward . 10.96.0.99 {"), "{}", cache());
    until("CoreDNS's lines", &api, || corefile(&api).contains("weft.mesh:53").then_some(())).await;
    until("its name", &api, || (found(&api) == "CoreDNS behind NodeLocal DNSCache").then_some(())).await;
    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!((cache().as_str(), corefile(&api).as_str()), (CACHE, COREFILE));
}

/// What stands there for the mesh domains is the user's then, though it looks like ours.
#[tokio::test(flavor = "multi_thread")]
async fn where_dns_is_left_alone_the_users_own_lines_stay() {
    let (api, operator) = standing_mesh(json!({})).await;
    let lines = corefile(&api);
    api.edit(MESH, |mesh| mesh["spec"] = json!({"dns": {"provider": "None"}}));
    until("Manual", &api, || (reason(&api, MESH, "DNSConfigured")? == "Manual").then_some(())).await;
    assert_eq!(corefile(&api), COREFILE);
    api.edit(COREDNS, |map| map["data"]["Corefile"] = json!(lines));
    api.edit(MESH, |mesh| mesh["spec"] = json!({"dns": {"provider": "None"}, "proxy": {"image": "mine:2"}}));
    two_more_looks(&api, &operator).await;
    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!(corefile(&api), lines);
}

/// The version before said it in the condition alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_leaves_the_users_own_lines_as_well() {
    let (api, client) = cluster().await;
    let (lines, operator) = {
        api.put(MESH, a_mesh(&json!({})));
        let before = operator(client.clone());
        until("lines", &api, || corefile(&api).contains("weft.mesh:53").then_some(())).await;
        let lines = corefile(&api);
        api.edit(MESH, |mesh| mesh["spec"] = json!({"dns": {"provider": "None"}}));
        until("Manual", &api, || (reason(&api, MESH, "DNSConfigured")? == "Manual").then_some(())).await;
        drop(before);
        api.edit_status(MESH, |status| status["dns"] = json!({}));
        api.edit(COREDNS, |map| map["data"]["Corefile"] = json!(lines));
        (lines, operator(client))
    };
    until("a look", &api, || (api.get(MESH)?["status"]["dns"]["provider"] == "None").then_some(())).await;
    two_more_looks(&api, &operator).await;
    assert_eq!(corefile(&api), lines);
}

/// Two meshes change places with one `kubectl apply`: each finds the other's lines where its own should be.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_goes_although_something_else_is_taken() {
    let (api, _operator) = standing_mesh(json!({"domains": ["weft.mesh", "more.mesh"]})).await;
    let theirs = "second.mesh:53 {\n    whoami\n}\n";
    api.edit(COREDNS, |map| {
        let text =
            map["data"]["Corefile"].as_str().unwrap().replace(COREFILE, &format!("{theirs}{COREFILE}"));
        map["data"]["Corefile"] = json!(text);
    });
    api.edit(MESH, |mesh| mesh["spec"] = json!({"domains": ["more.mesh", "second.mesh"]}));
    until("weft.mesh goes", &api, || (!corefile(&api).contains("weft.mesh:53 {")).then_some(())).await;
    assert!(corefile(&api).contains("more.mesh:53 {"), "{}", corefile(&api));
    until("told", &api, || message(&api).contains("second.mesh").then_some(())).await;
    assert_eq!(reason(&api, MESH, "DNSConfigured").as_deref(), Some("DNSFailed"));
    api.edit(MESH, |mesh| mesh["spec"] = json!({"domains": ["second.mesh"]}));
    until("nothing is left of ours", &api, || (!corefile(&api).contains("weft.mesh")).then_some(())).await;
}

/// Of two `MeshConfigs` one was served that leaves DNS alone, then the other, while the watch did not show the first, then the first
/// again. Its status says that there are no lines, and there are. Found by the model, seed 43363.
#[tokio::test(flavor = "multi_thread")]
async fn where_dns_is_left_alone_the_lines_that_came_for_another_mesh_config_go() {
    let (api, client) = cluster().await;
    api.put(MESH, a_mesh(&json!({"dns": {"provider": "None"}})));
    let _operator = operator(client);
    until("Manual", &api, || (reason(&api, MESH, "DNSConfigured")? == "Manual").then_some(())).await;
    let first = api.get(MESH).unwrap();
    let mut second = a_mesh(&json!({}));
    second["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:01Z");
    api.put(SECOND, second);
    until("Conflict", &api, || (reason(&api, SECOND, "Ready")? == "Conflict").then_some(())).await;
    api.delete(MESH);
    until("lines", &api, || corefile(&api).contains("weft.mesh:53").then_some(())).await;
    api.mute(Some(MESH));
    let status = first["status"].clone();
    api.put(MESH, first);
    api.edit_status(MESH, |now| *now = status);
    api.mute(None);
    until("Conflict again", &api, || (reason(&api, SECOND, "Ready")? == "Conflict").then_some(())).await;
    until("no lines", &api, || (corefile(&api) == COREFILE).then_some(())).await;
}

/// Somebody sets `dns.manage=false` and only then leaves DNS to himself: the lines would stay, and lead nowhere one day.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_can_no_longer_be_reached_are_not_left_without_a_word() {
    let (api, client) = cluster().await;
    api.put(MESH, a_mesh(&json!({})));
    let before = operator(client.clone());
    until("lines", &api, || corefile(&api).contains("weft.mesh:53").then_some(())).await;
    until("found", &api, || (found(&api) == "CoreDNS").then_some(())).await;
    drop(before);
    api.refuse("GET", COREDNS, 403, "no", u32::MAX);
    api.refuse("GET", "/api/v1/namespaces/kube-system/configmaps", 403, "no", u32::MAX);
    let operator = operator(client);
    until("told", &api, || message(&api).contains("may not be read").then_some(())).await;
    api.edit(MESH, |mesh| mesh["spec"] = json!({"dns": {"provider": "None"}}));
    until("told", &api, || message(&api).contains("may have Weft's lines").then_some(())).await;
    two_more_looks(&api, &operator).await;
    assert_ne!(reason(&api, MESH, "DNSConfigured").as_deref(), Some("Manual"));
    api.refuse_no_more();
    // Else it may be half a minute until it is tried again.
    api.edit(MESH, |mesh| mesh["metadata"]["annotations"] = json!({"try": "again"}));
    until("Manual", &api, || (reason(&api, MESH, "DNSConfigured")? == "Manual").then_some(())).await;
    assert_eq!(corefile(&api), COREFILE);
}

/// Nothing of ours was ever there: the right to it was never given.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_never_be_reached_holds_up_nobody() {
    let (api, client) = cluster().await;
    api.refuse("GET", KUBE_DNS, 403, "no", u32::MAX);
    api.refuse("GET", "/api/v1/namespaces/kube-system/configmaps", 403, "no", u32::MAX);
    api.put(MESH, a_mesh(&json!({"dns": {"provider": "KubeDNS"}})));
    let _operator = operator(client);
    until("told", &api, || (reason(&api, MESH, "DNSConfigured")? == "DNSFailed").then_some(())).await;
    assert!(message(&api).contains("kube-system/kube-dns may not be read"), "{}", message(&api));
    api.edit(MESH, |mesh| mesh["spec"] = json!({"dns": {"provider": "None"}}));
    until("Manual", &api, || (reason(&api, MESH, "DNSConfigured")? == "Manual").then_some(())).await;
}

/// Whoever ends between the two leaves lines that the next one knows of.
#[tokio::test(flavor = "multi_thread")]
async fn that_dns_is_no_longer_left_alone_is_said_before_it_is_done() {
    let (api, client) = cluster().await;
    api.put(MESH, a_mesh(&json!({"dns": {"provider": "None"}})));
    let operator = operator(client);
    until("Manual", &api, || (reason(&api, MESH, "DNSConfigured")? == "Manual").then_some(())).await;
    two_more_looks(&api, &operator).await;
    api.refuse("PATCH", &format!("{MESH}/status"), 500, "not now", 1000);
    api.edit(MESH, |mesh| mesh["spec"] = json!({}));
    two_more_looks(&api, &operator).await;
    assert_eq!(corefile(&api), COREFILE);
    api.refuse_no_more();
    until("lines", &api, || corefile(&api).contains("weft.mesh:53").then_some(())).await;
    assert_ne!(reason(&api, MESH, "DNSConfigured").as_deref(), Some("Manual"));
}

/// Whenever our lines are in, `who` puts back what was there, as a controller does.
fn undo(api: &ApiServer, who: &'static str) -> tokio::task::JoinHandle<()> {
    let api = api.clone();
    tokio::spawn(async move {
        loop {
            if corefile(&api) != COREFILE {
                api.edit(COREDNS, |map| {
                    map["data"]["Corefile"] = json!(COREFILE);
                    map["metadata"]["managedFields"] = json!([{"manager": who, "operation": "Update", "apiVersion": "v1",
                        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:Corefile": {}}}}]);
                });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fight_ends_after_a_few_rounds_and_everything_else_goes_on() {
    let (api, client) = cluster().await;
    let undoing = undo(&api, "argocd-controller");
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client);
    until("Conflict", &api, || (reason(&api, MESH, "DNSConfigured")? == "Conflict").then_some(())).await;
    let told = message(&api);
    assert!(told.contains("argocd-controller keeps undoing") && told.contains("spec.dns.provider"), "{told}");
    assert_eq!(patches(&api, COREDNS), 5);
    let events =
        || api.events_on("MeshConfig", "weft").into_iter().filter(|event| event.contains("Warning Conflict"));
    until("the Event", &api, || events().next()).await;

    // The rest goes on, and DNS is let be.
    api.delete(CART);
    api.put("/api/v1/namespaces/shop/services/pay", a_service("10.96.0.30", &[80]));
    until("the other shadow", &api, || api.get("/api/v1/namespaces/weft-system/services/pay-weft-shop"))
        .await;
    two_more_looks(&api, &operator).await;
    assert_eq!((patches(&api, COREDNS), message(&api)), (5, told), "not even the message changes");
    assert!(events().count() <= 2, "{:?}", events().collect::<Vec<_>>());

    // It stops, and somebody touches the MeshConfig.
    undoing.abort();
    api.edit(MESH, |mesh| mesh["spec"]["defaultTrafficType"] = json!("tcp"));
    until("the lines", &api, || corefile(&api).contains("weft.mesh:53").then_some(())).await;
    until("no Conflict", &api, || (reason(&api, MESH, "DNSConfigured")? != "Conflict").then_some(())).await;
    two_more_looks(&api, &operator).await;
    assert_eq!(patches(&api, COREDNS), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_somebody_else_for_our_domain_are_not_doubled() {
    let (api, client) = cluster().await;
    let taken = format!("{COREFILE}\nweft.mesh {{\n    whoami\n}}\n");
    api.put(COREDNS, config_map(json!({"Corefile": taken})));
    api.put(MESH, a_mesh(&json!({})));
    let _operator = operator(client);
    until("DNSFailed", &api, || (reason(&api, MESH, "DNSConfigured")? == "DNSFailed").then_some(())).await;
    assert!(message(&api).contains("has lines for weft.mesh already"), "{}", message(&api));
    assert_eq!(corefile(&api), taken);
}

/// What CoreDNS reads as one server block to the end, lines of ours would become a part of.
#[tokio::test(flavor = "multi_thread")]
async fn a_corefile_without_braces_is_left_alone() {
    let (api, client) = cluster().await;
    let bare = ".:53\nerrors\nforward . /etc/resolv.conf\n";
    api.edit(COREDNS, |map| map["data"]["Corefile"] = json!(bare));
    api.put(MESH, a_mesh(&json!({})));
    let _operator = operator(client);
    until("DNSFailed", &api, || (reason(&api, MESH, "DNSConfigured")? == "DNSFailed").then_some(())).await;
    assert!(message(&api).contains("has no braces around it"), "{}", message(&api));
    assert_eq!(corefile(&api), bare);
    api.edit(COREDNS, |map| map["data"]["Corefile"] = json!(COREFILE));
    until("lines", &api, || corefile(&api).contains("weft.mesh:53 {").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_another_mesh_are_another_meshs() {
    let (api, operator) = standing_mesh(json!({})).await;
    let theirs = "# BEGIN weft.mesh: managed by weft-operator, edits within are undone\n# for the mesh in namespace weft\nother.mesh:53 {\n}\n# END weft.mesh\n";
    api.edit(COREDNS, |map| {
        let ours = map["data"]["Corefile"].as_str().unwrap().to_owned();
        map["data"]["Corefile"] = json!(ours + theirs);
    });
    two_more_looks(&api, &operator).await;
    assert!(
        corefile(&api).ends_with(theirs) && corefile(&api).contains("weft.mesh:53 {"),
        "{}",
        corefile(&api)
    );
    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    let left = corefile(&api);
    assert!(left.starts_with(COREFILE) && left.contains("other.mesh:53 {\n}\n# END weft.mesh\n"), "{left}");
    assert!(!left.contains("weft.mesh:53"), "{left}");
}
