//! Proxies are replaced; callers do not notice.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;
use weft_tests::cluster::{self, Cluster};
use weft_tests::traffic::{Load, Mode, reaches};
use weft_tests::wait::seconds;
use weft_tests::workloads::{self, Server};
use weft_tests::{Result, mesh};

/// Every node's proxy is gone for its drain in turn, at most.
const DEADLINE: Duration = Duration::from_secs(90);

/// Open-loop load from a client on the first node while `change` is made and until the proxies have settled.
async fn nothing_fails_while(
    cluster: Cluster,
    ns: &str,
    change: impl AsyncFnOnce(&Cluster) -> Result,
) -> Result {
    mesh::installed(&cluster).await?;
    mesh::proxies_settled(&cluster, &[], DEADLINE).await?;
    let ns = workloads::namespace(&cluster, ns).await?;
    Server::new("whoami", 2).deploy(&cluster, &ns).await?;
    workloads::service(&cluster, &ns, "whoami", "whoami", &[("http", 80, json!("http"))]).await?;
    let clients = workloads::clients(&cluster, &ns).await?;
    let url = format!("http://whoami.{ns}.weft.mesh/");
    reaches(&cluster, &clients[0], &url, "whoami", seconds(30)).await?;

    // 500 a second on new connections and 500 on kept ones, side by side.
    let load = Load::start(&cluster, &clients[0], &url, "whoami", 500, Mode::Both).await?;
    let before: Vec<_> = mesh::proxies(&cluster).await?.iter().map(ResourceExt::name_any).collect();
    change(&cluster).await?;
    load.let_run(seconds(2)).await?;
    let after: Vec<_> = mesh::proxies(&cluster).await?.iter().map(ResourceExt::name_any).collect();
    assert_eq!(before.len(), cluster.nodes.len());
    assert_ne!(before, after, "nothing was replaced");
    for report in load.stop_without_failures(2000).await? {
        let own = &cluster.nodes[0];
        assert!(report.weft_nodes.contains_key(own), "nothing went through {own}: {:?}", report.weft_nodes);
        assert!(!report.weft_nodes.contains_key(""), "something bypassed the mesh: {:?}", report.weft_nodes);
    }
    workloads::remove_namespace(&cluster, &ns).await
}

#[test]
fn a_deleted_proxy_is_replaced_without_a_failed_request() {
    cluster::test(|cluster| async move {
        nothing_fails_while(cluster, "e2e-delete-proxy", async |cluster| {
            let own = mesh::proxy_on(cluster, &cluster.nodes[0]).await?.name_any();
            cluster.api::<Pod>(mesh::NAMESPACE).delete(&own, &DeleteParams::default()).await?;
            mesh::proxies_settled(cluster, &[own], DEADLINE).await
        })
        .await
    });
}

#[test]
fn a_rollout_restart_of_the_proxies_fails_no_request() {
    cluster::test(|cluster| async move {
        nothing_fails_while(cluster, "e2e-rollout", async |cluster| {
            let old: Vec<_> = mesh::proxies(cluster).await?.iter().map(ResourceExt::name_any).collect();
            mesh::restart_proxies(cluster).await?;
            mesh::proxies_settled(cluster, &old, DEADLINE).await
        })
        .await
    });
}
