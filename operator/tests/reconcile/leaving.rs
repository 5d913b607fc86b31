//! Our lines leave DNS, whatever has become of what they were known by, and of the right to them.

use weft_operator::cleanup::CleanupError;

use super::dns::{CUSTOM, KUBE_DNS, RESOLVER, config_map, message, node_cache, put_node_cache};
use super::ownership::{clean_up, left_behind, resign};
use super::*;

const STUBS: &str = "{\"corp.example\": [\"192.0.2.53\"]}";

fn stubs(api: &ApiServer) -> String {
    api.get(KUBE_DNS).unwrap()["data"]["stubDomains"].as_str().unwrap_or_default().to_owned()
}

/// A mesh in a cluster with kube-dns.
async fn beside_kube_dns() -> (ApiServer, kube::Client, Operator) {
    let (api, client) = cluster().await;
    api.put(RESOLVER, a_service("10.96.0.77", &[53]));
    api.put(KUBE_DNS, config_map(json!({"stubDomains": STUBS})));
    api.put(MESH, a_mesh(&json!({"dns": {"provider": "KubeDNS"}})));
    let operator = operator(client.clone());
    let recorded = || (api.get(MESH)?["status"]["dns"]["resolver"] == "10.96.0.77").then_some(());
    until("the resolver's address", &api, recorded).await;
    assert!(stubs(&api).contains("\"weft.mesh\": [\"10.96.0.77\"]"), "{}", stubs(&api));
    (api, client, operator)
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_dns_follows_the_resolver_to_another_address_and_forgets_it_without_one() {
    let (api, _client, _operator) = beside_kube_dns().await;
    api.delete(RESOLVER);
    until("told", &api, || message(&api).contains("weft-dns has no ClusterIP").then_some(())).await;
    api.put(RESOLVER, a_service("10.96.0.78", &[53]));
    until("moved", &api, || stubs(&api).contains("\"weft.mesh\": [\"10.96.0.78\"]").then_some(())).await;
    until("told", &api, || (api.get(MESH)?["status"]["dns"]["resolver"] == "10.96.0.78").then_some(())).await;
    api.delete(RESOLVER);
    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!(stubs(&api), STUBS);
}

/// As after `helm uninstall --no-hooks`, which takes the Service as well.
#[tokio::test(flavor = "multi_thread")]
async fn the_clean_up_needs_no_service_to_know_our_entries_of_kube_dns() {
    for recorded in [true, false] {
        let (api, client, operator) = beside_kube_dns().await;
        resign(&api, &operator).await;
        api.delete(RESOLVER);
        if !recorded {
            api.edit_status(MESH, |status| status["dns"]["resolver"] = json!(""));
            let error = clean_up(&client, false).run().await.unwrap_err().to_string();
            assert!(error.contains("Take the mesh domains out of stubDomains by hand"), "{error}");
            assert!(stubs(&api).contains("weft.mesh") && api.get(MESH).is_some());
            api.edit(KUBE_DNS, |map| map["data"]["stubDomains"] = json!(STUBS));
        }
        clean_up(&client, false).run().await.unwrap();
        assert_eq!(stubs(&api), STUBS);
        assert!(api.get(MESH).is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clean_up_is_not_done_while_it_may_not_read_the_corefile() {
    let (api, client) = left_behind().await;
    api.refuse("GET", COREDNS, 403, "no", u32::MAX);
    let error = clean_up(&client, false).run().await.unwrap_err();
    assert!(matches!(error, CleanupError::Dns(_)), "{error}");
    assert!(error.to_string().contains("kube-system/coredns may not be read or written any more"), "{error}");
    assert!(api.get(MESH).is_some());
    clean_up(&client, true).run().await.unwrap();
    assert!(api.get(MESH).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clean_up_takes_out_the_lines_of_one_that_lost_its_domain() {
    let (api, client) = left_behind().await;
    api.edit_status(MESH, |status| {
        status["conditions"] = json!([{"type": "Ready", "status": "False", "reason": "DomainTaken", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    });
    clean_up(&client, false).run().await.unwrap();
    assert_eq!(corefile(&api), COREFILE);
    assert!(api.get(MESH).is_none() && api.get(SHADOW).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_config_map_that_cannot_be_edited_keeps_our_lines_in_no_other() {
    const CACHE: &str = "cluster.local:53 {\n    forward . 10.96.0.99\n}\n";
    let (api, client) = cluster().await;
    put_node_cache(&api, CACHE);
    api.put(MESH, a_mesh(&json!({})));
    let _operator = operator(client);
    let cache = || node_cache(&api);
    let both = || (cache().contains("weft.mesh:53") && corefile(&api).contains("weft.mesh:53")).then_some(());
    until("lines", &api, both).await;
    api.refuse("PATCH", COREDNS, 403, "a policy says no", u32::MAX);
    api.delete(MESH);
    until("none in the cache", &api, || (cache() == CACHE).then_some(())).await;
    assert!(api.get(MESH).is_some() && corefile(&api).contains("weft.mesh:53"));
    api.refuse_no_more();
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!(corefile(&api), COREFILE);
}

/// Another mesh had it made, and went first.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_mesh_takes_away_what_was_made_for_another() {
    let (api, client) = cluster().await;
    let text = format!("{COREFILE}\nimport custom/*.server\n");
    api.put(COREDNS, config_map(json!({"Corefile": text})));
    let mut custom = config_map(json!({"weft.mesh.other.server": "other.mesh:53 {\n}\n"}));
    custom["metadata"] = json!({"labels": {"weft.mesh/made-for": "other"}});
    api.put(CUSTOM, custom);
    api.put(MESH, a_mesh(&json!({})));
    let _operator = operator(client);
    let ours = || api.get(CUSTOM)?["data"]["weft.mesh.weft-system.server"].as_str().map(ToOwned::to_owned);
    until("our key", &api, ours).await;
    api.edit(CUSTOM, |map| {
        map["data"].as_object_mut().unwrap().remove("weft.mesh.other.server");
    });
    api.delete(MESH);
    until("MeshConfig gone", &api, || api.get(MESH).is_none().then_some(())).await;
    assert_eq!(api.get(CUSTOM), None);
}
