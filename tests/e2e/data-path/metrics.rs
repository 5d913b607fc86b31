//! What the proxies count is what happened.

use weft_tests::Result;
use weft_tests::cluster::{self, Cluster};
use weft_tests::metrics::{
    BREAKER_STATE, BYTES, CONNECT_FAILURES, DURATIONS, EJECTIONS, Metrics, RATE_LIMITED, REQUESTS, RETRIES,
};
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::traffic::get_until;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::Server;

/// Waits until a series has grown to `wanted`: a request is counted once its answer has been sent.
async fn counts(cluster: &Cluster, name: &str, labels: &[(&str, &str)], wanted: f64) -> Result {
    wait::until(&format!("{name} {labels:?} is {wanted}"), seconds(5), async || {
        let metrics = Metrics::on(cluster, &cluster.nodes[0]).await?;
        let is = metrics.sum(name, labels);
        Ok(Seen::when(is == Some(wanted), (), || format!("{is:?}")))
    })
    .await
}

#[test]
fn requests_are_counted_by_service_method_and_class() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web"), UserService::http("other", "web")];
        let stage = Stage::new(&cluster, "e2e-metrics", &[Server::new("web", 2)], &services).await?;
        stage.reaches("web", "web").await?;
        stage.reaches("other", "web").await?;
        let of_web = [("namespace", &*stage.ns), ("service", "web"), ("port", "80")];
        let with = |more: &[(&'static str, &'static str)]| [&of_web[..], more].concat();
        let at_start = Metrics::on(&cluster, &cluster.nodes[0]).await?;
        let before = |name: &str, more: &[(&'static str, &'static str)]| at_start.count(name, &with(more));

        stage.get_all("web", "/", &["-n", "40"]).await?;
        stage.get_all("web", "/", &["-n", "7", "--method", "DELETE"]).await?;
        stage.get_all("web", "/?status=404", &["-n", "5"]).await?;
        stage.get_all("web", "/?status=500", &["-n", "3", "--h2c"]).await?;
        // Methods anybody can think of must not make series without end.
        for method in ["MADE-UP-1", "MADE-UP-2", "MADE-UP-3"] {
            stage.get("web", "/", &["--method", method]).await?.assert_from("web");
        }
        stage.get_all("other", "/", &["-n", "20"]).await?;
        for (more, n) in [
            ([("method", "GET"), ("code_class", "2xx")], 40.0),
            ([("method", "DELETE"), ("code_class", "2xx")], 7.0),
            ([("method", "GET"), ("code_class", "4xx")], 5.0),
            ([("method", "GET"), ("code_class", "5xx")], 3.0),
        ] {
            counts(&cluster, REQUESTS, &with(&more), before(REQUESTS, &more) + n).await?;
        }
        let metrics = Metrics::on(&cluster, &cluster.nodes[0]).await?;
        for method in ["MADE-UP-1", "MADE-UP-2"] {
            assert_eq!(metrics.sum(REQUESTS, &[("method", method)]), None, "a series for {method}");
        }
        let all = before(REQUESTS, &[]) + 58.0;
        counts(&cluster, REQUESTS, &of_web, all).await?;
        counts(&cluster, &format!("{DURATIONS}_count"), &of_web, all).await?;
        let metrics = Metrics::on(&cluster, &cluster.nodes[0]).await?;
        let buckets = with(&[("le", "+Inf")]);
        assert_eq!(metrics.sum(&format!("{DURATIONS}_bucket"), &buckets), Some(all));
        assert!(metrics.count(&format!("{DURATIONS}_sum"), &of_web) > 0.0);

        let (received, sent) = ([("direction", "received")], [("direction", "sent")]);
        let (up, down) = (metrics.count(BYTES, &with(&received)), metrics.count(BYTES, &with(&sent)));
        stage.get("web", "/?size=500000", &["--method", "PUT", "--body", "300000"]).await?;
        counts(&cluster, BYTES, &with(&received), up + 300_000.0).await?;
        counts(&cluster, BYTES, &with(&sent), down + 500_000.0).await?;
        stage.strike().await
    });
}

#[test]
fn retries_limits_breakers_and_failures_are_counted() {
    cluster::side_by_side(|cluster| async move {
        let services = [
            UserService::http("retried", "web").ask("retry-attempts", "3"),
            UserService::http("limited", "web").ask("ratelimit-average", "1").ask("ratelimit-burst", "5"),
            UserService::http("guarded", "web")
                .ask("circuit-breaker-expression", "NetworkErrorRatio() > 0.5"),
            // Nobody listens there.
            UserService::new("deaf", "web").tcp("http", 80, 7777).ask("retry-attempts", "2"),
        ];
        let stage = Stage::new(&cluster, "e2e-metrics-policies", &[Server::new("web", 2)], &services).await?;
        let of = |service: &'static str| [("namespace", stage.ns.as_str()), ("service", service)];
        for service in ["retried", "guarded"] {
            stage.reaches(service, "web").await?;
        }

        for number in 0..5 {
            let path = format!("/?close&first=1&key=counted-{number}");
            stage.get("retried", &path, &[]).await?.assert_from("web");
        }
        counts(&cluster, RETRIES, &of("retried"), 10.0).await?;

        let url = stage.url("limited", "/");
        get_until(&cluster, stage.client(), &url, "200", seconds(30), |answer| answer.status == Some(200))
            .await?;
        let before = Metrics::on(&cluster, &cluster.nodes[0]).await?.count(RATE_LIMITED, &of("limited"));
        let answers = stage.get_all("limited", "/", &["-n", "50"]).await?;
        let refused = u32::try_from(answers.iter().filter(|answer| answer.status == Some(429)).count())?;
        assert!(refused > 0);
        counts(&cluster, RATE_LIMITED, &of("limited"), before + f64::from(refused)).await?;

        counts(&cluster, BREAKER_STATE, &of("guarded"), 0.0).await?;
        wait::until("the breaker opens", seconds(20), async || {
            stage.get_all("guarded", "/?close", &["-n", "10", "--method", "POST"]).await?;
            let state = Metrics::on(&cluster, &cluster.nodes[0]).await?.sum(BREAKER_STATE, &of("guarded"));
            Ok(Seen::when(state == Some(1.0), (), || format!("{state:?}")))
        })
        .await?;

        let url = stage.url("deaf", "/");
        get_until(&cluster, stage.client(), &url, "502", seconds(30), |answer| answer.status == Some(502))
            .await?;
        stage.get_all("deaf", "/", &["-n", "20"]).await?;
        wait::until("failures to connect are counted, and what follows from them", seconds(10), async || {
            let metrics = Metrics::on(&cluster, &cluster.nodes[0]).await?;
            let (failures, ejections) =
                (metrics.count(CONNECT_FAILURES, &of("deaf")), metrics.count(EJECTIONS, &of("deaf")));
            Ok(Seen::when(failures >= 20.0 && ejections >= 1.0, (), || {
                format!("{failures} failures, {ejections} ejections")
            }))
        })
        .await?;
        stage.strike().await
    });
}
