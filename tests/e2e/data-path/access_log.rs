//! The access log: nothing unless asked for; then a line for each request and connection, in the form asked for.

use serde_json::{Value, json};
use weft_tests::Result;
use weft_tests::access_log::{self, while_logging};
use weft_tests::cluster::{self, Cluster};
use weft_tests::protocols::tcp;
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{Server, address_of};

/// The lines of the first node's proxy that contain `text`.
async fn lines(cluster: &Cluster, text: &str) -> Result<Vec<String>> {
    access_log::lines(cluster, &cluster.nodes[0], text).await
}

/// The one line of it that contains `text`.
async fn line(cluster: &Cluster, text: &str) -> Result<String> {
    access_log::line(cluster, &cluster.nodes[0], text).await
}

/// All values in `json` as text, whatever their names.
fn values(json: &Value) -> Vec<String> {
    match json {
        Value::Object(fields) => fields.values().flat_map(values).collect(),
        Value::Array(items) => items.iter().flat_map(values).collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

#[test]
fn lines_are_written_when_asked_for_and_in_the_form_asked_for() {
    cluster::test(|cluster| async move {
        let services = [
            UserService::http("web", "web"),
            UserService::new("raw", "raw").tcp("echo", 9000, "echo").ask("traffic-type", "tcp"),
        ];
        let servers = [Server::new("web", 1), Server::tcp("raw", 1)];
        let stage = Stage::new(&cluster, "e2e-access-log", &servers, &services).await?;
        stage.reaches("web", "web").await?;
        let caller = address_of(&cluster, &stage.ns, &stage.client().name).await?;

        // Off.
        stage.get("web", "/unseen-path", &[]).await?.assert_from("web");
        stage.get("web", "/unseen-end", &[]).await?.assert_from("web");
        assert_eq!(lines(&cluster, "/unseen-").await?, Vec::<String>::new());

        while_logging(&cluster, "json", json!({}), async || {
            stage.reaches("web", "web").await?;
            stage.get("web", "/in-json?status=418&size=1234", &["--method", "PUT"]).await?;
            let line = line(&cluster, "/in-json").await?;
            let values = values(&serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?);
            for wanted in ["PUT", "418", "1234"] {
                assert!(values.iter().any(|value| value == wanted), "{wanted} is missing: {line}");
            }
            assert!(values.iter().any(|value| value.contains(&caller)), "{caller} is missing: {line}");
            assert!(line.contains(&stage.ns) && line.contains("web"), "the Service is not named: {line}");
            // Whoever asks cannot write lines of their own.
            stage.get("web", "/quote%22%0a", &["--header", "user-agent: a\"b\\c"]).await?.assert_from("web");
            let quoted = self::line(&cluster, "/quote").await?;
            serde_json::from_str::<Value>(&quoted).map_err(|error| format!("{error}: {quoted}"))?;

            let to = format!("{}:9000", stage.host("raw"));
            tcp(&cluster, stage.client(), &to, &["--mode", "echo", "--bytes", "4321"]).await?.assert_all(1);
            wait::until("the connection has its line", seconds(10), async || {
                let lines = lines(&cluster, "4321").await?;
                let found = lines.iter().any(|line| line.contains(&stage.ns) && line.contains("raw"));
                Ok(Seen::when(found, (), || format!("{lines:?}")))
            })
            .await
        })
        .await?;

        while_logging(&cluster, "common", json!({}), async || {
            stage.reaches("web", "web").await?;
            stage.get("web", "/in-common?status=418&size=1234", &["--method", "PUT"]).await?;
            let line = line(&cluster, "/in-common").await?;
            assert!(line.starts_with(&format!("{caller} - - [")), "{line}");
            let request = r#"] "PUT /in-common?status=418&size=1234 HTTP/1.1" 418 1234"#;
            assert!(line.contains(request), "{line}");
            Ok(())
        })
        .await?;

        stage.reaches("web", "web").await?;
        stage.get("web", "/unseen-again", &[]).await?.assert_from("web");
        stage.get("web", "/unseen-again-end", &[]).await?.assert_from("web");
        assert_eq!(lines(&cluster, "/unseen-").await?, Vec::<String>::new());
        stage.strike().await
    });
}
