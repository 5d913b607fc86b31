//! Leaders come and go in every way. Another takes over in time, never two write, and every replica serves the proxies.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use weft_config::contract::{PROXY_SERVICE_ACCOUNT, TOKEN_AUDIENCE};
use weft_tests::afterwards::afterwards;
use weft_tests::cluster::{self, Cluster};
use weft_tests::faults::{cut_off_leader, kill_leader, leader, while_frozen};
use weft_tests::invariants::somebody_writes;
use weft_tests::node::Embedded;
use weft_tests::stream::{hello_to, token};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::{Result, mesh, workloads};

/// Within this another replica writes when the leader is lost.
const TAKEOVER: Duration = seconds(15);
/// And when it ends as it should.
const HANDOVER: Duration = seconds(5);

#[test]
fn another_takes_over_in_time_and_never_two_write() {
    cluster::test(|cluster| async move {
        let Some(embedded) = Embedded::needed_for("that never two operators write") else { return Ok(()) };
        mesh::installed(&cluster).await?;
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;
        let (ns, since) = (workloads::namespace(&cluster, "e2e-ha").await?, SystemTime::now());
        somebody_writes(&cluster, &ns, "before", TAKEOVER).await?;

        let frozen = leader(&cluster).await?;
        Box::pin(while_frozen(&embedded, &frozen, somebody_writes(&cluster, &ns, "frozen", TAKEOVER)))
            .await?;
        // Thawed, with what it was about to do; the new leader goes on.
        somebody_writes(&cluster, &ns, "thawed", HANDOVER).await?;
        assert_ne!(leader(&cluster).await?.name_any(), frozen.name_any());
        Box::pin(cut_off_leader(&cluster, &embedded, somebody_writes(&cluster, &ns, "cut-off", TAKEOVER)))
            .await?;
        somebody_writes(&cluster, &ns, "connected", HANDOVER).await?;
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;

        workloads::scale(&cluster, mesh::NAMESPACE, "weft-operator", 3).await?;
        Box::pin(afterwards(three(&cluster, &embedded, &ns), async {
            workloads::scale(&cluster, mesh::NAMESPACE, "weft-operator", 2).await
        }))
        .await?;
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;

        let (writes, out_of_turn) = embedded.two_writers(since).await?;
        eprintln!("  {writes} writes, {} out of turn", out_of_turn.len());
        assert!(writes >= 7, "seven shadows need seven writes, not {writes}");
        assert!(out_of_turn.is_empty(), "{out_of_turn:#?}");
        workloads::remove_namespace(&cluster, &ns).await
    });
}

/// Of three, one is killed for good, one ends as it should.
async fn three(cluster: &Cluster, embedded: &Embedded, ns: &str) -> Result {
    workloads::available(cluster, mesh::NAMESPACE, "weft-operator").await?;
    serve_the_same(cluster, 3).await?;
    let killed = leader(cluster).await?.name_any();
    let taken_over = async {
        somebody_writes(cluster, ns, "killed", TAKEOVER).await?;
        assert_ne!(mesh::leader(cluster).await?, killed, "the dead do not lead");
        Ok(())
    };
    Box::pin(kill_leader(cluster, embedded, taken_over)).await?;
    workloads::available(cluster, mesh::NAMESPACE, "weft-operator").await?;
    let ending = leader(cluster).await?.name_any();
    cluster.api::<Pod>(mesh::NAMESPACE).delete(&ending, &DeleteParams::default()).await?;
    somebody_writes(cluster, ns, "replaced", HANDOVER).await
}

#[test]
fn every_replica_serves_the_configuration() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;
        serve_the_same(&cluster, 2).await
    });
}

/// So many replicas give a proxy one and the same configuration.
async fn serve_the_same(cluster: &Cluster, replicas: usize) -> Result {
    let node = &cluster.nodes[0];
    let proxy = mesh::proxy_on(cluster, node).await?;
    let token = token(cluster, mesh::NAMESPACE, PROXY_SERVICE_ACCOUNT, TOKEN_AUDIENCE, Some(&proxy)).await?;
    wait::until(&format!("{replicas} replicas serve the same"), seconds(30), async || {
        let mut digests = Vec::new();
        for operator in mesh::operators(cluster).await?.iter().filter(|pod| workloads::is_ready(pod)) {
            let update = hello_to(cluster, &operator.name_any(), Some(&token), node).await?;
            digests.push(update.map_err(|status| status.to_string())?.digest);
        }
        let same = digests.len() == replicas && digests.iter().all(|digest| *digest == digests[0]);
        Ok(Seen::when(same, (), || format!("{digests:?}")))
    })
    .await
}
