//! Retries: where repeating does no harm, not elsewhere, and never so often that it does.

use weft_tests::cluster;
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::traffic::get;
use weft_tests::workloads::Server;

#[test]
fn idempotent_requests_get_past_backends_that_hang_up_and_others_are_sent_once() {
    cluster::side_by_side(|cluster| async move {
        let services = [
            UserService::http("default", "web"),
            UserService::http("three", "web").ask("retry-attempts", "3"),
            UserService::http("once", "web").ask("retry-attempts", "1"),
        ];
        let stage = Stage::new(&cluster, "e2e-retries", &[Server::new("web", 2)], &services).await?;
        let idempotent = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];
        for service in ["default", "three", "once"] {
            stage.reaches(service, "web").await?;
            for form in [&[][..], &["--h2c"]] {
                for method in idempotent.into_iter().chain(["POST", "PATCH"]) {
                    // Each backend hangs up on the first request with this key that it sees.
                    let key = format!("{service}-{method}-{}", form.concat());
                    let path = format!("/?close&first=1&key={key}");
                    let mut args = [&["--method", method], form].concat();
                    if matches!(method, "PUT" | "POST" | "PATCH") {
                        args.extend(["--body", "1000"]);
                    }
                    let answer = stage.get(service, &path, &args).await?;
                    let seen = stage.seen("web", &key).await?;
                    if service != "once" && idempotent.contains(&method) {
                        // The same backend may be met again only after the other.
                        assert_eq!((answer.status, seen), (Some(200), 3), "{key}: {answer:?}");
                    } else {
                        assert_eq!((answer.status, seen), (Some(502), 1), "{key}: {answer:?}");
                        assert!(answer.pod().is_none(), "{key}: {answer:?}");
                    }
                }
            }
        }
        stage.strike().await
    });
}

#[test]
fn a_stream_that_is_reset_counts_as_a_connection_that_broke() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("h2c", "web").ask("retry-attempts", "3").ask("scheme", "h2c")];
        let stage = Stage::new(&cluster, "e2e-retries-h2c", &[Server::new("web", 2)], &services).await?;
        stage.reaches("h2c", "web").await?;
        for (method, status, times) in [("GET", 200, 3), ("POST", 502, 1)] {
            let answer =
                stage.get("h2c", &format!("/?close&first=1&key={method}"), &["--method", method]).await?;
            let seen = stage.seen("web", method).await?;
            assert_eq!((answer.status, seen), (Some(status), times), "{method}: {answer:?}");
        }
        stage.strike().await
    });
}

#[test]
fn an_answer_is_an_answer_whatever_its_status() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web").ask("retry-attempts", "3")];
        let stage = Stage::new(&cluster, "e2e-no-retries", &[Server::new("web", 2)], &services).await?;
        stage.reaches("web", "web").await?;
        for status in [429, 500, 502, 503, 504] {
            let key = format!("status-{status}");
            let answer = stage.get("web", &format!("/?status={status}&key={key}"), &[]).await?;
            assert_eq!((answer.status, stage.seen("web", &key).await?), (Some(status), 1), "{answer:?}");
            assert!(answer.pod().is_some(), "not the backend's own answer: {answer:?}");
        }
        // Nor is one repeated that has begun.
        let answer = stage.get("web", "/?size=100000&cut=50000&key=begun", &[]).await?;
        assert!(answer.error.is_some(), "{answer:?}");
        assert_eq!(stage.seen("web", "begun").await?, 1);
        stage.strike().await
    });
}

#[test]
fn a_service_in_trouble_is_not_drowned_in_retries() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web").ask("retry-attempts", "3")];
        let stage = Stage::new(&cluster, "e2e-retry-budget", &[Server::new("web", 2)], &services).await?;
        stage.reaches("web", "web").await?;
        let began = std::time::Instant::now();
        let url = stage.url("web", "/?close&key=drown");
        let mut asked = 0_u64;
        for _ in 0..3 {
            let answers = get(&cluster, stage.client(), &url, &["-n", "500"]).await?;
            assert!(answers.iter().all(|answer| answer.status == Some(502)), "{:?}", answers.last());
            asked += answers.len() as u64;
        }
        let seen = stage.seen("web", "drown").await?;
        // One in five, what was saved up in quiet times (100), and 10 for each second.
        let allowed = asked + asked / 5 + 100 + 10 * (began.elapsed().as_secs() + 1);
        eprintln!("  {asked} requests became {seen}, {allowed} allowed");
        assert!(seen > asked, "none was repeated: the budget was not needed");
        assert!(seen <= allowed, "{asked} requests became {seen}, only {allowed} are allowed");
        stage.get("web", "/", &[]).await?.assert_from("web");
        stage.strike().await
    });
}
