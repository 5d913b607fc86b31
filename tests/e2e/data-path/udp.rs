//! UDP: datagrams come back whole to whom they belong, a source keeps its server, and gets another when that one is gone.

use weft_tests::Result;
use weft_tests::cluster::{self, Cluster};
use weft_tests::metrics::{Metrics, UDP_OPEN};
use weft_tests::protocols::{Running, UdpReport, udp};
use weft_tests::servers::STREAM;
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{self, Server, available, scale};

/// A Service `datagrams` for both ports of `replicas` UDP servers, in use.
async fn staged(cluster: &Cluster, ns: &str, replicas: u32, idle: Option<&str>) -> Result<Stage> {
    let mut service = UserService::new("datagrams", "datagrams")
        .udp("echo", 53, "echo")
        .udp("stream", 5301, "stream")
        .ask("traffic-type", "udp");
    if let Some(idle) = idle {
        service = service.ask("idle-timeout", idle);
    }
    let stage = Stage::new(cluster, ns, &[Server::udp("datagrams", replicas)], &[service]).await?;
    wait::until("datagrams come back", seconds(30), async || {
        let report = talk(&stage, 53, &["-n", "1", "--timeout", "500"]).await?;
        Ok(Seen::when(report.received == 1, (), || format!("{report:?}")))
    })
    .await?;
    Ok(stage)
}

async fn talk(stage: &Stage, port: u16, args: &[&str]) -> Result<UdpReport> {
    udp(&stage.cluster, stage.client(), &format!("{}:{port}", stage.host("datagrams")), args).await
}

#[test]
fn every_source_gets_its_own_datagrams_back_from_one_server() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-udp", 3, None).await?;
        for size in ["17", "512", "1400"] {
            let args = ["--sources", "30", "-n", "20", "--every-ms", "5", "--size", size];
            let report = talk(&stage, 53, &args).await?;
            assert_eq!((report.sent, report.received), (600, 600), "{size}: {report:?}");
            assert_eq!((report.lost, report.late, report.wrong), (0, 0, 0), "{size}: {report:?}");
            // Thirty sources, each with a server of its own choice: all three are in use, and nobody changes.
            assert_eq!((report.by.len(), report.moves), (3, 0), "{size}: {report:?}");
        }
        stage.strike().await
    });
}

#[test]
fn one_datagram_may_be_answered_by_many() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-udp-stream", 2, None).await?;
        let replies = STREAM.to_string();
        for size in ["64", "1200"] {
            let args = ["--sources", "10", "-n", "5", "--size", size, "--replies", &replies];
            let report = talk(&stage, 5301, &args).await?;
            assert_eq!(report.received, u64::from(10 * 5 * STREAM), "{size}: {report:?}");
            assert_eq!((report.lost, report.wrong, report.moves), (0, 0, 0), "{size}: {report:?}");
        }
        stage.strike().await
    });
}

#[test]
fn sources_whose_server_goes_get_another() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-udp-scale", 3, None).await?;
        let to = format!("{}:53", stage.host("datagrams"));
        let args = ["udp", &to, "--sources", "12", "--every-ms", "20", "--timeout", "500", "--until-stdin"];
        let flow = Running::start(&cluster, stage.client(), &args, " s  ").await?;
        flow.let_run(seconds(2)).await?;
        scale(&cluster, &stage.ns, "datagrams", 1).await?;
        available(&cluster, &stage.ns, "datagrams").await?;
        // A source keeps a server that drains: it may still answer. This one does not, so some are lost until it is gone.
        workloads::has_endpoints_left(&cluster, &stage.ns, "datagrams", 1, seconds(60)).await?;
        let settled = flow.clock();
        flow.let_run(seconds(4)).await?;
        let left = workloads::pods(&cluster, &stage.ns, "datagrams").await?;
        let report: UdpReport = flow.stop().await?;
        eprintln!(
            "  {} sent, {} lost, the last at {:?} s; settled at {settled} s",
            report.sent, report.lost, report.last_lost_s
        );
        assert_eq!((report.by.len(), report.wrong), (3, 0), "{report:?}");
        for source in &report.sources {
            assert_eq!(source.last.as_ref(), left.first(), "a source was left behind: {report:?}");
            // Two servers went; nobody moves more often than that.
            assert!(source.moves <= 2, "{report:?}");
        }
        let last = report.last_lost_s.unwrap_or(0.0);
        assert!(last <= settled + 1.0, "datagrams were lost until {last} s, settled at {settled} s");
        stage.strike().await
    });
}

#[test]
fn a_source_is_forgotten_when_it_was_silent_for_its_time() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-udp-idle", 2, Some("2s")).await?;
        let labels = [("namespace", &*stage.ns), ("service", "datagrams")];
        let sessions = async || {
            let metrics = Metrics::on(&cluster, &cluster.nodes[0]).await?;
            Ok::<_, weft_tests::Failure>(metrics.count(UDP_OPEN, &labels))
        };
        // Silence of a second is not the end.
        let args = ["--sources", "50", "-n", "4", "--every-ms", "1000"];
        let report = talk(&stage, 53, &args).await?;
        assert_eq!((report.received, report.moves), (200, 0), "{report:?}");
        let open = sessions().await?;
        assert!(open >= 50.0, "{open} sessions after 50 sources");
        wait::until("all are forgotten", seconds(8), async || {
            let left = sessions().await?;
            Ok(Seen::when(left.abs() < 0.5, (), || format!("{left} sessions")))
        })
        .await?;
        talk(&stage, 53, &["--sources", "5", "-n", "1"]).await?;
        stage.strike().await
    });
}
