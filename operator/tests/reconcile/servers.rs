//! DNS servers of other kinds than CoreDNS alone: what is decided stays decided when the API server falters, what is ours comes
//! back wherever it stands, and what is not stays.

use serde_json::{Value, json};

use super::dns::{CUSTOM, KUBE_DNS, NODE_CACHE, RESOLVER, config_map, message, node_cache, put_node_cache};
use super::simulated::paths::slice;
use super::*;

const OPENSHIFT: &str = "/api/v1/namespaces/openshift-dns/services/dns-default";
const PLAIN: &str = "/api/v1/namespaces/kube-system/services/kube-dns";
const CACHES: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/node-local-dns";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/kube-system/deployments/kube-dns";
/// As the cache's own manifest has it.
const CACHE: &str =
    "cluster.local:53 {\n    bind 169.254.20.10\n    forward . 10.96.0.99 {\n        force_tcp\n    }\n}\n";

fn stubs(api: &ApiServer) -> Value {
    let text = api.get(KUBE_DNS).and_then(|map| Some(map["data"]["stubDomains"].as_str()?.to_owned()));
    text.map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default()
}

fn workload(kind: &str, image: &str, mounts: &[&str]) -> Value {
    let volume = |name: &&str| json!({"name": name, "configMap": {"name": name}});
    let mount = |name: &&str| json!({"name": name, "mountPath": format!("/etc/{name}")});
    let spec = json!({"containers": [{"name": "dns", "image": image,
        "volumeMounts": mounts.iter().map(mount).collect::<Vec<_>>()}],
        "volumes": mounts.iter().map(volume).collect::<Vec<_>>()});
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {}, "spec": {"selector": {}, "template": {"spec": spec}}})
}

/// A cluster whose DNS is kube-dns, by what its one ready pod runs; a Corefile of an earlier CoreDNS is still there.
async fn kube_dns() -> (ApiServer, kube::Client) {
    let (api, client) = cluster().await;
    api.put(RESOLVER, a_service("10.96.0.77", &[53]));
    api.put(KUBE_DNS, config_map(json!({"stubDomains": "{\"corp.example\": [\"192.0.2.53\"]}"})));
    api.put(
        DEPLOYMENT,
        workload("Deployment", "registry.k8s.io/dns/k8s-dns-kube-dns:1.22.28", &["kube-dns"]),
    );
    api.put(
        "/api/v1/namespaces/kube-system/pods/kube-dns-1",
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "kube-dns-5d9c", "uid": "r", "controller": true}]},
            "spec": {"nodeName": "n", "containers": []}, "status": {"phase": "Running", "podIP": "10.244.0.53"}}),
    );
    is_ready(&api, true);
    (api, client)
}

fn is_ready(api: &ApiServer, ready: bool) {
    let endpoint = json!({"addresses": ["10.244.0.53"], "nodeName": "n", "conditions": {"ready": ready}});
    let object = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"labels": {"kubernetes.io/service-name": "kube-dns"}},
        "endpoints": [endpoint], "ports": [{"port": 53, "protocol": "UDP"}]});
    api.put(&slice("kube-system", "kube-dns-1"), object);
}

/// What the status says of DNS, once it does.
fn told_of_dns(api: &ApiServer) -> String {
    condition(&api.get(MESH).unwrap(), "DNSConfigured").map(|(.., message)| message).unwrap_or_default()
}

async fn told(api: &ApiServer) {
    until("stub domains", api, || (stubs(api)["weft.mesh"] == json!(["10.96.0.77"])).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_read_this_time_makes_kube_dns_no_coredns() {
    let (api, client) = kube_dns().await;
    api.refuse("GET", DEPLOYMENT, 503, "not now", u32::MAX);
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client);
    until("told", &api, || {
        told_of_dns(&api).contains("kube-dns in namespace kube-system run cannot be read").then_some(())
    })
    .await;
    two_more_looks(&api, &operator).await;
    assert_eq!((corefile(&api).as_str(), stubs(&api)["weft.mesh"].is_null()), (COREFILE, true));
    api.refuse_no_more();
    told(&api).await;
    // Nor does it become another DNS when none of its pods is ready.
    is_ready(&api, false);
    two_more_looks(&api, &operator).await;
    assert_eq!(corefile(&api), COREFILE);
    told(&api).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_in_front_of_kube_dns_that_reads_its_stub_domains_is_told_nothing() {
    let (api, client) = kube_dns().await;
    put_node_cache(&api, CACHE);
    api.put(
        CACHES,
        workload(
            "DaemonSet",
            "registry.k8s.io/dns/k8s-dns-node-cache:1.22.28",
            &["node-local-dns", "kube-dns"],
        ),
    );
    // Without what it mounts it would be told as well, and have the domain twice.
    api.refuse("GET", CACHES, 429, "too many", 3);
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client);
    told(&api).await;
    let found = || api.get(MESH)?["status"]["dns"]["provider"].as_str().map(ToOwned::to_owned);
    until("found", &api, || (found()? == "KubeDNS behind NodeLocal DNSCache").then_some(())).await;
    two_more_looks(&api, &operator).await;
    assert_eq!(node_cache(&api), CACHE);
    assert!(!api.writes().contains(&format!("PATCH {NODE_CACHE}")), "{:#?}", api.writes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_in_front_of_kube_dns_that_does_not_is_told_as_well() {
    let (api, client) = kube_dns().await;
    put_node_cache(&api, CACHE);
    api.put(MESH, a_mesh(&json!({})));
    let _operator = operator(client);
    told(&api).await;
    until("its lines", &api, || node_cache(&api).contains("weft.mesh:53 {").then_some(())).await;
    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!((node_cache(&api).as_str(), stubs(&api)), (CACHE, json!({"corp.example": ["192.0.2.53"]})));
}

/// Its operator undoes what others edit.
#[tokio::test(flavor = "multi_thread")]
async fn openshift_is_told_by_its_user() {
    let (api, client) = cluster().await;
    for path in [PLAIN, COREDNS] {
        api.delete(path);
    }
    api.put(OPENSHIFT, a_service("10.96.0.10", &[53]));
    api.put(RESOLVER, a_service("10.96.0.77", &[53]));
    api.put(MESH, a_mesh(&json!({})));
    let operator = operator(client);
    until("ByHand", &api, || (reason(&api, MESH, "DNSConfigured")? == "ByHand").then_some(())).await;
    let message = message(&api);
    assert!(message.contains("oc edit dns.operator/default") && message.contains("10.96.0.77"), "{message}");
    assert!(message.contains("\"weft.mesh\""), "{message}");
    two_more_looks(&api, &operator).await;
    let in_dns = |write: &String| write.contains("namespaces/openshift-dns") || write.contains("configmaps/");
    let writes: Vec<_> =
        api.writes().into_iter().filter(in_dns).filter(|write| !write.ends_with(CA_MAP)).collect();
    assert_eq!(writes, [""; 0]);
    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_takes_out_comes_back_wherever_it_stands() {
    let (api, client) = kube_dns().await;
    put_node_cache(&api, CACHE);
    api.put(MESH, a_mesh(&json!({})));
    let beside_kube_dns = operator(client);
    told(&api).await;
    until("its lines", &api, || node_cache(&api).contains("weft.mesh:53 {").then_some(())).await;
    api.edit(KUBE_DNS, |map| map["data"] = json!({}));
    told(&api).await;
    api.edit(NODE_CACHE, |map| map["data"]["Corefile"] = json!(CACHE));
    until("its lines again", &api, || node_cache(&api).contains("weft.mesh:53 {").then_some(())).await;
    api.delete(KUBE_DNS);
    told(&api).await;
    drop(beside_kube_dns);

    let (api, client) = cluster().await;
    api.put(COREDNS, config_map(json!({"Corefile": format!("{COREFILE}\nimport custom/*.server\n")})));
    api.put(CUSTOM, config_map(json!({})));
    api.put(MESH, a_mesh(&json!({})));
    let _operator = operator(client);
    let key = || api.get(CUSTOM)?["data"]["weft.mesh.weft-system.server"].as_str().map(ToOwned::to_owned);
    let lines = until("our key", &api, key).await;
    api.edit(CUSTOM, |map| map["data"] = json!({"their.server": "corp.example:53 {\n}\n"}));
    assert_eq!(until("our key again", &api, key).await, lines);
    assert_eq!(api.get(CUSTOM).unwrap()["data"]["their.server"], "corp.example:53 {\n}\n");
}

/// As `kubectl replace --force` does, or the reinstallation of CoreDNS's own chart.
#[tokio::test(flavor = "multi_thread")]
async fn a_corefile_that_is_made_anew_gets_its_lines_at_once() {
    let (api, operator) = standing_mesh(json!({})).await;
    api.delete(COREDNS);
    until("told", &api, || (reason(&api, MESH, "DNSConfigured")? == "DNSFailed").then_some(())).await;
    two_more_looks(&api, &operator).await;
    api.put(COREDNS, config_map(json!({"Corefile": COREFILE})));
    until("lines", &api, || corefile(&api).contains("weft.mesh:53 {").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_mesh_that_leaves_dns_alone_leaves_what_its_user_has_added_already() {
    let (api, client) = cluster().await;
    api.put(RESOLVER, a_service("10.96.0.77", &[53]));
    let by_hand = "{\"weft.mesh\": [\"10.96.0.77\"]}";
    api.put(KUBE_DNS, config_map(json!({"stubDomains": by_hand})));
    api.put(MESH, a_mesh(&json!({"dns": {"provider": "None"}})));
    let operator = operator(client);
    until("Manual", &api, || (reason(&api, MESH, "DNSConfigured")? == "Manual").then_some(())).await;
    two_more_looks(&api, &operator).await;
    assert_eq!(api.get(KUBE_DNS).unwrap()["data"]["stubDomains"], by_hand);
}

/// Two meshes change places: what each gives up must go although what it wants is still the other's.
#[tokio::test(flavor = "multi_thread")]
async fn on_kube_dns_what_is_given_up_goes_although_something_else_is_taken() {
    let (api, client) = kube_dns().await;
    api.put(MESH, a_mesh(&json!({})));
    let _operator = operator(client);
    told(&api).await;
    let both = json!({"weft.mesh": ["10.96.0.77"], "other.mesh": ["10.96.0.88"]}).to_string();
    api.edit(KUBE_DNS, |map| map["data"]["stubDomains"] = json!(both));
    api.edit(MESH, |mesh| mesh["spec"] = json!({"domains": ["other.mesh"]}));
    until("given up", &api, || stubs(&api)["weft.mesh"].is_null().then_some(())).await;
    assert_eq!(stubs(&api)["other.mesh"], json!(["10.96.0.88"]));
    until("told", &api, || message(&api).contains("other.mesh").then_some(())).await;
    let theirs_gone = json!({"corp.example": ["192.0.2.53"]}).to_string();
    api.edit(KUBE_DNS, |map| map["data"]["stubDomains"] = json!(theirs_gone));
    until("had", &api, || (stubs(&api)["other.mesh"] == json!(["10.96.0.77"])).then_some(())).await;
}
