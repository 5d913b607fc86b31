//! Bodies flow: however large or slow they are, the proxy holds little of them, and what breaks off is not made to look whole.

use std::time::Duration;

use weft_tests::cluster;
use weft_tests::mesh;
use weft_tests::node::Embedded;
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::workloads::Server;

const SIZE: &str = "67108864";
/// By so much may the proxy's memory grow while bodies of this size are under way with a side that takes its time.
const GROWTH: u64 = 16 << 20;

#[test]
fn sixty_four_mebibytes_pass_both_ways_and_the_proxys_memory_stays_flat() {
    cluster::test(|cluster| async move {
        let services =
            [UserService::http("web", "web"), UserService::http("h2c", "web").ask("scheme", "h2c")];
        let stage = Stage::new(&cluster, "e2e-large", &[Server::new("web", 1)], &services).await?;
        let proxy = mesh::proxy_on(&cluster, &cluster.nodes[0]).await?;
        let embedded = Embedded::needed_for("that the proxy's memory stays flat under large bodies");
        let process = match &embedded {
            Some(embedded) => Some((embedded, embedded.process_of(&proxy).await?)),
            None => None,
        };
        let mut digest = None;
        for (service, form) in [("web", &[][..]), ("web", &["--h2c"]), ("h2c", &["--h2c"])] {
            stage.reaches(service, "web").await?;
            // Once without looking: buffers that are kept for good have then been made.
            stage.get(service, &format!("/?size={SIZE}"), &[&["--timeout", "60000"], form].concat()).await?;
            let before = match &process {
                Some((embedded, process)) => embedded.watch_memory(process).await?,
                None => 0,
            };
            // Four seconds each: one side is fast, the other reads 16 MiB a second.
            let slow = [&["--timeout", "60000", "--read-rate", "16777216"], form].concat();
            let down = stage.get(service, &format!("/?size={SIZE}"), &slow).await?;
            assert_eq!((down.status, down.bytes, &down.error), (Some(200), 64 << 20, &None), "{down:?}");
            let up = [&["--timeout", "60000", "--method", "POST", "--body", SIZE], form].concat();
            let up = stage.get(service, "/?read-rate=16777216", &up).await?;
            up.assert_from("web");
            assert_eq!(up.told("received_digest"), down.digest, "{service} {form:?}");
            assert_eq!(digest.get_or_insert(down.digest.clone()), &down.digest, "{service} {form:?}");
            if let Some((embedded, process)) = &process {
                let most = embedded.most_memory(process).await?;
                eprintln!("  {service} {form:?}: {} KiB before, {} KiB at most", before >> 10, most >> 10);
                assert!(most <= before + GROWTH, "the proxy's memory went from {before} to {most} bytes");
            }
        }
        stage.strike().await
    });
}

#[test]
fn slow_bodies_arrive_as_slowly_as_they_are_sent() {
    cluster::test(|cluster| async move {
        let services = [UserService::http("web", "web")];
        let stage = Stage::new(&cluster, "e2e-slow", &[Server::new("web", 1)], &services).await?;
        stage.reaches("web", "web").await?;
        for form in [&[][..], &["--h2c"]] {
            // Three seconds each; whoever gathers a body before it is passed on doubles that.
            let up = [&["--method", "PUT", "--body", "3000", "--rate", "1000"], form].concat();
            let up = stage.get("web", "/", &up).await?;
            up.assert_from("web");
            assert_eq!(up.body["received_bytes"], 3000, "{up:?}");
            assert!((2800.0..4500.0).contains(&up.ms), "{up:?}");
            let down = stage.get("web", "/?size=3000&rate=1000", form).await?;
            assert_eq!((down.bytes, &down.error), (3000, &None), "{down:?}");
            assert!((2800.0..4500.0).contains(&down.ms), "{down:?}");
            assert_eq!(up.told("received_digest"), down.digest);
            // The slow side decides.
            let both = [&["--method", "PUT", "--body", "3000"], form].concat();
            let both = stage.get("web", "/?read-rate=1000", &both).await?;
            assert_eq!(both.body["received_bytes"], 3000, "{both:?}");
        }
        stage.strike().await
    });
}

#[test]
fn a_body_that_breaks_off_does_not_look_whole() {
    cluster::test(|cluster| async move {
        let services =
            [UserService::http("web", "web"), UserService::http("h2c", "web").ask("scheme", "h2c")];
        let stage = Stage::new(&cluster, "e2e-cut", &[Server::new("web", 2)], &services).await?;
        for service in ["web", "h2c"] {
            stage.reaches(service, "web").await?;
            for path in ["/?size=1000000&cut=300000", "/?size=1000000&cut=300000&chunked"] {
                for form in [&[][..], &["--h2c"]] {
                    let answer = stage.get(service, path, form).await?;
                    assert_eq!(answer.status, Some(200), "{service} {path} {form:?}: {answer:?}");
                    assert!(answer.error.is_some(), "{service} {path} {form:?} looks whole: {answer:?}");
                    assert!(answer.bytes <= 300_000, "{answer:?}");
                    let soon = Duration::from_secs(3).as_secs_f64() * 1000.0;
                    assert!(answer.ms < soon, "the client was kept waiting: {answer:?}");
                }
            }
            stage.reaches(service, "web").await?;
        }
        stage.strike().await
    });
}
