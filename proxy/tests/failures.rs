//! What a proxy counts as failed by its own account: what an operator compares new proxies with old ones by.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::SocketAddr;

use support::{Backend, Proxy, exchange, free_port, until};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use weft_config::{HttpPolicy, RateLimit, Timeouts, Traffic};
use weft_proxy::metrics::Totals;

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Nobody listens there.
fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_endpoints_answer_and_policies_refuse_is_no_failure() {
    let mut proxy = Proxy::start();
    let (missing, broken) = (Backend::start_status(404, 0).await, Backend::start_status(500, 0).await);
    let rate_limit = Some(RateLimit { average: 1, burst: 1 });
    let limited = Traffic::Http(HttpPolicy { rate_limit, ..HttpPolicy::default() });
    let ports = [
        proxy.service("missing", &[missing.address]),
        proxy.service("broken", &[broken.address]),
        proxy.service_with("limited", &[missing.address], limited, Timeouts::default()),
    ];
    for (port, status) in [(ports[0], 404), (ports[1], 500), (ports[2], 404), (ports[2], 429)] {
        let answer = exchange(port, GET).await;
        assert!(answer.contains(&format!(" {status} ")), "{answer}");
    }
    let bad = exchange(ports[0], "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n").await;
    assert!(bad.contains(" 400 "), "{bad}");
    until("all is counted", || proxy.metrics.totals().requests >= 4).await;
    assert_eq!(proxy.metrics.totals().failures, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_nobody_answers_was_failed_over_http_and_over_tcp() {
    let mut proxy = Proxy::start();
    let http = proxy.service("gone", &[nowhere()]);
    let empty = proxy.service("empty", &[]);
    let tcp = proxy.service_with("db", &[nowhere()], Traffic::Tcp, Timeouts::default());
    for port in [http, empty] {
        let answer = exchange(port, GET).await;
        assert!(answer.contains(" 502 ") || answer.contains(" 503 "), "{answer}");
    }
    // It may be reset before it is known to be open.
    if let Ok(mut client) = TcpStream::connect(("127.0.0.1", tcp)).await {
        let _ = client.read(&mut [0]).await;
    }
    let all = Totals { requests: 3, failures: 3 };
    until("all three are counted", || proxy.metrics.totals() == all).await;
    // What was carried was carried.
    proxy.remove("gone");
    assert_eq!(proxy.metrics.totals(), all);
}
