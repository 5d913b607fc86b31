//! The control plane is away: traffic does not notice, and a proxy that starts again meanwhile serves what it knew.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use weft_tests::campaign::{self, APPS};
use weft_tests::daemons::CONTROL_PLANE;
use weft_tests::faults::passes;
use weft_tests::node::{Embedded, container_id};
use weft_tests::observers::{LoadInAPod, ProbeInAPod};
use weft_tests::probe::now_us;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::{Result, cluster, invariants, mesh, seconds_of};

/// Within this of the kill a proxy must serve again: its kubelet starts it, which without an API server it does late at times.
const AGAIN_US: u64 = 25_000_000;
/// Within this of its return a new Service has its shadow: somebody leads, and watches.
const SEES_AGAIN: std::time::Duration = seconds(15);

#[test]
fn without_api_server_and_etcd_traffic_goes_on_and_a_proxy_that_restarts_serves() {
    cluster::test(|cluster| async move {
        let Some(embedded) = Embedded::needed_for("that traffic does not need the control plane") else {
            return Ok(());
        };
        let stage = campaign::stage(&cluster, "e2e-outage").await?;
        let [first, second] = [&cluster.nodes[0], &cluster.nodes[1]];
        let lasts = seconds_of("OUTAGE_SECONDS", 20)?;
        let load = LoadInAPod::start(&stage, "load", first, &stage.url("beta", "/"), "beta", 50).await?;
        let probe = ProbeInAPod::start(&stage, "probe", second, &stage.url("alpha", "/")).await?;
        let proxy = mesh::proxy_on(&cluster, second).await?;
        let process = embedded.process_of(&proxy).await?;

        // First etcd alone, for half as long: the API server is there and answers that it cannot. Then both, and the controllers,
        // which end in a real cluster when they lose their lease; one that stayed would take every node for dead when it is back.
        let killed = async {
            passes(lasts / 2).await?;
            embedded.signal(&process, "KILL").await?;
            passes(lasts / 2).await
        };
        let mut killed_at = 0;
        let both = async {
            killed_at = now_us()? + u64::try_from((lasts / 2).as_micros())?;
            embedded
                .while_away(
                    CONTROL_PLANE,
                    &["kube-controller-manager", "kube-scheduler", "kube-apiserver"],
                    killed,
                )
                .await
        };
        let etcd = async {
            passes(lasts / 2).await?;
            both.await
        };
        Box::pin(embedded.while_away(CONTROL_PLANE, &["etcd"], etcd)).await?;
        is_back(&cluster).await?;
        // However long it was away: the operator sees what comes now, not when it happens to look again.
        invariants::is_seen_again(&stage, SEES_AGAIN).await?;
        invariants::hold(&stage, &APPS, seconds(120)).await?;

        for report in load.reports(&stage, &embedded).await? {
            eprintln!("  {}: {} sent, {} failed", report.mode, report.sent, report.failed);
            assert_eq!((report.failed, report.dns_failures.len()), (0, 0), "{report:?}");
            assert!(report.sent > 1000, "only {} requests", report.sent);
        }
        // The probe's own proxy was killed: it was away for as long as it takes to start, in the middle of the outage.
        let changes = probe.stop(&stage, &embedded).await?;
        let failing: Vec<_> = changes.iter().filter(|change| change.error().is_some()).collect();
        let again = changes
            .iter()
            .find(|change| change.error().is_none() && change.answered_us > killed_at + 100_000);
        let again = again.ok_or_else(|| format!("the killed proxy never served again: {changes:?}"))?;
        eprintln!("  the killed proxy served again after {} ms", (again.answered_us - killed_at) / 1000);
        assert!(!failing.is_empty(), "the proxy was not killed");
        assert!(again.answered_us - killed_at < AGAIN_US, "{changes:?}");
        assert!(
            failing
                .iter()
                .all(|change| change.sent_us + 1_000_000 > killed_at && change.sent_us < again.answered_us),
            "{changes:?}"
        );
        let restarted = mesh::proxy_on(&cluster, second).await?;
        assert_ne!(container_id(&restarted), container_id(&proxy));
        stage.strike().await
    });
}

/// With thousands of Services Kubernetes needs minutes to take a proxy out of every shadow's EndpointSlice. Here it takes longer than
/// a proxy would go on for by itself.
#[test]
fn a_proxy_that_is_to_end_goes_on_for_as_long_as_services_offer_it() {
    cluster::test(|cluster| async move {
        let Some(embedded) = Embedded::needed_for("controllers that are slow") else { return Ok(()) };
        let stage = campaign::stage(&cluster, "e2e-slow").await?;
        let node = &cluster.nodes[1];
        let old = mesh::proxy_on(&cluster, node).await?.name_any();
        let load = LoadInAPod::start(&stage, "load", node, &stage.url("beta", "/"), "beta", 10).await?;
        let pods = cluster.api::<Pod>(mesh::NAMESPACE);
        let ends = async {
            pods.delete(&old, &DeleteParams::default()).await?;
            passes(seconds(20)).await?;
            let still =
                pods.get_opt(&old).await?.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some());
            assert!(still, "it has ended though the Services still offer it");
            Ok(())
        };
        embedded.while_daemon_frozen(CONTROL_PLANE, "kube-controller-manager", ends).await?;
        mesh::proxies_settled(&cluster, std::slice::from_ref(&old), seconds(120)).await?;
        wait::until("the old proxy has ended", seconds(90), async || {
            Ok(Seen::when(pods.get_opt(&old).await?.is_none(), (), || old.clone()))
        })
        .await?;
        for report in load.reports(&stage, &embedded).await? {
            eprintln!("  {}: {} sent, {} failed", report.mode, report.sent, report.failed);
            assert_eq!((report.failed, report.dns_failures.len()), (0, 0), "{report:?}");
        }
        stage.strike().await
    });
}

async fn is_back(cluster: &weft_tests::cluster::Cluster) -> Result {
    wait::until("the API server answers", seconds(90), async || {
        let version = cluster.client.apiserver_version().await?;
        let nodes =
            cluster.all::<k8s_openapi::api::core::v1::Node>().list(&kube::api::ListParams::default()).await?;
        Ok(Seen::when(nodes.items.len() == cluster.nodes.len(), (), || format!("{version:?}")))
    })
    .await
}
