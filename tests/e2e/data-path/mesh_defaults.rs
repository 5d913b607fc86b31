//! What the MeshConfig says holds for every Service that asks for nothing else.

use serde_json::json;
use weft_tests::protocols::tcp;
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::traffic::get_until;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::Server;
use weft_tests::{cluster, mesh};

#[test]
fn defaults_hold_where_a_service_asks_for_nothing_else() {
    cluster::test(|cluster| async move {
        let services = [
            UserService::http("silent", "web"),
            UserService::http("asks", "web")
                .ask("request-timeout", "10s")
                .ask("ratelimit-average", "1000")
                .ask("ratelimit-burst", "1000")
                .ask("retry-attempts", "3")
                .ask("circuit-breaker-expression", "NetworkErrorRatio() > 0.99"),
        ];
        let stage = Stage::new(&cluster, "e2e-defaults", &[Server::new("web", 2)], &services).await?;
        for service in ["silent", "asks"] {
            stage.reaches(service, "web").await?;
            stage.get(service, "/?delay=1500", &[]).await?.assert_from("web");
        }
        let defaults = json!({
            "timeouts": { "request": "1s" },
            "rateLimit": { "average": 10, "burst": 20 },
            "retry": { "attempts": 1 },
        });
        mesh::while_configured(&cluster, json!({ "defaults": defaults }), async || {
            let url = stage.url("silent", "/?delay=3000");
            get_until(&cluster, stage.client(), &url, "504", seconds(20), |answer| {
                answer.status == Some(504)
            })
            .await?;
            let answers = stage.get_all("silent", "/", &["-n", "60"]).await?;
            let refused = answers.iter().filter(|answer| answer.status == Some(429)).count();
            assert!(refused > 10, "{refused} of 60 were refused");
            let url = stage.url("silent", "/?close&first=1&key=silent");
            get_until(&cluster, stage.client(), &url, "502", seconds(10), |answer| {
                answer.status == Some(502)
            })
            .await?;

            stage.get("asks", "/?delay=1500", &[]).await?.assert_from("web");
            for answer in stage.get_all("asks", "/", &["-n", "60"]).await? {
                answer.assert_from("web");
            }
            let answer = stage.get("asks", "/?close&first=1&key=asks", &[]).await?;
            assert_eq!((answer.status, stage.seen("web", "asks").await?), (Some(200), 3), "{answer:?}");
            Ok(())
        })
        .await?;
        // With the defaults gone it is as before.
        let url = stage.url("silent", "/?delay=1500");
        get_until(&cluster, stage.client(), &url, "200", seconds(20), |answer| answer.status == Some(200))
            .await?;
        for answer in stage.get_all("silent", "/", &["-n", "60"]).await? {
            answer.assert_from("web");
        }

        let breaker =
            json!({ "circuitBreaker": { "expression": "ResponseCodeRatio(500, 600, 0, 600) > 0.5" } });
        mesh::while_configured(&cluster, json!({ "defaults": breaker }), async || {
            wait::until("the breaker of every Service opens", seconds(20), async || {
                let last =
                    stage.get_all("silent", "/?status=500", &["-n", "20"]).await?.pop().ok_or("no answer")?;
                let refused = last.status == Some(503) && last.pod().is_none();
                Ok(Seen::when(refused, (), || format!("{last:?}")))
            })
            .await?;
            for answer in stage.get_all("asks", "/?status=500", &["-n", "40"]).await? {
                assert_eq!(answer.status, Some(500), "its own breaker is another: {answer:?}");
            }
            Ok(())
        })
        .await?;
        stage.strike().await
    });
}

#[test]
fn the_default_traffic_type_is_that_of_services_without_one() {
    cluster::test(|cluster| async move {
        let services = [
            UserService::new("silent", "raw").tcp("echo", 9000, 9000),
            UserService::http("asks", "web").ask("traffic-type", "http"),
        ];
        let servers = [Server::new("web", 1), Server::tcp("raw", 1)];
        let stage = Stage::new(&cluster, "e2e-default-type", &servers, &services).await?;
        stage.reaches("asks", "web").await?;
        mesh::while_configured(&cluster, json!({ "defaultTrafficType": "tcp" }), async || {
            let to = format!("{}:9000", stage.host("silent"));
            wait::until("the server speaks first", seconds(30), async || {
                let report =
                    tcp(&cluster, stage.client(), &to, &["--mode", "echo", "--timeout", "2000"]).await?;
                Ok(Seen::when(report.ok == 1, (), || format!("{report:?}")))
            })
            .await?;
            let answer = stage.get("asks", "/", &[]).await?;
            answer.assert_from("web");
            assert!(answer.node().is_some(), "no longer carried as HTTP: {answer:?}");
            Ok(())
        })
        .await?;
        stage.strike().await
    });
}
