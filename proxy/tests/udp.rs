//! Datagrams over loopback: sessions by source, their bounds and their ends.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use support::{Proxy, free_port, until};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use weft_config::{Timeouts, Traffic};

/// Answers each datagram with its name in front, `times` times.
async fn server(name: &'static str, times: usize) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
            let answer = [name.as_bytes(), &buffer[..n]].concat();
            for _ in 0..times {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    address
}

async fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(("127.0.0.1", port)).await.unwrap();
    socket
}

async fn ask(client: &UdpSocket, datagram: &[u8]) -> Vec<u8> {
    client.send(datagram).await.unwrap();
    receive(client).await
}

async fn receive(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let n = timeout(Duration::from_secs(5), client.recv(&mut buffer)).await.expect("an answer").unwrap();
    buffer.truncate(n);
    buffer
}

fn udp(proxy: &mut Proxy, endpoints: &[SocketAddr], timeouts: Timeouts) -> u16 {
    proxy.service_with("names", endpoints, Traffic::Udp, timeouts)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_find_back_to_their_sources() {
    let mut proxy = Proxy::start();
    let endpoints = [server("a", 1).await, server("b", 1).await, server("c", 1).await];
    let port = udp(&mut proxy, &endpoints, Timeouts::default());
    let mut names = BTreeSet::new();
    let mut clients = Vec::new();
    for i in 0..50_u8 {
        let client = client(port).await;
        let answer = ask(&client, &[i; 512]).await;
        assert_eq!(answer[1..], [i; 512]);
        names.insert(answer[0]);
        clients.push((client, answer[0]));
    }
    assert_eq!(names.len(), 3, "every endpoint is used");
    for (client, name) in &clients {
        for _ in 0..10 {
            assert_eq!(ask(client, b"again").await[0], *name, "a source stays with its endpoint");
        }
    }
    for size in [0, 1, 1400, 9000, 60_000] {
        assert_eq!(ask(&clients[0].0, &vec![7; size]).await.len(), size + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_datagram_may_have_many_answers() {
    let mut proxy = Proxy::start();
    let port = udp(&mut proxy, &[server("a", 100).await], Timeouts::default());
    let client = client(port).await;
    client.send(b"x").await.unwrap();
    for _ in 0..100 {
        assert_eq!(receive(&client).await, b"ax");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_moves_when_its_endpoint_goes() {
    let mut proxy = Proxy::start();
    let (a, b) = (server("a", 1).await, server("b", 1).await);
    let port = udp(&mut proxy, &[a], Timeouts::default());
    let client = client(port).await;
    assert_eq!(ask(&client, b"").await, b"a");
    proxy.endpoints("names", &[a, b]);
    assert_eq!(ask(&client, b"").await, b"a", "another endpoint is no reason to move");
    proxy.endpoints("names", &[b]);
    assert_eq!(ask(&client, b"").await, b"b");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_where_nobody_listens_is_left() {
    let mut proxy = Proxy::start();
    let dead = ([127, 0, 0, 1], free_port()).into();
    let port = udp(&mut proxy, &[dead, server("a", 1).await], Timeouts::default());
    for _ in 0..20 {
        let client = client(port).await;
        let mut buffer = [0; 10];
        let mut answered = false;
        // The first may be lost: only the answer that nobody listens tells it.
        for _ in 0..20 {
            client.send(b"x").await.unwrap();
            if timeout(Duration::from_millis(200), client.recv(&mut buffer)).await.is_ok() {
                answered = true;
                break;
            }
        }
        assert!(answered);
    }
}

/// As on a node that lost its power: what is sent there is lost, and nothing tells so.
#[tokio::test(flavor = "multi_thread")]
async fn new_sources_keep_away_from_an_endpoint_that_went_silent() {
    let mut proxy = Proxy::start();
    let mute = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let endpoints = [mute.local_addr().unwrap(), server("b", 1).await];
    let port = udp(&mut proxy, &endpoints, Timeouts::default());
    // A source of the one that will fall silent; it has answered before.
    let mut buffer = [0; 10];
    let old = loop {
        let client = client(port).await;
        client.send(b"x").await.unwrap();
        if let Ok(received) = timeout(Duration::from_millis(200), mute.recv_from(&mut buffer)).await {
            mute.send_to(b"ax", received.unwrap().1).await.unwrap();
            assert_eq!(receive(&client).await, b"ax");
            break client;
        }
    };
    let ejections = || {
        let text = proxy.metrics.encode().unwrap();
        text.lines().any(|line| line.starts_with("weft_proxy_ejections_total{") && !line.ends_with(" 0"))
    };
    let began = tokio::time::Instant::now();
    while !ejections() {
        assert!(began.elapsed() < Duration::from_secs(20), "it is still used");
        old.send(b"y").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for _ in 0..50 {
        assert_eq!(ask(&client(port).await, b"").await, b"b", "new sources go elsewhere");
        old.send(b"y").await.unwrap();
    }
    // Its own source is not taken away from it: it may only be slow, and knows the source.
    old.send(b"z").await.unwrap();
    let from = loop {
        let received = timeout(Duration::from_secs(5), mute.recv_from(&mut buffer)).await;
        let (n, from) = received.expect("what its source sends").unwrap();
        if &buffer[..n] == b"z" {
            break from;
        }
    };
    mute.send_to(b"az", from).await.unwrap();
    assert_eq!(receive(&old).await, b"az");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_sessions_are_forgotten() {
    let mut proxy = Proxy::start();
    let timeouts = Timeouts { idle: Some(Duration::from_millis(100)), ..Timeouts::default() };
    let port = udp(&mut proxy, &[server("a", 1).await], timeouts);
    for _ in 0..20 {
        ask(&client(port).await, b"x").await;
    }
    let open = |n: u32| {
        let text = proxy.metrics.encode().unwrap();
        let line =
            text.lines().find(|line| line.starts_with("weft_proxy_udp_sessions_open{")).map(str::to_owned);
        line.is_some_and(|line| line.ends_with(&format!(" {n}")))
    };
    until("all are forgotten", || open(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_endpoints_datagrams_are_dropped_and_counted() {
    let mut proxy = Proxy::start();
    let port = udp(&mut proxy, &[], Timeouts::default());
    let client = client(port).await;
    client.send(b"x").await.unwrap();
    until("it is counted", || {
        proxy
            .metrics
            .encode()
            .unwrap()
            .lines()
            .any(|line| line.starts_with("weft_proxy_udp_dropped_total{") && line.ends_with(" 1"))
    })
    .await;
}
