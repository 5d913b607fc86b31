//! Leaders come and go in every way. Another takes over in time, never two write, and every replica serves the proxies.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use weft_config::contract::{PROXY_SERVICE_ACCOUNT, TOKEN_AUDIENCE};
use weft_tests::cluster::{self, Cluster};
use weft_tests::faults::{cut_off_leader, freeze_leader, leader};
use weft_tests::invariants::somebody_writes;
use weft_tests::node::Embedded;
use weft_tests::stream::{hello_to, token};
use weft_tests::wait::seconds;
use weft_tests::{Result, mesh, workloads};

/// Within this another replica writes when the leader is lost.
const TAKEOVER: Duration = seconds(15);
/// And when it ends as it should.
const HANDOVER: Duration = seconds(5);

async fn delete(cluster: &Cluster, pod: &Pod, params: DeleteParams) -> Result {
    cluster.api::<Pod>(mesh::NAMESPACE).delete(&pod.name_any(), &params).await?;
    Ok(())
}

#[test]
fn another_takes_over_in_time_and_never_two_write() {
    cluster::test(|cluster| async move {
        let Some(embedded) = Embedded::needed_for("that never two operators write") else { return Ok(()) };
        mesh::installed(&cluster).await?;
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;
        let (ns, since) = (workloads::namespace(&cluster, "e2e-ha").await?, SystemTime::now());
        somebody_writes(&cluster, &ns, "before", TAKEOVER).await?;

        let frozen = leader(&cluster).await?.name_any();
        Box::pin(freeze_leader(&cluster, &embedded, somebody_writes(&cluster, &ns, "frozen", TAKEOVER)))
            .await?;
        // Thawed, with what it was about to do; the new leader goes on.
        somebody_writes(&cluster, &ns, "thawed", HANDOVER).await?;
        assert_ne!(leader(&cluster).await?.name_any(), frozen);
        Box::pin(cut_off_leader(&cluster, &embedded, somebody_writes(&cluster, &ns, "cut-off", TAKEOVER)))
            .await?;
        somebody_writes(&cluster, &ns, "connected", HANDOVER).await?;
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;

        delete(&cluster, &leader(&cluster).await?, DeleteParams::default().grace_period(0)).await?;
        somebody_writes(&cluster, &ns, "killed", TAKEOVER).await?;
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;
        delete(&cluster, &leader(&cluster).await?, DeleteParams::default()).await?;
        somebody_writes(&cluster, &ns, "replaced", HANDOVER).await?;
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;

        let (writes, out_of_turn) = embedded.two_writers(since).await?;
        eprintln!("  {writes} writes, {} out of turn", out_of_turn.len());
        assert!(writes >= 7, "seven shadows need seven writes, not {writes}");
        assert!(out_of_turn.is_empty(), "{out_of_turn:#?}");
        workloads::remove_namespace(&cluster, &ns).await
    });
}

#[test]
fn every_replica_serves_the_configuration() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;
        let node = &cluster.nodes[0];
        let proxy = mesh::proxy_on(&cluster, node).await?;
        let token =
            token(&cluster, mesh::NAMESPACE, PROXY_SERVICE_ACCOUNT, TOKEN_AUDIENCE, Some(&proxy)).await?;
        let mut digests = Vec::new();
        for operator in mesh::operators(&cluster).await? {
            let update = hello_to(&cluster, &operator.name_any(), Some(&token), node).await?;
            digests.push(update.map_err(|status| status.to_string())?.digest);
        }
        assert_eq!(digests.len(), 2, "two replicas");
        assert_eq!(digests[0], digests[1], "both from the same cluster");
        Ok(())
    });
}
