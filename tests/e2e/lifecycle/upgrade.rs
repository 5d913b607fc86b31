//! Operator and proxies are upgraded and taken back under load of every kind, and nobody notices.
//! `WEFT_LOAD_RPS=1000` is the full load.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use weft_tests::cluster::{self, Cluster};
use weft_tests::mixed::Mixed;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{self, image_tag, next_tag};
use weft_tests::{Result, mesh};

/// Every node's proxy is replaced in turn and drains.
const DEADLINE: Duration = Duration::from_secs(120);

fn images(pods: &[Pod]) -> BTreeSet<String> {
    let image = |pod: &Pod| pod.spec.as_ref()?.containers.first()?.image.clone();
    pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).filter_map(image).collect()
}

/// `helm upgrade` to the images of `tag`, until operator and proxies are of it and nothing of before is left.
async fn upgrade_to(cluster: &Cluster, tag: &str) -> Result {
    let before: Vec<_> = mesh::proxies(cluster).await?.iter().map(ResourceExt::name_any).collect();
    mesh::release("upgrade", mesh::CHART, tag).await?;
    workloads::available(cluster, mesh::NAMESPACE, "weft-operator").await?;
    mesh::ready(cluster, DEADLINE).await?;
    mesh::proxies_settled(cluster, &before, DEADLINE).await?;
    let wanted = |name: &str| BTreeSet::from([workloads::image_of(name, tag)]);
    assert_eq!(images(&mesh::operators(cluster).await?), wanted("weft-operator"));
    assert_eq!(images(&mesh::proxies(cluster).await?), wanted("weft-proxy"));
    Ok(())
}

#[test]
fn helm_upgrade_to_another_version_and_back_fails_no_request() {
    cluster::test(|cluster| async move {
        let stage = Mixed::stage(&cluster, "e2e-upgrade").await?;
        let ports = mesh::ports(&cluster).await?;
        let load = Mixed::start(&stage).await?;
        for tag in [next_tag(), image_tag()] {
            upgrade_to(&cluster, &tag).await?;
            load.let_run(seconds(2)).await?;
        }
        load.stop_without_failures().await?;
        let after = mesh::ports(&cluster).await?;
        let changed = mesh::ports_that_changed(&ports, &after);
        assert!(changed.is_empty(), "ports changed their listen ports: {changed:?}, now {after:?}");
        assert!(after.keys().filter(|port| port.contains(&*stage.ns)).count() >= 3, "{after:?}");
        stage.strike().await
    });
}

#[test]
fn a_change_of_the_mesh_config_rolls_the_proxies_one_node_after_the_other_and_fails_no_request() {
    cluster::test(|cluster| async move {
        let stage = Mixed::stage(&cluster, "e2e-rolled").await?;
        let load = Mixed::start(&stage).await?;
        let rolled =
            mesh::while_configured(&cluster, json!({ "proxy": { "logLevel": "debug" } }), async || {
                load.let_run(seconds(2)).await
            });
        let (rolled, seen) = tokio::join!(rolled, watch(&cluster));
        rolled?;
        load.stop_without_failures().await?;
        let most = seen?;
        assert_eq!(most, 1, "new proxies came up beside old ones on {most} nodes at a time");
        stage.strike().await
    });
}

/// Looks until the proxies roll and have rolled; on how many nodes at a time an old and a new one stood side by side.
async fn watch(cluster: &Cluster) -> Result<usize> {
    let (mut most, mut began) = (0, false);
    wait::until("the proxies roll", DEADLINE, async || {
        let status = mesh::status(cluster).await?;
        let reason = mesh::reason(&status, "RolloutPaused").unwrap_or_default().to_owned();
        let rolling = reason == "Rolling";
        began |= rolling;
        let pods = mesh::proxies(cluster).await?;
        let staying = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let nodes: Vec<_> = staying.filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
        let distinct: BTreeSet<_> = nodes.iter().collect();
        most = most.max(nodes.len() - distinct.len());
        Ok(Seen::when(began && !rolling, most, || format!("{reason}, {} pods", pods.len())))
    })
    .await
}
