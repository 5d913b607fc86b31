//! A node loses its power: callers on the others notice for a few seconds at most.

use k8s_openapi::api::core::v1::Node;
use weft_tests::cluster::{self, Cluster};
use weft_tests::node::Embedded;
use weft_tests::protocols::{Running, UdpReport, grpc};
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::traffic::{Load, Mode};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{self, Server};
use weft_tests::{Result, mesh};

/// For so many seconds after a node is lost there may be errors.
const ERRORS: f64 = 5.0;

#[test]
fn when_a_node_is_lost_errors_stop_within_seconds() {
    cluster::test(|cluster| async move {
        let Some(embedded) = Embedded::needed_for("what the loss of a node costs") else { return Ok(()) };
        mesh::installed(&cluster).await?;
        mesh::proxies_settled(&cluster, &[], seconds(90)).await?;
        let servers = [Server::new("web", 4), Server::grpc("echo", 4), Server::udp("datagrams", 4)];
        let services = [
            UserService::http("web", "web"),
            UserService::grpc("echo", "echo"),
            UserService::new("datagrams", "datagrams").udp("echo", 53, "echo").ask("traffic-type", "udp"),
        ];
        let stage = Stage::new(&cluster, "e2e-lost-node", &servers, &services).await?;
        stage.reaches("web", "web").await?;
        let to = format!("{}:53", stage.host("datagrams"));
        let args = ["udp", &to, "--sources", "8", "--every-ms", "50", "--timeout", "500", "--until-stdin"];
        let datagrams = Running::start(&cluster, stage.client(), &args, " s  ").await?;
        let load =
            Load::start(&cluster, stage.client(), &stage.url("web", "/"), "web", 100, Mode::Both).await?;

        let lost = cluster.nodes[1].clone();
        let while_lost = Box::pin(without(&cluster, &stage, load, datagrams));
        embedded.while_off(&lost, while_lost).await?;
        back(&cluster, &lost).await?;
        stage.strike().await
    });
}

/// Looks at load and datagrams while the node is lost.
async fn without(cluster: &Cluster, stage: &Stage, load: Load, datagrams: Running) -> Result {
    let (at, datagrams_at) = (load.clock(), datagrams.clock());
    // Beyond the time after which Kubernetes itself takes the node's pods out of the EndpointSlices.
    load.let_run(seconds(40)).await?;
    let own = &cluster.nodes[0];
    for report in load.stop().await? {
        eprintln!(
            "  {}: {} sent, {} failed, the last at {:?} s; lost at {at:.1} s; {:?}",
            report.mode,
            report.sent,
            report.failed,
            report.last_failure_s,
            report.failures.first()
        );
        assert!(report.sent >= 3500, "{report:?}");
        let last = report.last_failure_s.unwrap_or(0.0);
        assert!(
            last <= at + ERRORS,
            "{}: errors until {last:.1} s, lost at {at:.1} s: {report:?}",
            report.mode
        );
        assert!(report.weft_nodes.contains_key(own), "not through the own node: {:?}", report.weft_nodes);
    }
    let report: UdpReport = datagrams.stop().await?;
    let last = report.last_lost_s.unwrap_or(0.0);
    eprintln!(
        "  datagrams: {} sent, {} lost, the last at {last:.1} s; lost at {datagrams_at:.1} s",
        report.sent, report.lost
    );
    // Nothing tells a proxy that a datagram was lost: only the EndpointSlice does, when the node is NotReady.
    let late = 30.0;
    assert!(
        last <= datagrams_at + late,
        "datagrams were lost until {last:.1} s, lost at {datagrams_at:.1} s"
    );
    for call in
        grpc(cluster, stage.client(), &stage.url("echo", ""), &["-n", "40", "--timeout", "3000"]).await?
    {
        assert_eq!(call.status, Some(0), "{call:?}");
    }
    Ok(())
}

/// Waits until all is as it was.
async fn back(cluster: &Cluster, node: &str) -> Result {
    wait::until(&format!("{node} is Ready"), seconds(120), async || {
        let object = cluster.all::<Node>().get(node).await?;
        let conditions = object.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
        Ok(Seen::when(ready, (), || format!("{conditions:?}")))
    })
    .await?;
    workloads::available(cluster, mesh::NAMESPACE, "weft-operator").await?;
    workloads::available(cluster, "kube-system", "coredns").await?;
    mesh::proxies_settled(cluster, &[], seconds(120)).await?;
    mesh::ready(cluster, seconds(60)).await
}
