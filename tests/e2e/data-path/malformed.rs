//! Requests no decent client sends: refused at the proxy, and nobody else suffers.

use weft_tests::cluster;
use weft_tests::protocols::{Running, raw};
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::traffic::{Load, Mode};
use weft_tests::wait::seconds;
use weft_tests::workloads::Server;

/// Name, bytes with `KEY` where the backend counts, and whether the head is in order, so that the backend may have been asked.
const REFUSED: [(&str, &str, bool); 16] = [
    (
        "two lengths",
        r"POST /?KEY HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        false,
    ),
    ("a list of lengths", r"POST /?KEY HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nhello!", false),
    ("a negative length", r"POST /?KEY HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello", false),
    ("a signed length", r"POST /?KEY HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", false),
    ("a length with letters", r"POST /?KEY HTTP/1.1\r\nHost: x\r\nContent-Length: 5x\r\n\r\nhello", false),
    (
        "an unknown coding",
        r"POST /?KEY HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        false,
    ),
    (
        "chunked not last",
        r"POST /?KEY HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        false,
    ),
    ("space before the colon", r"GET /?KEY HTTP/1.1\r\nHost : x\r\n\r\n", false),
    ("a folded header", r"GET /?KEY HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n", false),
    ("NUL in a value", r"GET /?KEY HTTP/1.1\r\nHost: x\r\nX-A: b\x00c\r\n\r\n", false),
    ("a space in a name", r"GET /?KEY HTTP/1.1\r\nHost: x\r\nX A: b\r\n\r\n", false),
    ("an unknown version", r"GET /?KEY HTTP/9.9\r\nHost: x\r\n\r\n", false),
    ("no version but more lines", r"GET /?KEY\r\nHost: x\r\n\r\n", false),
    ("a TLS handshake", r"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", false),
    (
        "a chunk without a size",
        r"POST /?KEY HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        true,
    ),
    (
        "a chunk too large to be",
        r"POST /?KEY HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff0\r\nhello\r\n0\r\n\r\n",
        true,
    ),
];

#[test]
fn what_is_not_http_is_refused_and_does_not_reach_the_backend() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web")];
        let stage = Stage::new(&cluster, "e2e-malformed", &[Server::new("web", 1)], &services).await?;
        stage.reaches("web", "web").await?;
        let url = stage.url("web", "/");
        // The way of sending is not what is refused.
        let good = raw(&cluster, stage.client(), &url, r"GET /?key=good HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        assert_eq!((good.statuses(), stage.seen("web", "good").await?), (vec![200], 1), "{good:?}");

        for (number, (what, bytes, may_be_asked)) in REFUSED.into_iter().enumerate() {
            let key = format!("case-{number}");
            let bytes = bytes.replace("KEY", &format!("key={key}"));
            let answer = raw(&cluster, stage.client(), &url, &bytes).await?;
            let statuses = answer.statuses();
            assert!(
                statuses.iter().all(|status| (400..600).contains(status)),
                "{what} was served: {answer:?}"
            );
            let ended = answer.ended == "closed" || answer.ended.starts_with("broken");
            assert!(ended, "{what}: the connection is still in use: {answer:?}");
            let seen = stage.seen("web", &key).await?;
            assert!(may_be_asked || seen == 0, "{what} reached the backend: {answer:?}");
            stage.get("web", "/", &[]).await?.assert_from("web");
        }
        stage.strike().await
    });
}

#[test]
fn no_request_can_be_hidden_in_another() {
    cluster::side_by_side(|cluster| async move {
        let services =
            [UserService::http("web", "web"), UserService::http("h2c", "web").ask("scheme", "h2c")];
        let stage = Stage::new(&cluster, "e2e-smuggling", &[Server::new("web", 1)], &services).await?;
        // 38 bytes, 26 in hexadecimal; with a last chunk before it 43.
        let hidden = r"GET /?key=hidden HTTP/1.1\r\nHost: x\r\n\r\n";
        let cases = [
            // Whoever goes by the length sees one request, whoever goes by the chunks two; and the other way round. A server
            // may go by the chunks, but must close the connection then (RFC 9112, section 6.1).
            format!(
                r"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 43\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            format!(
                r"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n26\r\n{hidden}\r\n0\r\n\r\n"
            ),
            format!(
                r"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 43\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            format!(
                r"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 43\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            format!(
                r"POST / HTTP/1.0\r\nHost: x\r\nContent-Length: 43\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            format!(
                r"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 43\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            format!(
                r"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 38\r\n\r\n{hidden}"
            ),
        ];
        for service in ["web", "h2c"] {
            stage.reaches(service, "web").await?;
            for bytes in &cases {
                let answer = raw(&cluster, stage.client(), &stage.url(service, "/"), bytes).await?;
                // Of one or of two requests there may be one answer, but never one to what was hidden in a body.
                let seen = stage.seen("web", "hidden").await?;
                assert_eq!(seen, 0, "{service}: {bytes}: the hidden request was served: {answer:?}");
                stage.get(service, "/", &[]).await?.assert_from("web");
            }
        }
        stage.strike().await
    });
}

#[test]
fn requests_that_never_end_starve_nobody() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web")];
        let stage = Stage::new(&cluster, "e2e-slow-headers", &[Server::new("web", 2)], &services).await?;
        stage.reaches("web", "web").await?;
        let url = stage.url("web", "/");
        let args = ["slow-headers", &url, "--connections", "500", "--every-ms", "500", "--until-stdin"];
        let attack = Running::start(&cluster, stage.client(), &args, "opened 500").await?;
        let load = Load::start(&cluster, stage.client(), &url, "web", 100, Mode::Both).await?;
        load.let_run(seconds(8)).await?;
        for report in load.stop_without_failures(700).await? {
            println!("  the others meanwhile: p99 {} ms", report.p99_ms);
        }
        let report: serde_json::Value = attack.stop().await?;
        assert_eq!((&report["opened"], &report["refused"]), (&500.into(), &0.into()), "{report}");
        eprintln!("  {report}");
        stage.get("web", "/", &[]).await?.assert_from("web");
        stage.strike().await
    });
}
