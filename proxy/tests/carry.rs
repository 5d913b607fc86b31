//! The proxy's parts together, over loopback: what a client sees of it while everything around changes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Backend, Proxy, exchange, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use weft_config::{HttpPolicy, Scheme, Timeouts, Traffic};
use weft_proxy::drain::{Drain, drained};
use weft_proxy::listen::Transport;

#[tokio::test(flavor = "multi_thread")]
async fn any_form_of_http_reaches_the_backend() {
    let backend = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[backend.address]);
    for request in [
        // 18 bytes: shorter than the preface of h2, which must not be waited for.
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: whatever\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: cart.shop.weft.mesh\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    ] {
        let answer = exchange(port, request).await;
        assert!(answer.contains(" 200 OK\r\n") && answer.ends_with("one"), "{request:?} got {answer:?}");
        assert!(answer.contains("x-weft-node: node1\r\n"), "{answer:?}");
    }
    let seen = backend.seen();
    assert!(seen.iter().all(|request| request.contains("x-weft-node: node1")), "{seen:?}");
    assert!(
        seen.iter().any(|request| request.to_lowercase().contains("host: cart.shop.weft.mesh")),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_header_of_the_clients_own_is_overwritten() {
    let backend = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[backend.address]);
    exchange(port, "GET / HTTP/1.1\r\nHost: x\r\nX-Weft-Node: forged\r\nConnection: close\r\n\r\n").await;
    let seen = backend.seen();
    assert!(!seen[0].contains("forged") && seen[0].contains("node1"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h2c_with_prior_knowledge_is_carried() {
    let backend = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[backend.address]);
    let (mut client, _) = support::h2_client(port).await;
    for _ in 0..3 {
        let request =
            hyper::Request::get(format!("http://cart:{port}/")).body(Empty::<Bytes>::new()).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.headers()["x-weft-node"], "node1");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "one");
    }
}

/// Each would make a connection of its own while there is none. The backend's queue of connections is full at first, so that
/// the kernel tries again to make one only after a second: all calls come meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_come_at_once_share_a_connection_to_an_endpoint_over_h2() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let backend = listener.local_addr().unwrap();
    let _fills_the_queue = TcpStream::connect(backend).await.unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let accept = async move {
        listener.accept().await.unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, SeqCst);
            let answer =
                service_fn(async |_| Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new())));
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
        }
    };
    let mut proxy = Proxy::start();
    let h2c = Traffic::Http(HttpPolicy { scheme: Scheme::H2c, ..HttpPolicy::default() });
    let timeouts = Timeouts { connect: Some(Duration::from_secs(20)), ..Timeouts::default() };
    let port = proxy.service_with("cart", &[backend], h2c, timeouts);
    let (client, _) = support::h2_client(port).await;
    let call = || {
        let mut client = client.clone();
        let request =
            hyper::Request::get(format!("http://cart:{port}/")).body(Empty::<Bytes>::new()).unwrap();
        async move { client.send_request(request).await.unwrap().status() }
    };
    let calls: Vec<_> = (0..50).map(|_| tokio::spawn(call())).collect();
    while !is_being_connected_to(backend) {
        tokio::task::yield_now().await;
    }
    tokio::spawn(accept);
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(connections.load(SeqCst), 1);
}

/// Whether the kernel has sent a SYN there that is not answered (proc(5): `net/tcp`, addresses in hexadecimal, state 02).
fn is_being_connected_to(address: std::net::SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let there = format!(":{:04X}", address.port());
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|fields| {
        fields.get(2).is_some_and(|remote| remote.ends_with(&there)) && fields.get(3) == Some(&"02")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_is_refused() {
    let backend = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[backend.address]);
    let answer = exchange(port, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer:?}");
    assert!(backend.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_endpoint_the_caller_reads_which_service_and_why() {
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[]);
    let answer = exchange(port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer:?}");
    let body = "weft: Service shop/cart port 80 (http): no ready endpoint: the Service has no endpoints\n";
    assert!(answer.ends_with(body), "{answer:?}");
    proxy.unready("cart", 3);
    let answer = exchange(port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.ends_with("none of its 3 endpoints is ready\n"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_costs_no_request() {
    let backend = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let dead = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let port = proxy.service("cart", &[dead, backend.address]);
    for _ in 0..20 {
        // Even a POST: nothing of it was sent.
        let answer = exchange(port, "POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx").await;
        assert!(answer.contains(" 200 OK"), "{answer:?}");
    }
}

/// Four of five pods are gone and nobody has been told yet: no request may pay for finding out.
#[tokio::test(flavor = "multi_thread")]
async fn most_endpoints_gone_at_once_cost_no_request() {
    let backend = Backend::start("one").await;
    for _ in 0..20 {
        let mut proxy = Proxy::start();
        let dead = || format!("127.0.0.1:{}", free_port()).parse().unwrap();
        let port = proxy.service("cart", &[dead(), dead(), dead(), dead(), backend.address]);
        let answer = exchange(port, "GET / HTTP/1.0\r\n\r\n").await;
        assert!(answer.contains(" 200 OK"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_endpoint_refuses_the_caller_reads_it() {
    let mut proxy = Proxy::start();
    let dead = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let port = proxy.service("cart", &[dead]);
    let answer = exchange(port, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(
        answer.contains(" 502 ") && answer.ends_with("the endpoint refused the connection\n"),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_retried_for_get_and_not_for_post() {
    let good = Backend::start("good").await;
    let rude = Backend::start_rude().await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[rude.address, good.address]);
    let mut posts_failed = 0;
    for _ in 0..20 {
        let answer = exchange(port, "GET / HTTP/1.0\r\n\r\n").await;
        assert!(answer.ends_with("good"), "{answer:?}");
        let answer = exchange(port, "POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx").await;
        posts_failed += usize::from(answer.contains(" 502 "));
    }
    assert!(posts_failed > 0, "a POST that may have been executed must not be sent twice");
    let posts =
        |backend: &Backend| backend.seen().iter().filter(|request| request.starts_with("POST")).count();
    assert_eq!(posts(&good) + posts(&rude), 20, "each POST reached exactly one backend");
}

/// Clients hammer one Service while another's ports come and go and its own endpoints are replaced.
#[tokio::test(flavor = "multi_thread")]
async fn changes_around_a_service_fail_none_of_its_requests() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[one.address]);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    let request = if client % 2 == 0 {
                        "GET / HTTP/1.0\r\n\r\n"
                    } else {
                        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                    };
                    let answer = exchange(port, request).await;
                    assert!(answer.contains(" 200 OK"), "{answer:?}");
                    done.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    for round in 0..50 {
        let other = proxy.service("other", &[one.address]);
        let answer = exchange(other, "GET / HTTP/1.0\r\n\r\n").await;
        assert!(answer.contains(" 200 OK"), "round {round}: {answer:?}");
        proxy.endpoints("cart", &[if round % 2 == 0 { two.address } else { one.address }]);
        proxy.remove("other");
        let before = done.load(SeqCst);
        support::until("requests go on", || done.load(SeqCst) > before + 4).await;
        assert!(
            TcpStream::connect(("127.0.0.1", other)).await.is_err()
                || proxy.listeners.held_ports().contains(&other)
        );
    }
    stop.store(true, SeqCst);
    for client in clients {
        client.await.expect("no request failed");
    }
    assert!(!one.seen().is_empty() && !two.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_everybody_finish_and_turns_nobody_away() {
    let backend = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[backend.address]);
    let mut parked = support::KeepAlive::connect(port).await;
    assert!(!parked.get().await.to_lowercase().contains("connection: close"));
    let listeners = Arc::clone(&proxy.listeners);
    let drain = Drain {
        offered: Duration::ZERO,
        accept_window: Duration::from_millis(200),
        deadline: Duration::from_secs(20),
    };
    let over = tokio::spawn(async move { drained(drain, &listeners, watch::channel(None).1).await });
    let mut within_window = support::KeepAlive::connect(port).await;
    assert!(within_window.get().await.contains(" 200 OK"));
    // Both connections are idle when the window ends. Neither is closed under a request that may be on its way.
    support::until("answers say so", || !over.is_finished() && exchange_says_close(port)).await;
    for client in [&mut parked, &mut within_window] {
        let answer = client.get().await;
        assert!(
            answer.contains(" 200 OK") && answer.to_lowercase().contains("connection: close"),
            "{answer:?}"
        );
    }
    drop((parked, within_window));
    tokio::time::timeout(Duration::from_secs(5), over)
        .await
        .expect("it ends when the last has left")
        .unwrap();
}

/// Both kinds of h2 connection: open when the drain begins, and made while it is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_says_goaway_to_h2() {
    let backend = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[backend.address]);
    let get = || hyper::Request::get(format!("http://cart:{port}/")).body(Empty::<Bytes>::new()).unwrap();
    let (mut before, before_ends) = support::h2_client(port).await;
    assert!(before.send_request(get()).await.unwrap().status().is_success());
    proxy.listeners.drain();
    let (mut during, during_ends) = support::h2_client(port).await;
    assert!(during.send_request(get()).await.unwrap().status().is_success());
    for ends in [before_ends, during_ends] {
        let ended = tokio::time::timeout(Duration::from_secs(5), ends).await;
        ended.expect("the connection ends after GOAWAY").unwrap().unwrap();
    }
    support::until("nobody is left", || proxy.listeners.open_connections() == 0).await;
}

/// One request on a connection of its own, from a thread: does the answer tell to leave?
fn exchange_says_close(port: u16) -> bool {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("new connections are taken");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer).unwrap();
    let answer = String::from_utf8_lossy(&buffer[..length]).to_lowercase();
    assert!(answer.contains(" 200 ok"), "{answer:?}");
    answer.contains("connection: close")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_any_size_passes_both_ways() {
    let backend = Backend::start_echo().await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[backend.address]);
    let body = vec![b'x'; 3 << 20];
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let head =
        format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let send = async {
        writer.write_all(head.as_bytes()).await.unwrap();
        writer.write_all(&body).await.unwrap();
    };
    let mut answer = Vec::new();
    let ((), read) = tokio::join!(send, reader.read_to_end(&mut answer));
    read.unwrap();
    assert!(answer.ends_with(&body), "{} bytes came back", answer.len());
}

/// Also of an answer that told its length: its client sees the header, and what there is of the body, at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_its_time_is_not_kept_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (go_on, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut endpoint, _) = listener.accept().await.unwrap();
        endpoint.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
        told.await.unwrap();
        endpoint.write_all(b"cd").await.unwrap();
        let _ = endpoint.read_to_end(&mut Vec::new()).await;
    });
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[address]);
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nab") {
        let read = client.read_buf(&mut answer);
        let n = tokio::time::timeout(Duration::from_secs(5), read).await.expect("what there is").unwrap();
        assert_ne!(n, 0, "{}", String::from_utf8_lossy(&answer));
    }
    go_on.send(()).unwrap();
    while !answer.ends_with(b"abcd") {
        assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_let_in_before_the_tables_know_the_port() {
    use std::io::{ErrorKind, Read, Write};
    let (proxy, port) = (Proxy::start(), free_port());
    let mut early = None;
    let bound = || {
        let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let nothing = client.read(&mut [0; 512]).unwrap_err().kind();
        assert!(matches!(nothing, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{nothing}");
        early = Some(client);
    };
    proxy.listeners.open(port, Transport::Http, bound).unwrap();
    // Now it is, and waits no longer.
    let mut client = early.unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_ne!(client.read(&mut [0; 512]).unwrap(), 0);
}
