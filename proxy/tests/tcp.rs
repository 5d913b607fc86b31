//! TCP over loopback: who speaks first, how each direction ends, bulk, and a port that changes its type.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::{Backend, Blocked, KeepAlive, Proxy, endpoints_id, exchange, free_port, id, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use weft_config::{Port, Resource, Service, Timeouts, Traffic};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Greets, then echoes; closes its side when the other has.
async fn server(greeting: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(greeting).await.unwrap();
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

async fn read(stream: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    timeout(Duration::from_secs(20), stream.read_exact(&mut bytes)).await.expect("in time").unwrap();
    bytes
}

fn tcp(proxy: &mut Proxy, endpoints: &[SocketAddr]) -> u16 {
    proxy.service_with("db", endpoints, Traffic::Tcp, Timeouts::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_may_speak_first_and_each_side_may_end_first() {
    let mut proxy = Proxy::start();
    let port = tcp(&mut proxy, &[server(b"hello").await]);
    let mut client = connect(port).await;
    assert_eq!(read(&mut client, 5).await, b"hello");
    client.write_all(b"ping").await.unwrap();
    assert_eq!(read(&mut client, 4).await, b"ping");
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(Duration::from_secs(5), client.read_to_end(&mut rest)).await.expect("its end, too").unwrap();
    assert_eq!(rest, b"last words", "what was on its way arrives after we are done");
    until("the connection is gone", || {
        proxy
            .metrics
            .encode()
            .unwrap()
            .lines()
            .any(|line| line.starts_with("weft_proxy_tcp_connections_open{") && line.ends_with(" 0"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_arrives_whole_both_ways_at_once() {
    let mut proxy = Proxy::start();
    let port = tcp(&mut proxy, &[server(b"").await]);
    let sent: Vec<u8> =
        (0..48_u32 << 20).map(|i| u8::try_from(i.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    let client = connect(port).await;
    let (mut from, mut to) = client.into_split();
    let expected = sent.clone();
    let sender = tokio::spawn(async move {
        to.write_all(&sent).await.unwrap();
        // Small pieces after it: the direction turns quiet and comes back from the pipe.
        for i in 0..64_u8 {
            to.write_all(&[i]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        to.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    timeout(Duration::from_secs(60), from.read_to_end(&mut got)).await.expect("in time").unwrap();
    sender.await.unwrap();
    assert_eq!(got.len(), expected.len() + 64);
    assert!(got[..expected.len()] == expected, "the bytes differ");
    assert!(got[expected.len()..].iter().copied().eq(0..64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_does_not_read_holds_the_sender_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut proxy = Proxy::start();
    let port = tcp(&mut proxy, &[listener.local_addr().unwrap()]);
    let mut client = connect(port).await;
    let (_held, _) = listener.accept().await.unwrap();
    let chunk = vec![0; 1 << 20];
    let mut sent = 0;
    while let Ok(n) = timeout(Duration::from_millis(500), client.write(&chunk)).await {
        sent += n.unwrap();
        assert!(sent < 64 << 20, "{sent} bytes were taken in for nobody");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_does_not_look_complete() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut proxy = Proxy::start();
    let port = tcp(&mut proxy, &[listener.local_addr().unwrap()]);
    let mut client = connect(port).await;
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"half of").await.unwrap();
    assert_eq!(read(&mut client, 7).await, b"half of");
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    let end = timeout(Duration::from_secs(5), client.read(&mut [0; 10])).await.expect("in time");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_is_passed_over_and_none_at_all_is_a_reset() {
    let good = server(b"hello").await;
    let dead = ([127, 0, 0, 1], free_port()).into();
    let mut proxy = Proxy::start();
    let port = tcp(&mut proxy, &[dead, good]);
    for _ in 0..20 {
        assert_eq!(read(&mut connect(port).await, 5).await, b"hello");
    }
    proxy.endpoints("db", &[]);
    // It may come so soon that connecting sees it already.
    let end = async { TcpStream::connect(("127.0.0.1", port)).await?.read(&mut [0; 10]).await };
    let end = timeout(Duration::from_secs(5), end).await.expect("in time");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_connection_where_that_was_asked_for() {
    let address = server(b"hello").await;
    let mut proxy = Proxy::start();
    let timeouts = Timeouts { idle: Some(Duration::from_millis(300)), ..Timeouts::default() };
    let port = proxy.service_with("db", &[address], Traffic::Tcp, timeouts);
    let mut client = connect(port).await;
    read(&mut client, 5).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.write_all(b"x").await.unwrap();
        read(&mut client, 1).await;
    }
    let end = timeout(Duration::from_secs(5), client.read(&mut [0; 10])).await.expect("in time");
    assert!(end.is_err() || end.unwrap() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_connections_at_once() {
    let mut proxy = Proxy::start();
    let port = tcp(&mut proxy, &[server(b"h").await]);
    let mut clients = Vec::new();
    for _ in 0..1000 {
        clients.push(connect(port).await);
    }
    for client in &mut clients {
        assert_eq!(read(client, 1).await, b"h");
        client.write_all(b"abc").await.unwrap();
    }
    for client in &mut clients {
        assert_eq!(read(client, 3).await, b"abc");
    }
}

/// The port is there all the time: nobody is refused, and everybody meets the one type or the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_changes_its_type_without_refusing_anybody() {
    let (web, db) = (Backend::start("one").await, server(b"hello").await);
    let mut proxy = Proxy::start();
    let port = proxy.service("db", &[web.address]);
    let asking = tokio::spawn(async move {
        let (mut http, mut tcp) = (0, 0);
        loop {
            let mut client = connect(port).await;
            client.write_all(GET.as_bytes()).await.unwrap();
            let mut first = [0; 5];
            timeout(Duration::from_secs(5), client.read_exact(&mut first)).await.expect("in time").unwrap();
            match &first {
                b"HTTP/" => http += 1,
                b"hello" => tcp += 1,
                other => panic!("{other:?}"),
            }
            // Ends when it has seen tcp after http, and http again.
            if http > 50 && tcp > 50 {
                return;
            }
        }
    });
    for traffic in [Traffic::Tcp, Traffic::default()].into_iter().cycle() {
        if asking.is_finished() {
            break;
        }
        let address = if traffic == Traffic::Tcp { db } else { web.address };
        // Both answer for either for a moment: endpoints and type are two resources.
        proxy.put("db", port, &[address], traffic, Timeouts::default());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    asking.await.unwrap();
}

/// They are told to leave with their next answer, and get one.
#[tokio::test(flavor = "multi_thread")]
async fn requests_on_connections_from_before_are_answered_when_a_port_becomes_tcp() {
    let web = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let port = proxy.service("db", &[web.address]);
    let mut client = KeepAlive::connect(port).await;
    assert!(client.get().await.starts_with("HTTP/1.1 200 "));
    proxy.put("db", port, &[web.address], Traffic::Tcp, Timeouts::default());
    let answer = client.get().await.to_lowercase();
    assert!(answer.starts_with("http/1.1 200 ") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_which_one_port_cannot_become_datagrams_stays_what_it_was() {
    let web = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let port = proxy.service("db", &[web.address]);
    let second = free_port();
    let of = |traffic: Traffic| {
        let one = |port, listen_port| Port {
            port,
            name: format!("port-{port}"),
            listen_port,
            traffic: traffic.clone(),
            timeouts: Timeouts::default(),
            endpoints: endpoints_id("db"),
            split: None,
            restriction: None,
        };
        Resource::Service(Service { id: id("db"), ports: vec![one(80, port), one(81, second)] })
    };
    proxy.apply(of(Traffic::default()));
    let taken = UdpSocket::bind(("::", second)).await.unwrap();
    proxy.apply(of(Traffic::Udp));
    assert_eq!(proxy.applier.rejections().len(), 1);
    for port in [port, second] {
        assert!(exchange(port, GET).await.ends_with("one"));
    }
    drop(taken);
    proxy.apply(of(Traffic::Udp));
    assert!(proxy.applier.rejections().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_may_become_datagrams_and_come_back() {
    let (web, db) = (Backend::start("one").await, server(b"hello").await);
    let names = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut proxy = Proxy::start();
    let port = proxy.service("db", &[web.address]);
    assert!(exchange(port, GET).await.ends_with("one"));
    proxy.put("db", port, &[names.local_addr().unwrap()], Traffic::Udp, Timeouts::default());
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(b"who?", ("127.0.0.1", port)).await.unwrap();
    let mut datagram = [0; 100];
    let (n, _) =
        timeout(Duration::from_secs(5), names.recv_from(&mut datagram)).await.expect("in time").unwrap();
    assert_eq!(&datagram[..n], b"who?");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    proxy.put("db", port, &[db], Traffic::Tcp, Timeouts::default());
    assert_eq!(read(&mut connect(port).await, 5).await, b"hello");

    // There and back while no worker comes to anything.
    let busy = proxy.workers.each_ref().map(Blocked::new);
    proxy.put("db", port, &[names.local_addr().unwrap()], Traffic::Udp, Timeouts::default());
    proxy.put("db", port, &[db], Traffic::Tcp, Timeouts::default());
    drop(busy);
    assert!(proxy.applier.rejections().is_empty(), "{:?}", proxy.applier.rejections());
    assert_eq!(read(&mut connect(port).await, 5).await, b"hello");
}
