//! A node loses its power: callers on the others notice for a few seconds at most.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use weft_tests::cluster::{self, Cluster};
use weft_tests::node::Embedded;
use weft_tests::protocols::{Running, UdpReport, grpc, udp};
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
        // By address: a DNS server may be on the node that is lost, and goes on to be asked until Kubernetes knows.
        let to = format!("{}:53", stage.address("datagrams").await?);
        let args = ["udp", &to, "--sources", "8", "--every-ms", "50", "--timeout", "500", "--until-stdin"];
        let datagrams = Running::start(&cluster, stage.client(), &args, " s  ").await?;
        let load =
            Load::start(&cluster, stage.client(), &stage.url("web", "/"), "web", 100, Mode::Both).await?;

        let lost = cluster.nodes[1].clone();
        let while_lost = Box::pin(without(&cluster, &stage, &to, load, datagrams));
        embedded.while_off(&lost, while_lost).await?;
        back(&cluster, &lost).await?;
        stage.strike().await
    });
}

/// Looks at load and datagrams while the node is lost.
async fn without(cluster: &Cluster, stage: &Stage, to: &str, load: Load, datagrams: Running) -> Result {
    let (at, datagrams_at) = (load.clock(), datagrams.clock());
    new_sources_are_answered(cluster, stage, to).await?;
    // Until Kubernetes itself takes the node's pods out of the EndpointSlices: nothing else tells a source that its
    // endpoint is gone.
    let own_only = ready_on_own(cluster, stage).await?;
    workloads::has_endpoints(cluster, &stage.ns, "datagrams", own_only, seconds(90)).await?;
    let told_at = datagrams.clock();
    load.let_run(seconds(5)).await?;
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
        assert!(report.sent >= 2500, "{report:?}");
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
    assert!(
        last <= told_at + 2.0,
        "datagrams were lost until {last:.1} s, told at {told_at:.1} s: {report:?}"
    );
    for call in
        grpc(cluster, stage.client(), &stage.url("echo", ""), &["-n", "40", "--timeout", "3000"]).await?
    {
        assert_eq!(call.status, Some(0), "{call:?}");
    }
    Ok(())
}

/// How many of the servers of datagrams run on the node that is left.
async fn ready_on_own(cluster: &Cluster, stage: &Stage) -> Result<usize> {
    let of_app = ListParams::default().labels("app=datagrams");
    let pods = cluster.api::<Pod>(&stage.ns).list(&of_app).await?;
    let on_own = |pod: &&Pod| {
        pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(&*cluster.nodes[0]))
    };
    Ok(pods.iter().filter(on_own).count())
}

/// Waits until sources that come now keep away from the endpoints on the lost node, long before Kubernetes knows.
async fn new_sources_are_answered(cluster: &Cluster, stage: &Stage, to: &str) -> Result {
    wait::until("new sources get answers", seconds(20), async || {
        let args = ["--sources", "20", "-n", "2", "--every-ms", "50", "--timeout", "500"];
        let report: UdpReport = udp(cluster, stage.client(), to, &args).await?;
        Ok(Seen::when(report.lost == 0, (), || format!("{report:?}")))
    })
    .await
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
