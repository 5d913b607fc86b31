//! Time-outs: of a request as a whole, of a backend's silence, of a connection. Who waits longer than asked for is told.

use weft_tests::cluster;
use weft_tests::node::Embedded;
use weft_tests::services::{self, UserService};
use weft_tests::stage::Stage;
use weft_tests::traffic::{get, get_until};
use weft_tests::wait::seconds;
use weft_tests::workloads::{Server, address_of, pods};

#[test]
fn a_request_has_its_time_and_no_more() {
    cluster::side_by_side(|cluster| async move {
        let services = [
            UserService::http("web", "web").ask("request-timeout", "1s"),
            UserService::http("h2c", "web").ask("request-timeout", "1s").ask("scheme", "h2c"),
            UserService::http("patient", "web"),
        ];
        let stage = Stage::new(&cluster, "e2e-request-timeout", &[Server::new("web", 2)], &services).await?;
        stage.reaches("patient", "web").await?;
        for service in ["web", "h2c"] {
            stage.reaches(service, "web").await?;
            for form in [&[][..], &["--h2c"]] {
                let answer = stage.get(service, "/?delay=3000", form).await?;
                assert_eq!(
                    (answer.status, answer.pod()),
                    (Some(504), None),
                    "{service} {form:?}: {answer:?}"
                );
                assert!((900.0..2900.0).contains(&answer.ms), "{service} {form:?}: {answer:?}");
                assert!(answer.text().contains(&format!("{}/{service}", stage.ns)), "{answer:?}");
                stage.get(service, "/?delay=300", form).await?.assert_from("web");
                // An answer that has begun cannot become a 504 any more: it breaks off.
                let slow = stage.get(service, "/?size=40000&rate=10000", form).await?;
                assert_eq!(slow.status, Some(200), "{service} {form:?}: {slow:?}");
                assert!(slow.error.is_some() && slow.bytes < 40_000, "{service} {form:?}: {slow:?}");
                // Whole it would take four seconds.
                assert!((900.0..3900.0).contains(&slow.ms), "{service} {form:?}: {slow:?}");
            }
            // A request's own body counts as well.
            let args = ["--method", "POST", "--body", "40000", "--rate", "10000"];
            let answer = stage.get(service, "/", &args).await?;
            assert!(answer.status.is_none_or(|status| status == 504), "{service}: {answer:?}");
            assert!(answer.ms < 3900.0, "{service}: {answer:?}");
        }
        // Without the annotation there is no such limit.
        stage.get("patient", "/?delay=2500", &[]).await?.assert_from("web");
        stage.strike().await
    });
}

#[test]
fn silence_ends_a_request_and_slowness_does_not() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web").ask("idle-timeout", "700ms")];
        let stage = Stage::new(&cluster, "e2e-idle-timeout", &[Server::new("web", 1)], &services).await?;
        stage.reaches("web", "web").await?;
        for form in [&[][..], &["--h2c"]] {
            let answer = stage.get("web", "/?delay=3000", form).await?;
            assert_eq!((answer.status, answer.pod()), (Some(504), None), "{form:?}: {answer:?}");
            assert!((600.0..2900.0).contains(&answer.ms), "{form:?}: {answer:?}");
            let slow = stage.get("web", "/?size=3000&rate=1000", form).await?;
            assert_eq!(
                (slow.status, slow.bytes, &slow.error),
                (Some(200), 3000, &None),
                "{form:?}: {slow:?}"
            );
        }
        // Taken away it holds no longer, without a restart of anything.
        services::ask(&cluster, &stage.ns, "web", "idle-timeout", None).await?;
        let url = stage.url("web", "/?delay=1500");
        get_until(&cluster, stage.client(), &url, "200", seconds(20), |answer| answer.status == Some(200))
            .await?;
        stage.strike().await
    });
}

#[test]
fn a_backend_that_cannot_be_reached_costs_its_connect_timeout() {
    cluster::side_by_side(|cluster| async move {
        let Some(embedded) = Embedded::needed_for("that connecting has a time-out") else { return Ok(()) };
        let servers = [Server::new("web", 1), Server::new("pair", 2)];
        let stage = Stage::new(&cluster, "e2e-connect-timeout", &servers, &[]).await?;
        let node = &cluster.nodes[0];
        let lost = [pods(&cluster, &stage.ns, "web").await?, pods(&cluster, &stage.ns, "pair").await?]
            .map(|mut pods| pods.remove(0));
        let mut addresses = Vec::new();
        for pod in &lost {
            addresses.push(address_of(&cluster, &stage.ns, pod).await?);
        }
        let lost_of_pair = &lost[1];
        // The Services come only then, so that no connection was made before.
        let with_lost = async {
            for service in [
                UserService::http("web", "web").ask("connect-timeout", "300ms").ask("retry-attempts", "1"),
                UserService::http("pair", "pair").ask("connect-timeout", "300ms"),
            ] {
                service.create(&cluster, &stage.ns).await?;
            }
            let url = stage.url("web", "/");
            get_until(&cluster, stage.client(), &url, "504", seconds(30), |answer| {
                answer.status == Some(504)
            })
            .await?;
            let answer = stage.get("web", "/", &[]).await?;
            assert!((250.0..1500.0).contains(&answer.ms), "{answer:?}");
            // With another backend at hand nobody gets an error.
            let url = stage.url("pair", "/");
            get_until(&cluster, stage.client(), &url, "200", seconds(30), |answer| {
                answer.status == Some(200)
            })
            .await?;
            let answers = get(&cluster, stage.client(), &url, &["-n", "30"]).await?;
            for answer in &answers {
                answer.assert_from("pair");
                assert!(answer.told("pod") != lost_of_pair && answer.ms < 2000.0, "{answer:?}");
            }
            Ok(())
        };
        embedded.while_dropping(node, &addresses, Box::pin(with_lost)).await?;
        stage.strike().await
    });
}
