//! What may be asked for the HTTP requests of a Service, over loopback: each policy as a client sees it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{Backend, KeepAlive, Proxy, exchange, free_port, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_config::{HttpPolicy, RateLimit, Scheme, Timeouts, Traffic, UpstreamTls};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

fn http(policy: HttpPolicy) -> Traffic {
    Traffic::Http(policy)
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_rate_limit_a_caller_is_told_when_to_come_back() {
    let backend = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let rate_limit = Some(RateLimit { average: 1, burst: 3 });
    let traffic = http(HttpPolicy { rate_limit, ..HttpPolicy::default() });
    let port = proxy.service_with("cart", &[backend.address], traffic, Timeouts::default());
    let mut client = KeepAlive::connect(port).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(client.get().await);
    }
    let statuses: Vec<_> = answers.iter().map(|answer| answer.split(' ').nth(1).unwrap()).collect();
    assert_eq!(statuses[..3], ["200"; 3]);
    assert!(statuses[3..].contains(&"429"), "{statuses:?}: and over one connection");
    let refused = answers.iter().find(|answer| answer.contains(" 429 ")).unwrap().to_lowercase();
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    let body = exchange(port, GET).await;
    assert!(body.contains("Service shop/cart port 80") && body.contains("rate limit"), "{body}");
    assert!(proxy.metrics.encode().unwrap().contains("weft_proxy_rate_limited_total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_is_left_alone_and_its_breaker_outlives_other_changes() {
    let backend = Backend::start_status(500, 0).await;
    let mut proxy = Proxy::start();
    let circuit_breaker = Some("ResponseCodeRatio(500, 600, 0, 600) > 0.5".parse().unwrap());
    let traffic = http(HttpPolicy { circuit_breaker, ..HttpPolicy::default() });
    let port = proxy.service_with("cart", &[backend.address], traffic.clone(), Timeouts::default());
    let deadline = Instant::now() + Duration::from_secs(5);
    let refused = loop {
        let answer = exchange(port, GET).await;
        if answer.contains(" 503 ") {
            break answer;
        }
        assert!(answer.contains(" 500 ") && Instant::now() < deadline, "{answer}");
    };
    assert!(refused.contains("circuit breaker is open"), "{refused}");
    let seen = backend.seen().len();
    proxy.put("cart", port, &[backend.address], traffic, Timeouts::default());
    assert!(exchange(port, GET).await.contains(" 503 "), "the same policy again is the same breaker");
    assert_eq!(backend.seen().len(), seen, "nothing reaches it");
    let open = proxy
        .metrics
        .encode()
        .unwrap()
        .lines()
        .any(|line| line.starts_with("weft_proxy_breaker_state{") && line.ends_with(" 1"));
    assert!(open);
    proxy.service_on("cart", port, &[backend.address]);
    assert!(exchange(port, GET).await.contains(" 500 "), "without a breaker it is asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_too_long_ends() {
    let slow = Backend::start_status(200, 10_000).await;
    let mut proxy = Proxy::start();
    let timeouts = Timeouts { request: Some(Duration::from_millis(300)), ..Timeouts::default() };
    let port = proxy.service_with("cart", &[slow.address], Traffic::default(), timeouts);
    let began = Instant::now();
    let answer = exchange(port, GET).await;
    assert!(answer.contains(" 504 ") && answer.contains("in time"), "{answer}");
    assert!((250..2000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(slow.seen().len(), 1, "it is not sent again: it may have been carried out");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_trickles_is_cut_when_its_time_is_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut proxy = Proxy::start();
    let timeouts = Timeouts { request: Some(Duration::from_millis(300)), ..Timeouts::default() };
    let port = proxy.service_with("cart", &[address], Traffic::default(), timeouts);
    let began = Instant::now();
    let answer = exchange(port, GET).await;
    assert!(answer.contains(" 200 OK") && answer.matches('x').count() < 200, "{answer}");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_tried_as_often_as_asked_for_and_only_when_that_is_safe() {
    let mut proxy = Proxy::start();
    for (attempts, request, tries) in
        [(None, GET, 5), (Some(1), GET, 1), (Some(2), GET, 2), (Some(5), GET, 5), (Some(5), POST, 1)]
    {
        let rude = Backend::start_rude().await;
        let policy = HttpPolicy { retry_attempts: attempts, ..HttpPolicy::default() };
        let port = proxy.service_with("cart", &[rude.address], http(policy), Timeouts::default());
        let answer = exchange(port, request).await;
        assert!(answer.contains(" 502 "), "{answer}");
        assert_eq!(rude.seen().len(), tries, "{attempts:?} {request:?}");
        proxy.remove("cart");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_of_five_that_break_connections_cost_nobody_an_answer() {
    let mut proxy = Proxy::start();
    for _ in 0..5 {
        let mut all = vec![Backend::start("one").await.address];
        for _ in 0..4 {
            all.push(Backend::start_rude().await.address);
        }
        let port = proxy.service("cart", &all);
        let answer = exchange(port, GET).await;
        assert!(answer.ends_with("one"), "{answer}");
        proxy.remove("cart");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_tried_elsewhere_unless_one_try_is_all_there_is() {
    let backend = Backend::start("one").await;
    let dead: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let mut proxy = Proxy::start();
    for (attempts, failures) in [(None, false), (Some(2), false), (Some(1), true)] {
        let policy = HttpPolicy { retry_attempts: attempts, ..HttpPolicy::default() };
        let port = proxy.service_with("cart", &[dead, backend.address], http(policy), Timeouts::default());
        let mut failed = false;
        for _ in 0..20 {
            failed |= !exchange(port, POST).await.contains(" 200 ");
        }
        assert_eq!(failed, failures, "{attempts:?}");
        proxy.remove("cart");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_keeps_failing_is_passed_over() {
    let (good, bad) = (Backend::start("good").await, Backend::start_status(503, 0).await);
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[good.address, bad.address]);
    for _ in 0..60 {
        exchange(port, GET).await;
    }
    let seen = bad.seen().len();
    assert!((5..15).contains(&seen), "{seen} of 60 went to it");
    assert!(proxy.metrics.encode().unwrap().contains("weft_proxy_ejections_total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_request_came_from_is_ours_to_say() {
    let backend = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[backend.address]);
    let request = "GET / HTTP/1.1\r\nHost: cart.shop\r\nConnection: close, X-Secret\r\nX-Secret: s\r\nKeep-Alive: 5\r\n\
                   TE: gzip\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\n\
                   X-REAL-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n";
    assert!(exchange(port, request).await.contains(" 200 "));
    let seen = backend.seen()[0].to_lowercase();
    for line in [
        "x-forwarded-for: 127.0.0.1",
        "x-real-ip: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: cart.shop",
        "x-forwarded-port: 80",
        "x-forwarded-server: node1",
        "forwarded: for=127.0.0.1;host=\"cart.shop\";proto=http",
    ] {
        assert_eq!(seen.lines().filter(|found| *found == line).count(), 1, "{line} in {seen}");
    }
    for gone in ["6.6.6.6", "https", "x-secret", "keep-alive", "te:"] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_carried_both_ways() {
    let backend = Backend::start_upgrade().await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[backend.address]);
    // Many: it matters whether the endpoint answers before or after the proxy has turned to it.
    for _ in 0..100 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        for size in [1, 1000, 300_000] {
            let sent = vec![b'x'; size];
            stream.write_all(&sent).await.unwrap();
            let mut back = vec![0; size];
            stream.read_exact(&mut back).await.unwrap();
            assert!(sent == back);
        }
    }
    assert!(backend.seen()[0].to_lowercase().contains("connection: upgrade"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_is_refused() {
    let backend = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[backend.address]);
    let answer = exchange(port, "CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n").await;
    assert!(answer.contains(" 405 "), "{answer}");
    assert_eq!(backend.seen().len(), 0);
}

/// A backend that speaks TLS; its certificate is for `name`. It takes every upgrade and echoes what follows.
async fn tls_backend(name: &str, protocols: &[&str]) -> (SocketAddr, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let der = made.cert.der().to_vec();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                assert_ne!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "it was asked for HTTP/1.1");
                let mut head = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut head).await {
                    if head[..n].windows(8).any(|window| window.eq_ignore_ascii_case(b"upgrade:")) {
                        stream.write_all(SWITCHING).await.unwrap();
                        let (mut from, mut to) = tokio::io::split(stream);
                        let _ = tokio::io::copy(&mut from, &mut to).await;
                        return;
                    }
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (address, der)
}

#[tokio::test(flavor = "multi_thread")]
async fn https_to_the_endpoints_is_verified() {
    let mut proxy = Proxy::start();
    let (address, authority) = tls_backend("cart.shop.svc", &[]).await;
    let (_, stranger) = tls_backend("cart.shop.svc", &[]).await;
    let tls = |authorities: &[&Vec<u8>], name: &str, unverified| UpstreamTls {
        authorities: authorities.iter().map(|der| (*der).clone()).collect(),
        server_name: name.into(),
        unverified,
    };
    let cases = [
        (tls(&[&authority], "cart.shop.svc", false), Ok(())),
        (tls(&[&stranger, &authority], "cart.shop.svc", false), Ok(())),
        (tls(&[&stranger], "cart.shop.svc", false), Err("certificate")),
        (tls(&[&authority], "other.shop.svc", false), Err("certificate")),
        (tls(&[], "cart.shop.svc", false), Err("no authority to check it")),
        (tls(&[&b"nonsense".to_vec()], "cart.shop.svc", false), Err("no authority to check it")),
        (tls(&[], "other.shop.svc", true), Ok(())),
    ];
    for (tls, expected) in cases {
        let policy = HttpPolicy { scheme: Scheme::Https(tls.clone()), ..HttpPolicy::default() };
        let port = proxy.service_with("cart", &[address], http(policy), Timeouts::default());
        let answer = exchange(port, GET).await;
        match expected {
            Ok(()) => assert!(answer.ends_with("secret"), "{tls:?}: {answer}"),
            Err(why) => assert!(answer.contains(" 502 ") && answer.contains(why), "{tls:?}: {answer}"),
        }
        proxy.remove("cart");
    }
}

/// An endpoint that may choose chooses h2, and there pingora drops what asks for the upgrade.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_reaches_an_endpoint_that_would_rather_speak_h2() {
    let (address, authority) = tls_backend("cart.shop.svc", &["h2", "http/1.1"]).await;
    let tls =
        UpstreamTls { authorities: vec![authority], server_name: "cart.shop.svc".into(), unverified: false };
    let policy = HttpPolicy { scheme: Scheme::Https(tls), ..HttpPolicy::default() };
    let mut proxy = Proxy::start();
    let port = proxy.service_with("cart", &[address], http(policy), Timeouts::default());
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    client.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    client.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_not_read_faster_than_it_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[address]);
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    tokio::spawn(async move {
        let chunk = vec![b'x'; 1 << 20];
        while let Ok(n) = client.write(&chunk).await {
            count.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
        }
    });
    // Accepted, but nothing is read.
    let (_held, _) = listener.accept().await.unwrap();
    let now = || sent.load(std::sync::atomic::Ordering::Relaxed);
    let mut before = usize::MAX;
    let mut looked = Instant::now();
    until("the client is held back", || {
        if looked.elapsed() < Duration::from_millis(500) {
            return false;
        }
        looked = Instant::now();
        std::mem::replace(&mut before, now()) == now()
    })
    .await;
    assert!(now() < 64 << 20, "{} bytes were taken in for a backend that reads none", now());
}
