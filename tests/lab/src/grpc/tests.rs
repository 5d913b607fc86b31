use std::sync::Arc;

use serde_json::json;
use tokio::net::TcpListener;

use super::client::{Mode, one_call};
use super::serve::accept;
use crate::identity::Identity;

async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let identity = Identity { app: "echo".to_owned(), pod: "pod-1".to_owned(), node: "node1".to_owned() };
    tokio::spawn(accept(listener, Arc::new(identity)));
    url
}

#[tokio::test]
async fn every_form_of_call_is_answered() {
    let url = server().await;
    for (mode, replies, messages) in
        [(Mode::Unary, 1, 1), (Mode::Server, 4, 1), (Mode::Client, 1, 4), (Mode::Bidi, 4, 4)]
    {
        let line = one_call(&url, mode, |_| ()).await;
        assert_eq!((&line["status"], &line["by"]["pod-1"]), (&json!(0), &json!(replies)), "{mode:?}: {line}");
        let last = line["replies"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(last["received_messages"], messages, "{mode:?}: {line}");
        assert_eq!((&last["bytes"], &last["intact"]), (&json!(100_000), &json!(true)), "{mode:?}: {line}");
        assert_eq!(line["received_metadata"]["x-who"], "me", "{mode:?}: {line}");
        if matches!(mode, Mode::Server | Mode::Bidi) {
            assert_eq!(line["trailers"]["x-lab-replies"], "4", "{mode:?}: {line}");
        }
    }
}

#[tokio::test]
async fn a_failure_has_its_status_message_and_trailers() {
    let line = one_call(&server().await, Mode::Fail, |args| args.code = 7).await;
    assert_eq!((&line["status"], &line["code"]), (&json!(7), &json!("PermissionDenied")), "{line}");
    assert_eq!(
        (&line["message"], &line["trailers"]["x-why"]),
        (&json!("as asked"), &json!("a test")),
        "{line}"
    );
}

#[tokio::test]
async fn a_late_answer_and_an_absent_server_are_told() {
    let line = one_call(&server().await, Mode::Unary, |args| {
        args.pause_ms = 1000;
        args.timeout = 100;
    })
    .await;
    assert!(matches!(line["status"].as_i64(), Some(1 | 4)), "{line}");
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let line = one_call(&format!("http://127.0.0.1:{port}"), Mode::Unary, |_| ()).await;
    assert!(line["error"].is_string(), "{line}");
}
