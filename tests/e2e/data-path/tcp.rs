//! TCP: whoever speaks first, however long, however many, closed on one side or both.

use weft_tests::Result;
use weft_tests::cluster::{self, Cluster};
use weft_tests::metrics::{BYTES, Metrics, TCP_OPEN};
use weft_tests::protocols::{Running, TcpReport, tcp};
use weft_tests::servers::SOURCE_BYTES;
use weft_tests::services::{self, UserService};
use weft_tests::stage::Stage;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{Server, available, scale};

/// A Service `raw` for all the ports of `replicas` TCP servers, in use.
async fn staged(cluster: &Cluster, ns: &str, replicas: u32) -> Result<Stage> {
    let service = UserService::new("raw", "raw")
        .tcp("echo", 9000, "echo")
        .tcp("half-close", 9001, "half-close")
        .tcp("sink", 9002, "sink")
        .tcp("source", 9003, "source")
        .ask("traffic-type", "tcp");
    let stage = Stage::new(cluster, ns, &[Server::tcp("raw", replicas)], &[service]).await?;
    wait::until("the server speaks first", seconds(30), async || {
        let report = talk(&stage, 9000, &["--timeout", "2000"]).await?;
        Ok(Seen::when(report.ok == 1, (), || format!("{report:?}")))
    })
    .await?;
    Ok(stage)
}

async fn talk(stage: &Stage, port: u16, args: &[&str]) -> Result<TcpReport> {
    tcp(&stage.cluster, stage.client(), &format!("{}:{port}", stage.host("raw")), args).await
}

#[test]
fn server_first_half_close_and_bulk_in_either_direction() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-tcp", 2).await?;
        // The banner is there before the client has said a word.
        let report = talk(&stage, 9000, &["--connections", "60"]).await?;
        report.assert_all(60);
        assert_eq!(report.by.len(), 2, "both servers take part: {report:?}");
        assert!(report.by.values().all(|connections| *connections >= 10), "{report:?}");

        for (port, mode, connections, bytes) in [
            (9000, "echo", 1_u64, 1),
            (9000, "echo", 8, 5_000_000),
            (9001, "half-close", 1, 0),
            (9001, "half-close", 8, 5_000_000),
            (9002, "upload", 2, SOURCE_BYTES),
            (9003, "download", 2, SOURCE_BYTES),
        ] {
            let (count, size) = (connections.to_string(), bytes.to_string());
            let args = ["--mode", mode, "--connections", &count, "--bytes", &size, "--timeout", "60000"];
            let report = talk(&stage, port, &args).await?;
            report.assert_all(connections);
            assert_eq!(report.bytes, connections * bytes, "{mode}: {report:?}");
        }
        let labels = [("namespace", &*stage.ns), ("service", "raw"), ("port", "9003"), ("direction", "sent")];
        wait::until("the bytes are counted", seconds(5), async || {
            let counted = Metrics::on(&cluster, &cluster.nodes[0]).await?.count(BYTES, &labels);
            #[allow(clippy::cast_precision_loss, reason = "far from where it matters")]
            let wanted = (2 * SOURCE_BYTES) as f64;
            Ok(Seen::when((counted - wanted).abs() < 1.0, (), || format!("{counted} instead of {wanted}")))
        })
        .await?;
        stage.strike().await
    });
}

#[test]
fn two_thousand_connections_at_once() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-tcp-many", 2).await?;
        let to = format!("{}:9000", stage.host("raw"));
        let args = [
            "tcp",
            &to,
            "--mode",
            "echo",
            "--connections",
            "2000",
            "--bytes",
            "1000",
            "--hold",
            "--timeout",
            "30000",
        ];
        let held = Running::start(&cluster, stage.client(), &args, "open: ").await?;
        assert!(held.told().contains("open: 2000, failed: 0"), "{}", held.told());
        let labels = [("namespace", &*stage.ns), ("service", "raw")];
        let open = Metrics::on(&cluster, &cluster.nodes[0]).await?.count(TCP_OPEN, &labels);
        assert!((2000.0..2010.0).contains(&open), "{open} connections are counted as open");
        // There is room for others meanwhile.
        talk(&stage, 9000, &["--mode", "echo", "--connections", "20"]).await?.assert_all(20);
        let report: TcpReport = held.stop().await?;
        report.assert_all(2000);
        wait::until("none is left", seconds(10), async || {
            let open = Metrics::on(&cluster, &cluster.nodes[0]).await?.count(TCP_OPEN, &labels);
            Ok(Seen::when(open.abs() < 0.5, (), || format!("{open} are counted as open")))
        })
        .await?;
        stage.strike().await
    });
}

#[test]
fn open_connections_outlive_changes_of_the_service() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-tcp-change", 1).await?;
        let to = format!("{}:9000", stage.host("raw"));
        let args = ["tcp", &to, "--mode", "echo", "--connections", "20", "--bytes", "100000", "--hold"];
        let held = Running::start(&cluster, stage.client(), &args, "open: 20, failed: 0").await?;
        scale(&cluster, &stage.ns, "raw", 3).await?;
        available(&cluster, &stage.ns, "raw").await?;
        services::ask(&cluster, &stage.ns, "raw", "idle-timeout", Some("1m")).await?;
        wait::until("new connections reach the new ones", seconds(30), async || {
            let report = talk(&stage, 9000, &["--connections", "30"]).await?;
            // The first has twenty connections already.
            Ok(Seen::when(report.by.len() >= 2, (), || format!("{report:?}")))
        })
        .await?;
        let report: TcpReport = held.stop().await?;
        report.assert_all(20);
        assert_eq!(report.by.len(), 1, "{report:?}");
        stage.strike().await
    });
}

#[test]
fn silence_ends_a_connection_only_when_asked_for() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-tcp-idle", 1).await?;
        let report = talk(&stage, 9000, &["--mode", "idle", "--timeout", "4000"]).await?;
        assert_eq!(report.ok, 0, "a silent connection was closed: {report:?}");

        services::ask(&cluster, &stage.ns, "raw", "idle-timeout", Some("1500ms")).await?;
        let after = wait::until("silent connections are closed", seconds(30), async || {
            let report = talk(&stage, 9000, &["--mode", "idle", "--timeout", "4000"]).await?;
            let after = report.told["ended_after_ms"].as_u64();
            Ok(Seen::when(after.is_some(), after.unwrap_or_default(), || format!("{report:?}")))
        })
        .await?;
        assert!((1200..3500).contains(&after), "closed after {after} ms, not 1500");
        // Slow is not silent: four seconds of a few bytes at a time.
        let args = ["--mode", "echo", "--bytes", "4000", "--rate", "1000"];
        talk(&stage, 9000, &args).await?.assert_all(1);
        stage.strike().await
    });
}

#[test]
fn without_endpoints_a_connection_is_closed_at_once() {
    cluster::side_by_side(|cluster| async move {
        let stage = staged(&cluster, "e2e-tcp-empty", 1).await?;
        scale(&cluster, &stage.ns, "raw", 0).await?;
        wait::until("connections are closed at once", seconds(40), async || {
            let began = std::time::Instant::now();
            let report = talk(&stage, 9000, &["--timeout", "4000"]).await?;
            let soon = report.failed == 1 && began.elapsed() < seconds(2);
            Ok(Seen::when(soon, (), || format!("{report:?}")))
        })
        .await?;
        scale(&cluster, &stage.ns, "raw", 1).await?;
        wait::until("the server speaks again", seconds(40), async || {
            let report = talk(&stage, 9000, &["--timeout", "2000"]).await?;
            Ok(Seen::when(report.ok == 1, (), || format!("{report:?}")))
        })
        .await?;
        stage.strike().await
    });
}
