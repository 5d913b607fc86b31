//! HTTP in all its forms passes through: versions, methods, HEAD, 100-continue, chunks; CONNECT does not.

use weft_tests::cluster;
use weft_tests::protocols::raw;
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::workloads::Server;

#[test]
fn every_version_reaches_backends_of_either_version() {
    cluster::side_by_side(|cluster| async move {
        let services =
            [UserService::http("plain", "web"), UserService::http("h2c", "web").ask("scheme", "h2c")];
        let stage = Stage::new(&cluster, "e2e-http", &[Server::new("web", 2)], &services).await?;
        for (service, spoken) in [("plain", "HTTP/1.1"), ("h2c", "HTTP/2.0")] {
            stage.reaches(service, "web").await?;
            for (form, version) in
                [(&[][..], "HTTP/1.1"), (&["--http10"], "HTTP/1.0"), (&["--h2c"], "HTTP/2.0")]
            {
                for answer in stage.get_all(service, "/a?b=c", &[&["-n", "4"], form].concat()).await? {
                    answer.assert_from("web");
                    assert!(answer.node().is_some(), "{service} {form:?} bypassed the mesh");
                    assert_eq!(
                        answer.told("version"),
                        spoken,
                        "{service} {form:?}: the backend was asked in"
                    );
                    // HTTP/1.0 may be answered as HTTP/1.1 (RFC 9110, section 6.2), h2 only in kind.
                    let kept = answer.version == version || version == "HTTP/1.0";
                    assert!(kept, "{service} {form:?} was answered in {}", answer.version);
                    assert_eq!(answer.told("path"), "/a?b=c");
                }
            }
        }
        stage.strike().await
    });
}

#[test]
fn any_method_passes_and_head_has_no_body() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web")];
        let stage = Stage::new(&cluster, "e2e-methods", &[Server::new("web", 1)], &services).await?;
        stage.reaches("web", "web").await?;
        for form in [&[][..], &["--h2c"]] {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE", "M-SEARCH"] {
                let answer = stage.get("web", "/", &[&["--method", method], form].concat()).await?;
                answer.assert_from("web");
                assert_eq!(answer.told("method"), method);
            }
            let head = stage.get("web", "/", &[&["--method", "HEAD"], form].concat()).await?;
            assert_eq!((head.status, head.bytes), (Some(200), 0), "{head:?}");
            assert!(head.pod().is_some(), "{head:?}");
            let length: u64 = head.headers["content-length"].parse()?;
            assert!(length > 100, "the length of what GET would have had, not {length}");
            // And the connection is still in step.
            let after = stage.get_all("web", "/", &[&["--method", "HEAD", "-n", "3"], form].concat()).await?;
            assert!(after.iter().all(|answer| answer.status == Some(200)), "{after:?}");
        }
        stage.strike().await
    });
}

#[test]
fn connect_makes_no_tunnel() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web")];
        let stage = Stage::new(&cluster, "e2e-connect", &[Server::new("web", 1)], &services).await?;
        stage.reaches("web", "web").await?;
        for target in ["web:80", "10.96.0.1:443", "localhost:9901"] {
            let bytes = format!(r"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
            let answer = raw(&cluster, stage.client(), &stage.url("web", "/"), &bytes).await?;
            let statuses = answer.statuses();
            let refused = statuses.len() == 1 && (400..600).contains(&statuses[0]);
            assert!(refused, "CONNECT {target} was not refused: {answer:?}");
        }
        stage.get("web", "/", &[]).await?.assert_from("web");
        stage.strike().await
    });
}

#[test]
fn leave_to_send_a_body_comes_from_the_backend() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web")];
        let stage = Stage::new(&cluster, "e2e-continue", &[Server::new("web", 1)], &services).await?;
        stage.reaches("web", "web").await?;
        let args = ["--method", "POST", "--body", "100000", "--expect-continue"];
        let answer = stage.get("web", "/", &args).await?;
        answer.assert_from("web");
        assert_eq!(answer.informational, [100], "{answer:?}");
        assert_eq!(answer.body["received_bytes"], 100_000);

        // A backend that says no at once is heard before the body is sent.
        let refused = stage.get("web", "/?unread&status=413", &args).await?;
        assert_eq!((refused.status, &*refused.informational), (Some(413), &[][..]), "{refused:?}");
        assert!(refused.ms < 900.0, "the client waited in vain for leave: {refused:?}");
        stage.reaches("web", "web").await?;
        stage.strike().await
    });
}

#[test]
fn chunked_bodies_pass_whole_both_ways() {
    cluster::side_by_side(|cluster| async move {
        let services =
            [UserService::http("web", "web"), UserService::http("h2c", "web").ask("scheme", "h2c")];
        let stage = Stage::new(&cluster, "e2e-chunked", &[Server::new("web", 1)], &services).await?;
        for service in ["web", "h2c"] {
            stage.reaches(service, "web").await?;
            for form in [&[][..], &["--h2c"]] {
                let up = [&["--method", "POST", "--body", "1000003", "--chunked"], form].concat();
                let up = stage.get(service, "/", &up).await?;
                up.assert_from("web");
                assert_eq!(up.body["received_bytes"], 1_000_003, "{service} {form:?}: {up:?}");
                let down = stage.get(service, "/?size=1000003&chunked", form).await?;
                assert_eq!((down.status, down.bytes, &down.error), (Some(200), 1_000_003, &None), "{down:?}");
                assert!(!down.headers.contains_key("content-length"), "{down:?}");
                // Both are the same bytes.
                assert_eq!(up.told("received_digest"), down.digest, "{service} {form:?}");
                let empty = stage.get(service, "/?size=0&chunked", form).await?;
                assert_eq!((empty.status, empty.bytes, &empty.error), (Some(200), 0, &None), "{empty:?}");
            }
        }
        stage.strike().await
    });
}
