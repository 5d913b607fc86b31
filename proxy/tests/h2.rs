//! HTTP/2 on either side: what its endpoints refuse, what its callers get without a body.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use support::{Proxy, exchange, h2_client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_config::{HttpPolicy, Scheme, Timeouts, Traffic};

const PREFACE: usize = 24;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: [u8; 9] = [0, 0, 0, SETTINGS, 1, 0, 0, 0, 0];

/// How an endpoint says that it has not processed a stream.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    /// `RST_STREAM` with `REFUSED_STREAM`.
    Stream,
    /// `GOAWAY` with `NO_ERROR`, for none of its streams; then it closes the connection.
    GoAway,
}

/// An endpoint that refuses the first streams and answers those that follow with 200. It counts the streams.
async fn endpoint(refusal: Refusal, refused: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let streams = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&streams);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, refusal, refused, Arc::clone(&count)));
        }
    });
    (address, streams)
}

async fn serve(mut stream: TcpStream, refusal: Refusal, refused: usize, streams: Arc<AtomicUsize>) {
    stream.read_exact(&mut [0; PREFACE]).await.unwrap();
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.unwrap();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        let id = &head[5..];
        let answer = match (head[3], refusal) {
            (SETTINGS, _) if head[4] == 0 => ACK.to_vec(),
            (HEADERS, _) if streams.fetch_add(1, SeqCst) >= refused => {
                // END_STREAM and END_HEADERS; `:status: 200` is entry 8 of the static table.
                [&[0, 0, 1, HEADERS, 5][..], id, &[0x88]].concat()
            }
            (HEADERS, Refusal::Stream) => [&[0, 0, 4, 3, 0][..], id, &[0, 0, 0, 7]].concat(),
            (HEADERS, Refusal::GoAway) => {
                let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                stream.write_all(&goaway).await.unwrap();
                stream.shutdown().await.unwrap();
                // What is not read would have the kernel take back the GOAWAY.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                return;
            }
            _ => continue,
        };
        stream.write_all(&answer).await.unwrap();
    }
}

fn h2c() -> Traffic {
    Traffic::Http(HttpPolicy { scheme: Scheme::H2c, ..HttpPolicy::default() })
}

/// More than once in a row, more often than what a broken connection is worth: nothing was done with any of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_did_not_process_is_sent_again_whatever_it_is() {
    const POST: &str = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    let mut proxy = Proxy::start();
    for refusal in [Refusal::Stream, Refusal::GoAway] {
        let (address, streams) = endpoint(refusal, 6).await;
        let port = proxy.service_with("cart", &[address], h2c(), Timeouts::default());
        let answer = exchange(port, POST).await;
        assert!(answer.contains(" 200 "), "{refusal:?}: {answer}");
        assert_eq!(streams.load(SeqCst), 7, "{refusal:?}");
        proxy.remove("cart");
        let (address, streams) = endpoint(refusal, usize::MAX).await;
        let port = proxy.service_with("cart", &[address], h2c(), Timeouts::default());
        let answer = exchange(port, POST).await;
        assert!(answer.contains(" 502 "), "{refusal:?}: {answer}");
        assert_eq!(streams.load(SeqCst), 10, "{refusal:?}: it comes to an end");
        proxy.remove("cart");
    }
    assert!(
        !proxy.metrics.encode().unwrap().lines().any(|line| {
            line.starts_with("weft_proxy_endpoint_ejections_total{") && !line.ends_with(" 0")
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_none_is_the_caller_s_fault() {
    let (address, streams) = endpoint(Refusal::Stream, 0).await;
    let mut proxy = Proxy::start();
    let port = proxy.service_with("cart", &[address], h2c(), Timeouts::default());
    for host in ["a:b:c", "[::1", ""] {
        let answer =
            exchange(port, &format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.contains(" 400 "), "{host:?}: {answer}");
    }
    assert_eq!(streams.load(SeqCst), 0);
    assert!(exchange(port, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.contains(" 200 "));
}

/// A body would be an error of the protocol, and the answer lost.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_with_head_gets_our_own_answers_without_a_body() {
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[]);
    let (mut client, _) = h2_client(port).await;
    for _ in 0..2 {
        let request =
            hyper::Request::head(format!("http://cart:{port}/")).body(Empty::<Bytes>::new()).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["x-weft-node"]),
            (503, &"node1".parse().unwrap())
        );
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}
