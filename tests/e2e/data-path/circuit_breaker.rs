//! The circuit breaker: opens when its expression holds, refuses for ten seconds, lets ever more through for ten, and closes
//! if all is well.

use std::time::Instant;

use weft_tests::Result;
use weft_tests::cluster::{self, Cluster};
use weft_tests::metrics::{BREAKER_STATE, Metrics};
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::traffic::Answer;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::Server;

/// Refused by the proxy itself.
fn refused(answer: &Answer) -> bool {
    answer.status == Some(503) && answer.pod().is_none()
}

/// The state of a Service's breaker on the first node: 0 closed, 1 open, 2 recovering.
async fn state(cluster: &Cluster, stage: &Stage, service: &str) -> Result<f64> {
    let metrics = Metrics::on(cluster, &cluster.nodes[0]).await?;
    let labels = [("namespace", &*stage.ns), ("service", service)];
    Ok(metrics.sum(BREAKER_STATE, &labels).ok_or_else(|| format!("no {BREAKER_STATE} of {service}"))?)
}

/// Sends requests to `path` until the breaker is open.
async fn open(stage: &Stage, service: &str, path: &str) -> Result<Answer> {
    wait::until(&format!("the breaker of {service} opens"), seconds(20), async || {
        let answers = stage.get_all(service, path, &["-n", "20", "--timeout", "20000"]).await?;
        let last = answers.into_iter().next_back().ok_or("no answer")?;
        let state = format!("{last:?}");
        Ok(Seen::when(refused(&last), last, || state))
    })
    .await
}

#[test]
fn it_opens_refuses_recovers_and_closes() {
    cluster::side_by_side(|cluster| async move {
        let services = [
            UserService::http("web", "web")
                .ask("circuit-breaker-expression", "ResponseCodeRatio(500, 600, 0, 600) > 0.5"),
            UserService::http("bystander", "web"),
        ];
        let stage = Stage::new(&cluster, "e2e-breaker", &[Server::new("web", 2)], &services).await?;
        stage.reaches("web", "web").await?;
        stage.reaches("bystander", "web").await?;
        // While all is well it is closed.
        for answer in stage.get_all("web", "/", &["-n", "50"]).await? {
            answer.assert_from("web");
        }
        assert!((state(&cluster, &stage, "web").await? - 0.0).abs() < 0.5);

        let answer = open(&stage, "web", "/?status=500").await?;
        let opened = Instant::now();
        assert!(answer.text().contains(&format!("{}/web", stage.ns)), "the Service is not named: {answer:?}");
        assert!((state(&cluster, &stage, "web").await? - 1.0).abs() < 0.5, "not open");
        // Open for everything on this Service, and for nothing else; backends are left alone.
        for answer in stage.get_all("web", "/?key=open", &["-n", "20"]).await? {
            assert!(refused(&answer), "{answer:?}");
        }
        assert_eq!(stage.seen("web", "open").await?, 0);
        for answer in stage.get_all("bystander", "/", &["-n", "20"]).await? {
            answer.assert_from("web");
        }

        // After ten seconds some are let through.
        wait::until("it recovers", seconds(15), async || {
            let state = state(&cluster, &stage, "web").await?;
            Ok(Seen::when((state - 2.0).abs() < 0.5, (), || format!("state {state}")))
        })
        .await?;
        let after = opened.elapsed().as_secs_f64();
        assert!((8.0..18.0).contains(&after), "recovering after {after:.1} s, not ten");
        let (mut through, mut turned_away) = (0, 0);
        wait::until("it lets some through and not others", seconds(10), async || {
            for answer in stage.get_all("web", "/", &["-n", "20"]).await? {
                if refused(&answer) {
                    turned_away += 1;
                } else {
                    answer.assert_from("web");
                    through += 1;
                }
            }
            Ok(Seen::when(through > 0 && turned_away > 0, (), || {
                format!("{through} through, {turned_away} not")
            }))
        })
        .await?;

        // After ten more it is closed, and stays so.
        wait::until("it closes", seconds(20), async || {
            stage.get("web", "/", &[]).await?;
            let state = state(&cluster, &stage, "web").await?;
            Ok(Seen::when(state.abs() < 0.5, (), || format!("state {state}")))
        })
        .await?;
        let after = opened.elapsed().as_secs_f64();
        assert!((18.0..38.0).contains(&after), "closed after {after:.1} s, not twenty");
        for answer in stage.get_all("web", "/", &["-n", "100"]).await? {
            answer.assert_from("web");
        }
        stage.strike().await
    });
}

#[test]
fn it_opens_again_when_recovery_fails() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web")
            .ask("circuit-breaker-expression", "ResponseCodeRatio(500, 600, 0, 600) > 0.5")];
        let stage = Stage::new(&cluster, "e2e-breaker-again", &[Server::new("web", 1)], &services).await?;
        stage.reaches("web", "web").await?;
        open(&stage, "web", "/?status=500").await?;
        // One request that is let through means that it recovers; how long it does so, when all of them fail, nobody can see.
        wait::until("a request is let through again", seconds(30), async || {
            let answers = stage.get_all("web", "/?status=500", &["-n", "5"]).await?;
            let passed = answers.iter().any(|answer| answer.status == Some(500));
            Ok(Seen::when(passed, (), || format!("{answers:?}")))
        })
        .await?;
        wait::until("it is open again", seconds(25), async || {
            stage.get_all("web", "/?status=500", &["-n", "10"]).await?;
            let state = state(&cluster, &stage, "web").await?;
            Ok(Seen::when((state - 1.0).abs() < 0.5, (), || format!("state {state}")))
        })
        .await?;
        stage.strike().await
    });
}

#[test]
fn each_function_of_the_language_can_open_it() {
    cluster::side_by_side(|cluster| async move {
        let cases = [
            ("errors", "NetworkErrorRatio() > 0.3", "/?close"),
            ("latency", "LatencyAtQuantileMS(50.0) > 150", "/?delay=300"),
            ("codes", "ResponseCodeRatio(400, 500, 200, 600) >= 0.4", "/?status=404"),
            (
                "either",
                "NetworkErrorRatio() > 0.9 || ResponseCodeRatio(503, 504, 0, 600) > 0.3",
                "/?status=503",
            ),
            (
                "neither",
                "!(ResponseCodeRatio(500, 600, 0, 600) < 0.5) && NetworkErrorRatio() == 0",
                "/?status=599",
            ),
        ];
        let services = cases.map(|(name, expression, _)| {
            UserService::http(name, "web")
                .ask("circuit-breaker-expression", expression)
                .ask("retry-attempts", "1")
        });
        let stage = Stage::new(&cluster, "e2e-breaker-language", &[Server::new("web", 2)], &services).await?;
        for (name, _, path) in cases {
            stage.reaches(name, "web").await?;
            open(&stage, name, path).await?;
        }
        stage.strike().await
    });
}
