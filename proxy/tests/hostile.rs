//! Requests and answers that are meant to be understood in two ways. Whatever a caller sends, an endpoint is asked for exactly
//! what the proxy understood, in a form that cannot be understood otherwise; whatever an endpoint sends, nobody gets a
//! part of an answer that was meant for another.
//!
//! `corpus` holds the requests, `answers` what endpoints send, `h2` what is particular to HTTP/2, `frames` a client that
//! sends any frame, `strict` the endpoint that reads without mercy.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "hostile/answers.rs"]
mod answers;
#[path = "hostile/corpus.rs"]
mod corpus;
#[path = "hostile/frames.rs"]
mod frames;
#[path = "hostile/h2.rs"]
mod h2;
#[path = "hostile/strict.rs"]
mod strict;
mod support;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use strict::Strict;
use support::Proxy;

/// After so long without a byte nothing more is expected on a connection that stays open.
const QUIET: Duration = Duration::from_millis(150);

/// Sends `bytes` and returns everything that comes back until the connection closes or is quiet.
async fn send(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // The proxy may close before everything is sent.
    let _ = stream.write_all(bytes).await;
    let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(Ok(n @ 1..)) = timeout(QUIET, stream.read(&mut chunk)).await {
        all.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// The statuses of all answers in `text`.
fn statuses(text: &str) -> Vec<u16> {
    let mut found: Vec<_> = text.match_indices("HTTP/1.").map(|(at, _)| at).collect();
    found.retain(|at| text[at + 8..].starts_with(' '));
    found.iter().filter_map(|at| text.get(at + 9..at + 12)?.parse().ok()).collect()
}

/// Requests of everybody else, in between, are answered with what is theirs.
async fn others_are_served(port: u16) {
    for number in 0..3 {
        let path = format!("/others-{number}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = support::exchange(port, &request).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&format!("answer to {path}")),
            "{answer}"
        );
    }
}

async fn staged() -> (Proxy, Strict, u16) {
    let strict = Strict::start().await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[strict.address]);
    (proxy, strict, port)
}
