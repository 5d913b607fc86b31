//! The rate limit: each caller has its own bucket; who empties it gets 429 and is told when to come again.

use std::time::Instant;

use futures::future::join_all;
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::traffic::{get, get_until};
use weft_tests::wait::seconds;
use weft_tests::workloads::{Server, client};
use weft_tests::{Result, cluster};

#[test]
fn a_caller_beyond_its_rate_gets_429_and_others_do_not_notice() {
    cluster::side_by_side(|cluster| async move {
        let services = [
            UserService::http("web", "web").ask("ratelimit-average", "5").ask("ratelimit-burst", "20"),
            UserService::http("free", "web"),
        ];
        let stage = Stage::new(&cluster, "e2e-rate-limit", &[Server::new("web", 2)], &services).await?;
        stage.reaches("free", "web").await?;
        stage.reaches("web", "web").await?;
        let other = client(&cluster, &stage.ns, "other", &cluster.nodes[0]).await?;
        let url = stage.url("web", "/?key=limited");

        for form in [&[][..], &["--new-connection"], &["--h2c"]] {
            let before = stage.seen("web", "limited").await?;
            let began = Instant::now();
            let answers = stage.get_all("web", "/?key=limited", &[&["-n", "200"], form].concat()).await?;
            let took = began.elapsed().as_secs_f64();
            let served = answers.iter().filter(|answer| answer.status == Some(200)).count();
            let most = 20.0 + 5.0 * (took + 1.0);
            eprintln!("  {form:?}: {served} of 200 served in {took:.1} s");
            #[allow(clippy::cast_precision_loss, reason = "small")]
            let few_enough = served as f64 <= most;
            assert!(few_enough, "{form:?}: {served} of 200 in {took:.1} s");
            // The first round met a bucket that was full but for a few.
            assert!(!form.is_empty() || served >= 15, "{served} of 200, where 20 may come at once");
            for answer in answers.iter().filter(|answer| answer.status != Some(200)) {
                assert_eq!((answer.status, answer.pod()), (Some(429), None), "{form:?}: {answer:?}");
                let again: u64 = answer.headers.get("retry-after").ok_or("no Retry-After")?.parse()?;
                assert!((1..=2).contains(&again), "{form:?}: {answer:?}");
            }
            // Only those served cost the backends anything.
            let asked = stage.seen("web", "limited").await? - before;
            assert_eq!(asked, served as u64, "{form:?}");

            // Another caller, through the same proxy, while the first is out of tokens.
            for answer in get(&cluster, &other, &url, &["-n", "5"]).await? {
                answer.assert_from("web");
            }
            // And the same caller to another Service.
            for answer in stage.get_all("free", "/", &["-n", "50"]).await? {
                answer.assert_from("web");
            }
            // Who waits is served again.
            get_until(&cluster, stage.client(), &url, "200", seconds(5), |answer| answer.status == Some(200))
                .await?;
        }
        stage.strike().await
    });
}

#[test]
fn a_forged_address_opens_no_second_bucket() {
    cluster::side_by_side(|cluster| async move {
        let services =
            [UserService::http("web", "web").ask("ratelimit-average", "1").ask("ratelimit-burst", "3")];
        let stage = Stage::new(&cluster, "e2e-rate-forged", &[Server::new("web", 1)], &services).await?;
        let url = stage.url("web", "/");
        get_until(&cluster, stage.client(), &url, "200", seconds(30), |answer| answer.status == Some(200))
            .await?;
        stage.get_all("web", "/", &["-n", "20"]).await?;
        let began = Instant::now();
        let at_once = (0..10).map(async |number| {
            let forged = format!("x-forwarded-for: 10.9.8.{number}");
            stage.get("web", "/", &["--header", &forged]).await
        });
        let answers = join_all(at_once).await.into_iter().collect::<Result<Vec<_>>>()?;
        let took = began.elapsed().as_secs_f64();
        let served = answers.iter().filter(|answer| answer.status == Some(200)).count();
        // A token comes each second.
        #[allow(clippy::cast_precision_loss, reason = "small")]
        let few_enough = served as f64 <= took + 1.0;
        assert!(few_enough, "{served} of 10 were served under made-up addresses in {took:.1} s");
        stage.strike().await
    });
}
