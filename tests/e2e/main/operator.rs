//! The operator may go away, come back or freeze: one replica writes, no port changes owner, traffic does not notice.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;
use weft_tests::cluster::{self, Cluster};
use weft_tests::node::{Embedded, Write};
use weft_tests::traffic::{Load, Mode, reaches};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{self, Server};
use weft_tests::{Result, mesh};

/// Within this another replica must write.
const TAKEOVER: Duration = Duration::from_secs(15);

#[test]
fn killed_restarted_and_replaced_no_port_changes_owner_and_traffic_flows() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let ns = workloads::namespace(&cluster, "e2e-operator").await?;
        Server::new("whoami", 2).deploy(&cluster, &ns).await?;
        for name in ["whoami", "second", "third"] {
            workloads::service(&cluster, &ns, name, "whoami", &[("http", 80, json!("http"))]).await?;
        }
        let clients = workloads::clients(&cluster, &ns).await?;
        let url = format!("http://whoami.{ns}.weft.mesh/");
        for name in ["second", "third", "whoami"] {
            let url = format!("http://{name}.{ns}.weft.mesh/");
            reaches(&cluster, &clients[0], &url, "whoami", seconds(30)).await?;
        }
        let before = mesh::ports(&cluster).await?;
        assert!(before.len() >= 3, "{before:?}");
        let load = Load::start(&cluster, &clients[0], &url, "whoami", 100, Mode::Both).await?;

        // Killed, all of them at once and without a word.
        let pods = cluster.api::<Pod>(mesh::NAMESPACE);
        for pod in mesh::operators(&cluster).await? {
            pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
        }
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;
        works_again(&cluster, &ns, "after-kill").await?;
        // Replaced, one by one.
        mesh::restart_operators(&cluster).await?;
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;
        works_again(&cluster, &ns, "after-restart").await?;

        load.stop_without_failures(300).await?;
        let after = mesh::ports(&cluster).await?;
        for (port, listen) in &before {
            assert_eq!(after.get(port), Some(listen), "{port} has another listen port than before");
        }
        let distinct: BTreeSet<_> = after.values().collect();
        assert_eq!(distinct.len(), after.len(), "two Services share a listen port: {after:?}");
        workloads::remove_namespace(&cluster, &ns).await
    });
}

/// A Service made now gets its shadow.
async fn works_again(cluster: &Cluster, ns: &str, name: &str) -> Result {
    workloads::service(cluster, ns, name, "whoami", &[("http", 80, json!("http"))]).await?;
    has_shadow(cluster, ns, name, seconds(30)).await
}

async fn has_shadow(cluster: &Cluster, ns: &str, name: &str, deadline: Duration) -> Result {
    wait::until(&format!("{ns}/{name} has its shadow"), deadline, async || {
        let shadow = mesh::shadow_of(cluster, ns, name).await?;
        Ok(Seen::when(shadow.is_some(), (), || "none".to_owned()))
    })
    .await
}

/// Writes to objects. Taking part in the election and checking tokens is every replica's right.
async fn writes(embedded: &Embedded, since: SystemTime) -> Result<Vec<Write>> {
    let mut writes = embedded.writes_by(mesh::NAMESPACE, "weft-operator", since).await?;
    writes.retain(|write| !["leases", "tokenreviews"].contains(&write.resource().as_str()));
    Ok(writes)
}

fn describe(writes: &[Write]) -> String {
    writes.iter().map(|write| format!("\n  {}", write.describe())).collect()
}

#[test]
fn one_replica_writes_and_another_takes_over_from_a_frozen_one() {
    cluster::test(|cluster| async move {
        let Some(embedded) = Embedded::needed_for("that one operator replica writes, and take-over") else {
            return Ok(());
        };
        mesh::installed(&cluster).await?;
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;
        let ns = workloads::namespace(&cluster, "e2e-leader").await?;
        let operators = mesh::operators(&cluster).await?;
        assert_eq!(operators.len(), 2, "two replicas");
        let leader = mesh::leader(&cluster).await?;
        let of_leader = operators.iter().find(|pod| leader.starts_with(&pod.name_any()));
        let of_leader = of_leader.ok_or_else(|| format!("the holder {leader} is none of the pods"))?;

        // With both alive, the leader alone writes.
        let since = SystemTime::now();
        for name in ["one", "two", "three"] {
            works_again(&cluster, &ns, name).await?;
        }
        let written = writes(&embedded, since).await?;
        assert!(written.len() >= 3, "three shadows need three writes:{}", describe(&written));
        let writers: BTreeSet<_> = written.iter().map(Write::pod).collect();
        let only = BTreeSet::from([of_leader.metadata.name.as_deref().unwrap()]);
        assert_eq!(writers, only, "{}", describe(&written));

        // The leader freezes: it can neither renew its Lease nor give it back.
        let process = embedded.process_of(of_leader).await?;
        embedded.signal(&process, "STOP").await?;
        let frozen = Instant::now();
        let since = SystemTime::now();
        let taken = async {
            workloads::service(&cluster, &ns, "while-frozen", "none", &[("http", 80, json!(80))]).await?;
            has_shadow(&cluster, &ns, "while-frozen", TAKEOVER).await
        }
        .await;
        let took = frozen.elapsed();
        // Thawed again whatever came of it; it must see that its time is over.
        embedded.signal(&process, "CONT").await?;
        taken?;
        eprintln!("  taken over after {:.1} s", took.as_secs_f64());
        assert!(took <= TAKEOVER, "{took:?}");
        assert_ne!(mesh::leader(&cluster).await?, leader, "the frozen one still holds the Lease");

        works_again(&cluster, &ns, "after-thaw").await?;
        let written = writes(&embedded, since).await?;
        let by_old: Vec<_> =
            written.iter().filter(|write| write.pod() == of_leader.name_any()).map(Write::describe).collect();
        assert!(by_old.is_empty(), "the one that was replaced wrote: {by_old:?}");
        assert!(written.len() >= 2, "{}", describe(&written));
        workloads::remove_namespace(&cluster, &ns).await
    });
}
