//! TCP and UDP under access control: a connection that is not allowed is reset, one that is no longer allowed is cut, datagrams
//! that are not allowed are dropped.

use serde_json::json;
use weft_tests::cluster;
use weft_tests::metrics::{DENIED, Metrics, TCP_OPEN};
use weft_tests::protocols::{TcpReport, UdpReport, tcp, udp};
use weft_tests::services::UserService;
use weft_tests::smi::{group, ports, rule, target};
use weft_tests::stage::Stage;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::Server;
use weft_tests::{Failure, Result};

async fn connect(stage: &Stage, caller: &str, port: u16, args: &[&str]) -> Result<TcpReport> {
    let to = format!("{}:{port}", stage.host("raw"));
    tcp(&stage.cluster, stage.caller(caller)?, &to, &[&["--timeout", "3000"], args].concat()).await
}

/// Waits until a connection of alice to port 9000 is as it should be.
async fn connects(stage: &Stage, allowed: bool) -> Result {
    wait::until(&format!("alice connects: {allowed}"), seconds(30), async || {
        let report = connect(stage, "alice", 9000, &["--mode", "echo"]).await?;
        Ok(Seen::when((report.ok == 1) == allowed, (), || format!("{report:?}")))
    })
    .await
}

#[test]
fn connections_are_checked_by_source_and_port_and_cut_when_no_longer_allowed() {
    cluster::under_access_control(|cluster| async move {
        let servers = [Server::tcp("raw", 1).with_account()];
        let service = UserService::new("raw", "raw")
            .tcp("echo", 9000, "echo")
            .tcp("half-close", 9001, "half-close")
            .ask("traffic-type", "tcp");
        let callers = ["alice", "bob"];
        let stage = Stage::with_callers(&cluster, "e2e-smi-tcp", &servers, &[service], &callers).await?;
        let labels = [("namespace", &*stage.ns), ("service", "raw")];
        let count = async |name: &str| {
            Ok::<_, Failure>(Metrics::on(&cluster, &cluster.nodes[0]).await?.count(name, &labels))
        };
        wait::until("it is carried, and denied", seconds(30), async || {
            let report = connect(&stage, "alice", 9000, &[]).await?;
            assert_eq!(report.ok, 0, "allowed by no target: {report:?}");
            let denied = count(DENIED).await?;
            Ok(Seen::when(denied > 0.0, (), || format!("{report:?}")))
        })
        .await?;

        let allow = target("alice", &["alice"], "raw", &[rule("TCPRoute", "echo")]);
        stage.apply(&[ports("TCPRoute", "echo", &[9000]), allow.clone()]).await?;
        connects(&stage, true).await?;
        let his = connect(&stage, "bob", 9000, &[]).await?;
        assert_eq!((his.ok, his.failed), (0, 1), "{his:?}");
        let other = connect(&stage, "alice", 9001, &["--mode", "half-close"]).await?;
        assert_eq!(other.ok, 0, "another port: {other:?}");

        // One that is open, on which nobody says a word.
        let to = format!("{}:9000", stage.host("raw"));
        let idle = ["--mode", "idle", "--timeout", "40000"];
        let idle = tcp(&cluster, stage.caller("alice")?, &to, &idle);
        let cut = async {
            wait::until("the connection is open", seconds(10), async || {
                let open = count(TCP_OPEN).await?;
                Ok(Seen::when(open >= 1.0, (), || format!("{open} are open")))
            })
            .await?;
            stage.delete(&allow).await
        };
        let (idle, cut) = tokio::join!(idle, cut);
        cut?;
        let idle = idle?;
        idle.assert_all(1);
        let how = idle.told["how"].as_str().unwrap_or_default();
        assert!(how.contains("reset"), "what is cut must not look complete: {idle:?}");
        connects(&stage, false).await?;

        // Requests are not known in a connection.
        let requests = [rule("TCPRoute", "echo"), rule("HTTPRouteGroup", "all")];
        let all = group("all", &json!([{ "name": "all", "pathRegex": ".*" }]));
        let (both, bobs) =
            (target("alice", &["alice"], "raw", &requests), target("bob", &["bob"], "raw", &[]));
        stage.apply(&[all, both, bobs]).await?;
        wait::until("bob connects", seconds(20), async || {
            let report = connect(&stage, "bob", 9001, &["--mode", "half-close"]).await?;
            Ok(Seen::when(report.ok == 1, (), || format!("{report:?}")))
        })
        .await?;
        let hers = connect(&stage, "alice", 9000, &[]).await?;
        assert_eq!(hers.ok, 0, "{hers:?}");
        stage.strike().await
    });
}

async fn talk(stage: &Stage, caller: &str, port: u16) -> Result<UdpReport> {
    let to = format!("{}:{port}", stage.host("datagrams"));
    udp(&stage.cluster, stage.caller(caller)?, &to, &["--sources", "3", "-n", "2", "--timeout", "300"]).await
}

/// Waits until alice's datagrams to port 53 come back, all or none.
async fn comes_back(stage: &Stage, all: bool) -> Result {
    wait::until(&format!("alice's datagrams come back: {all}"), seconds(30), async || {
        let report = talk(stage, "alice", 53).await?;
        let wanted = if all { report.sent } else { 0 };
        Ok(Seen::when(report.received == wanted, (), || format!("{report:?}")))
    })
    .await
}

#[test]
fn datagrams_are_dropped_unless_a_route_of_udp_allows_them() {
    cluster::under_access_control(|cluster| async move {
        let servers = [Server::udp("datagrams", 1).with_account()];
        let service = UserService::new("datagrams", "datagrams")
            .udp("echo", 53, "echo")
            .udp("stream", 5301, "stream")
            .ask("traffic-type", "udp");
        let callers = ["alice", "bob"];
        let stage = Stage::with_callers(&cluster, "e2e-smi-udp", &servers, &[service], &callers).await?;
        let labels = [("namespace", &*stage.ns), ("service", "datagrams")];
        wait::until("they are carried, and denied", seconds(30), async || {
            let report = talk(&stage, "alice", 53).await?;
            assert_eq!(report.received, 0, "allowed by no target: {report:?}");
            let denied = Metrics::on(&cluster, &cluster.nodes[0]).await?.count(DENIED, &labels);
            Ok(Seen::when(denied >= 1.0, (), || format!("{report:?}")))
        })
        .await?;
        let allow = |kind| target("alice", &["alice"], "datagrams", &[rule(kind, "echo")]);
        stage.apply(&[ports("UDPRoute", "echo", &[53]), allow("UDPRoute")]).await?;
        comes_back(&stage, true).await?;
        assert_eq!(talk(&stage, "bob", 53).await?.received, 0);
        assert_eq!(talk(&stage, "alice", 5301).await?.received, 0, "another port");
        // Ports of TCP are others.
        stage.apply(&[ports("TCPRoute", "echo", &[53]), allow("TCPRoute")]).await?;
        comes_back(&stage, false).await?;
        // Without rules anything goes.
        stage.apply(&[target("alice", &["alice"], "datagrams", &[])]).await?;
        comes_back(&stage, true).await?;
        assert_eq!(talk(&stage, "bob", 53).await?.received, 0);
        stage.strike().await
    });
}
