//! Who called, and how, is told to the backend by the proxy and by nobody else; what concerns one connection only stays on it.

use std::collections::BTreeSet;

use serde_json::Value;
use weft_tests::Result;
use weft_tests::cluster;
use weft_tests::forgery::{OURS, spellings};
use weft_tests::protocols::raw;
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::workloads::{Server, address_of};

async fn staged(cluster: &cluster::Cluster, ns: &str) -> Result<(Stage, String)> {
    let service = UserService::http("web", "web").tcp("second", 8000, "http");
    let stage = Stage::new(cluster, ns, &[Server::new("web", 1)], &[service]).await?;
    stage.reaches("web", "web").await?;
    let caller = address_of(cluster, &stage.ns, &stage.client().name).await?;
    Ok((stage, caller))
}

#[test]
fn the_backend_is_told_who_called_and_how() {
    cluster::side_by_side(|cluster| async move {
        let (stage, caller) = staged(&cluster, "e2e-forwarded").await?;
        for form in [&[][..], &["--http10"], &["--h2c"]] {
            for (host, port) in [(stage.host("web"), "80"), (format!("{}:8000", stage.host("web")), "8000")] {
                let url = format!("http://{host}/");
                let answers = weft_tests::traffic::get(&cluster, stage.client(), &url, form).await?;
                let answer = &answers[0];
                answer.assert_from("web");
                let told = |name: &str| answer.received(name).unwrap_or("nothing");
                assert_eq!(told("x-forwarded-for"), caller, "{form:?}");
                assert_eq!(told("x-real-ip"), caller, "{form:?}");
                assert_eq!(told("x-forwarded-proto"), "http", "{form:?}");
                assert_eq!(told("x-forwarded-host"), host, "{form:?}");
                assert_eq!(told("x-forwarded-port"), port, "{form:?}");
                assert!(
                    answer.received("x-forwarded-server").is_some_and(|name| !name.is_empty()),
                    "{answer:?}"
                );
                let parts: BTreeSet<_> = told("forwarded").split(';').map(str::to_lowercase).collect();
                assert!(parts.contains(&format!("for={caller}")), "{form:?}: {parts:?}");
                assert!(parts.contains("proto=http"), "{form:?}: {parts:?}");
                let quoted = [format!("host={host}"), format!("host=\"{host}\"")];
                assert!(quoted.iter().any(|host| parts.contains(host)), "{form:?}: {parts:?}");
            }
        }
        stage.strike().await
    });
}

/// What the backend received that the client made up, or was told otherwise than it is.
fn forgeries(told: &Value, caller: &str) -> Vec<String> {
    let headers = told["headers"].as_object().cloned().unwrap_or_default();
    let mut found: Vec<_> = headers
        .iter()
        .filter(|(_, value)| value.as_str().is_some_and(|value| value.contains("forged.example")))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    for name in ["x-forwarded-for", "x-real-ip"] {
        if headers.get(name).and_then(Value::as_str) != Some(caller) {
            found.push(format!("{name}: {:?} instead of {caller}", headers.get(name)));
        }
    }
    found
}

#[test]
fn no_spelling_of_a_forged_header_arrives() {
    cluster::side_by_side(|cluster| async move {
        let (stage, caller) = staged(&cluster, "e2e-forged").await?;
        let url = stage.url("web", "/");
        let mut tried = 0;
        for name in OURS {
            let all = spellings(name);
            // Each alone, and all of one name together.
            let mut attempts: Vec<Vec<&String>> = all.iter().map(|one| vec![one]).collect();
            attempts.push(all.iter().collect());
            for attempt in attempts {
                let lines: String =
                    attempt.iter().map(|name| format!(r"{name}: forged.example\r\n")).collect();
                let bytes = format!(r"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n{lines}\r\n");
                let answer = raw(&cluster, stage.client(), &url, &bytes).await?;
                assert_eq!(answer.statuses(), [200], "{attempt:?}: {answer:?}");
                let found = forgeries(&answer.told()?, &caller);
                assert!(found.is_empty(), "{attempt:?} got through: {found:?}");
            }
            tried += all.len();
        }
        assert!(tried >= 60, "only {tried} spellings");

        // Over h2 names have one case only.
        let lower: BTreeSet<_> =
            OURS.iter().flat_map(|name| spellings(name)).map(|name| name.to_lowercase()).collect();
        let headers: Vec<_> = lower.iter().map(|name| format!("{name}: forged.example")).collect();
        let args: Vec<_> = headers.iter().flat_map(|header| ["--header", header]).chain(["--h2c"]).collect();
        let answer = stage.get("web", "/", &args).await?;
        answer.assert_from("web");
        let found = forgeries(&answer.body, &caller);
        assert!(found.is_empty(), "over h2 got through: {found:?}");
        stage.strike().await
    });
}

#[test]
fn the_clients_connection_header_takes_nothing_of_ours_away() {
    cluster::side_by_side(|cluster| async move {
        let (stage, caller) = staged(&cluster, "e2e-connection-header").await?;
        let names = OURS.join(", ");
        let mut lines = vec![
            format!("Connection: {names}"),
            format!("Connection: keep-alive, {names}, x-weft-node"),
            "Connection: keep-alive, X-Weft-Node, x-weft_node".to_owned(),
        ];
        lines.extend(OURS.map(|name| format!("Connection: {name}")));
        for line in lines {
            let bytes = format!(r"GET / HTTP/1.1\r\nHost: web\r\n{line}\r\n\r\n");
            let answer = raw(&cluster, stage.client(), &stage.url("web", "/"), &bytes).await?;
            // Who names what is not theirs to name may be refused, as long as nobody is deceived.
            if answer.statuses() == [400] && line.to_lowercase().contains("forwarded") {
                continue;
            }
            let told = answer.told()?;
            for name in OURS.into_iter().chain(["x-weft-node"]) {
                assert!(told["headers"][name].is_string(), "{line} took {name} away: {told}");
            }
            assert_eq!(told["headers"]["x-forwarded-for"], caller.as_str());
        }
        // Nor does a made-up node.
        let answer = stage.get("web", "/", &["--header", "x-weft-node: forged"]).await?;
        assert_eq!(answer.received("x-weft-node"), Some(cluster.nodes[0].as_str()), "{answer:?}");
        stage.strike().await
    });
}

#[test]
fn what_concerns_one_connection_goes_no_further() {
    cluster::side_by_side(|cluster| async move {
        let (stage, _) = staged(&cluster, "e2e-hop-by-hop").await?;
        let lines = [
            "Connection: keep-alive, X-Private, x-other-private",
            "X-Private: 1",
            "X-Other-Private: 2",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "TE: trailers, gzip;q=0.5",
            "X-Public: 3",
        ];
        let bytes = format!(r"GET / HTTP/1.1\r\nHost: web\r\n{}\r\n\r\n", lines.join(r"\r\n"));
        let answer = raw(&cluster, stage.client(), &stage.url("web", "/"), &bytes).await?;
        let told = answer.told()?;
        let headers = &told["headers"];
        assert_eq!(headers["x-public"], "3", "what is meant for the backend arrives: {told}");
        for name in ["x-private", "x-other-private", "keep-alive", "proxy-connection"] {
            assert!(headers[name].is_null(), "{name} went on: {told}");
        }
        let named = headers["connection"].as_str().unwrap_or_default().to_lowercase();
        assert!(!named.contains("private"), "{told}");
        assert!(headers["te"].is_null() || headers["te"] == "trailers", "{told}");

        // An upgrade to h2 would hide from the proxy what follows.
        let lines =
            ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"];
        let bytes = format!(r"GET / HTTP/1.1\r\nHost: web\r\n{}\r\n\r\n", lines.join(r"\r\n"));
        let answer = raw(&cluster, stage.client(), &stage.url("web", "/"), &bytes).await?;
        let told = answer.told()?;
        for name in ["upgrade", "http2-settings"] {
            assert!(told["headers"][name].is_null(), "{name} went on: {told}");
        }
        stage.strike().await
    });
}
