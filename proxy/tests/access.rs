//! Access control and splits, by a proxy with real sockets. Callers and backends are told apart by their loopback addresses.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use weft_config::{
    Access, AccountId, Endpoints, Grant, HttpMatch, Identity, Pattern, Port, Resource, ResourceKey,
    Restriction, Service, Split, SplitBackend, Timeouts, Traffic, Update,
};

use support::{Proxy, endpoints_id, free_port, id, until};

/// The caller `n`.
fn caller(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, n).into()
}

/// The address of backend `n`.
fn server(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 1, n).into()
}

fn account(name: &str) -> AccountId {
    AccountId { namespace: "shop".into(), name: name.into() }
}

fn identity(name: &str, addresses: &[IpAddr]) -> Resource {
    Resource::Identity(account(name), Identity { addresses: addresses.to_vec() })
}

fn grant(sources: &[&str]) -> Grant {
    Grant {
        name: "shop/target".into(),
        sources: sources.iter().map(|name| account(name)).collect(),
        http: None,
        tcp: None,
        udp: None,
    }
}

fn to_path(sources: &[&str], path: &str) -> Grant {
    let path = HttpMatch { path: Some(Pattern::at_start(path).unwrap()), ..HttpMatch::default() };
    Grant { http: Some(vec![path]), ..grant(sources) }
}

fn access(name: &str, grants: Vec<Grant>) -> Resource {
    Resource::Access(account(name), Access { grants })
}

fn endpoints(name: &str, ready: &[SocketAddr]) -> Resource {
    Resource::Endpoints(endpoints_id(name), Endpoints { ready: ready.to_vec(), ..Endpoints::default() })
}

fn service(listen_port: u16, traffic: Traffic, split: Option<Split>, denied_status: Option<u16>) -> Resource {
    let port = Port {
        port: 80,
        name: "http".into(),
        listen_port,
        traffic,
        timeouts: Timeouts::default(),
        endpoints: endpoints_id("web"),
        split,
        restriction: denied_status.map(|denied_status| Restriction { denied_status }),
    };
    Resource::Service(Service { id: id("web"), ports: vec![port] })
}

/// A backend at an address of its own that answers its name.
async fn backend(n: u8, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((server(n), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 16384];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn connect(from: u8, port: u16) -> TcpStream {
    try_connect(from, port).await.unwrap()
}

async fn try_connect(from: u8, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((caller(from), 0).into())?;
    socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
}

/// Status and body of `GET <path>` by the caller `from`.
async fn get_with(from: u8, port: u16, path: &str, more: &str) -> (u16, String) {
    let mut stream = connect(from, port).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

async fn get(from: u8, port: u16, path: &str) -> (u16, String) {
    get_with(from, port, path, "").await
}

/// A restricted Service `web` of one backend that runs as `api`; caller 2 runs as `her`, caller 3 as `him`.
async fn restricted(proxy: &mut Proxy, grants: Vec<Grant>) -> u16 {
    let port = free_port();
    let address = backend(1, "one").await;
    proxy.apply_all([
        endpoints("web", &[address]),
        service(port, Traffic::default(), None, Some(403)),
        identity("api", &[server(1)]),
        identity("her", &[caller(2)]),
        identity("him", &[caller(3)]),
        access("api", grants),
    ]);
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_passes_but_what_a_target_allows() {
    let mut proxy = Proxy::start();
    let port = restricted(&mut proxy, vec![to_path(&["her"], "/api")]).await;
    assert_eq!(get(2, port, "/api/1").await, (200, "one".into()));
    let (status, why) = get(2, port, "/").await;
    assert_eq!(status, 403);
    assert_eq!(
        why.trim(),
        "weft: Service shop/web port 80 (http): access denied: it takes a TrafficTarget from ServiceAccount shop/her \
         to ServiceAccount shop/api that allows this on port 80"
    );
    assert_eq!(get(3, port, "/api/1").await.0, 403);
    for forged in
        ["X-Forwarded-For: 127.0.0.2", "Forwarded: for=127.0.0.2", "X-Real-Ip: 127.0.0.2", "Host: her"]
    {
        assert_ne!(get_with(3, port, "/api/1", &format!("{forged}\r\n")).await.0, 200, "{forged}");
    }
    let text = proxy.metrics.encode().unwrap();
    let denied = text.lines().find(|line| line.starts_with("weft_proxy_denied_total")).unwrap();
    assert!(denied.ends_with(" 5") || denied.ends_with(" 6"), "{denied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_nobody_and_a_pod_that_has_just_started_is_waited_for() {
    let mut proxy = Proxy::start();
    let port = restricted(&mut proxy, vec![grant(&["her"])]).await;
    let (status, why) = get(9, port, "/").await;
    assert!(status == 403 && why.contains("127.0.0.9 is no pod"), "{status} {why}");
    let early = tokio::spawn(get(4, port, "/"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!early.is_finished());
    proxy.apply(identity("her", &[caller(2), caller(4)]));
    assert_eq!(early.await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_may_look_as_if_it_were_not_there() {
    let mut proxy = Proxy::start();
    let port = restricted(&mut proxy, vec![]).await;
    proxy.apply(service(port, Traffic::default(), None, Some(404)));
    let (status, body) = get(2, port, "/").await;
    assert_eq!((status, body.trim()), (404, "weft: this port: not found"));
    proxy.apply(service(port, Traffic::default(), None, None));
    assert_eq!(get(2, port, "/").await.0, 200, "not restricted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_understood_allows_nothing() {
    let mut proxy = Proxy::start();
    let port = restricted(&mut proxy, vec![grant(&["her"])]).await;
    assert_eq!(get(2, port, "/").await.0, 200);
    proxy.applier.reject(ResourceKey::Access(account("api")), "from the future".into());
    assert_eq!(get(2, port, "/").await.0, 403);
    proxy.apply(access("api", vec![grant(&["her"])]));
    assert_eq!(get(2, port, "/").await.0, 200);
    let removals = vec![ResourceKey::Access(account("api"))];
    proxy.applier.apply(&Update { upserts: Vec::new(), removals });
    assert_eq!(get(2, port, "/").await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_pods_it_is_allowed_to_reach_get_it() {
    let mut proxy = Proxy::start();
    let port = restricted(&mut proxy, vec![grant(&["her"])]).await;
    let two = [backend(1, "one").await, backend(5, "other").await];
    proxy.apply_all([endpoints("web", &two), identity("other", &[server(5)])]);
    for _ in 0..30 {
        assert_eq!(get(2, port, "/").await, (200, "one".into()));
    }
    // Nobody may be tried instead of the one that is allowed.
    proxy.apply(endpoints("web", &[SocketAddr::new(server(1), 9), two[1]]));
    assert_eq!(get(2, port, "/").await.0, 502);
    proxy.apply_all([endpoints("web", &[two[1]])]);
    assert_eq!(get(2, port, "/").await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_used_again_is_never_the_former_pods() {
    let mut proxy = Proxy::start();
    let port = restricted(&mut proxy, vec![to_path(&["her"], "/her"), to_path(&["him"], "/him")]).await;
    for n in 0..1000 {
        let (now, before) = if n % 2 == 0 { ("her", "him") } else { ("him", "her") };
        let (old, new) = (identity(before, &[]), identity(now, &[caller(7)]));
        if n % 3 == 0 {
            proxy.apply_all([new, old]);
        } else {
            proxy.apply(old);
            proxy.apply(new);
        }
        assert_eq!(get(7, port, &format!("/{before}")).await.0, 403, "round {n}");
        assert_eq!(get(7, port, &format!("/{now}")).await.0, 200, "round {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_every_request_is_answered_by_one_policy() {
    let mut proxy = Proxy::start();
    // In either policy she may ask for one of two paths, so that exactly one of each pair is allowed. A mix of both would
    // allow two, or none.
    let policy =
        |n: u32| access("api", vec![to_path(&["her"], if n.is_multiple_of(2) { "/a" } else { "/b" })]);
    let port = restricted(&mut proxy, vec![to_path(&["her"], "/a")]).await;
    let ended = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU32::new(0));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (ended, asked) = (Arc::clone(&ended), Arc::clone(&asked));
        tasks.push(tokio::spawn(async move {
            while !ended.load(SeqCst) {
                // Allowed as it is sent under one policy, as it is resolved under the other: never under both.
                assert_eq!(get(2, port, "/a/../b").await.0, 403);
                asked.fetch_add(1, SeqCst);
            }
        }));
    }
    let mut n = 0;
    while asked.load(SeqCst) < 500 {
        n += 1;
        proxy.apply(policy(n));
        let path = if n.is_multiple_of(2) { ["/a", "/b"] } else { ["/b", "/a"] };
        assert_eq!((get(2, port, path[0]).await.0, get(2, port, path[1]).await.0), (200, 403), "at once");
    }
    ended.store(true, SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_divides_and_every_part_must_admit() {
    let mut proxy = Proxy::start();
    let port = restricted(&mut proxy, vec![grant(&["her"])]).await;
    let (v1, v2) = (backend(11, "v1").await, backend(12, "v2").await);
    let part = |name: &str, weight| SplitBackend { endpoints: endpoints_id(name), weight, split: None };
    let split = Split { matches: Vec::new(), backends: vec![part("v1", 3), part("v2", 1), part("gone", 5)] };
    proxy.apply_all([
        service(port, Traffic::default(), Some(split), Some(403)),
        endpoints("v1", &[v1]),
        endpoints("v2", &[v2]),
        identity("v1", &[server(11)]),
        identity("v2", &[server(12)]),
        access("v1", vec![grant(&["her", "him"])]),
        access("v2", vec![grant(&["her"])]),
    ]);
    let mut v1s = 0;
    for _ in 0..400 {
        let (status, body) = get(2, port, "/").await;
        assert_eq!(status, 200);
        v1s += u32::from(body == "v1");
    }
    assert!((250..350).contains(&v1s), "{v1s} of 400, three in four expected");
    assert_eq!(get(3, port, "/").await.0, 403, "one of the two does not admit him");
    proxy.apply(access("v2", vec![grant(&["her", "him"])]));
    assert_eq!(get(3, port, "/").await.0, 200);
    // Without endpoints anywhere else the Service's own are better than none.
    proxy.apply_all([endpoints("v1", &[]), endpoints("v2", &[])]);
    assert_eq!(get(2, port, "/").await, (200, "one".into()));
    // What comes back is found.
    let removals = vec![ResourceKey::Endpoints(endpoints_id("v1"))];
    proxy.applier.apply(&Update { upserts: Vec::new(), removals });
    proxy.apply(endpoints("v1", &[v1]));
    assert_eq!(get(2, port, "/").await, (200, "v1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_checked_when_they_begin_and_while_they_last() {
    let mut proxy = Proxy::start();
    let port = restricted(&mut proxy, vec![Grant { tcp: Some(vec![80]), ..grant(&["her"]) }]).await;
    proxy.apply(service(port, Traffic::Tcp, None, Some(403)));
    let mut hers = connect(2, port).await;
    hers.write_all(b"x").await.unwrap();
    let mut buffer = [0; 256];
    assert!(hers.read(&mut buffer).await.unwrap() > 0);
    // The reset may be quicker than the connection.
    if let Ok(mut his) = try_connect(3, port).await {
        let _ = his.write_all(b"x").await;
        assert!(!matches!(his.read(&mut buffer).await, Ok(1..)), "nothing comes back");
    }
    // Requests of HTTP are not known in a connection.
    proxy.apply(access("api", vec![to_path(&["her"], "/")]));
    let cut = tokio::time::timeout(Duration::from_secs(5), hers.read(&mut buffer)).await.expect("it is cut");
    assert!(!matches!(cut, Ok(1..)));
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_are_checked_by_their_source() {
    let mut proxy = Proxy::start();
    let port = restricted(&mut proxy, vec![Grant { tcp: Some(vec![]), ..grant(&["her"]) }]).await;
    let echo = UdpSocket::bind((server(1), 0)).await.unwrap();
    let address = echo.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 256];
        while let Ok((n, from)) = echo.recv_from(&mut buffer).await {
            echo.send_to(&buffer[..n], from).await.unwrap();
        }
    });
    proxy.apply_all([endpoints("web", &[address]), service(port, Traffic::Udp, None, Some(403))]);
    let ask = async |from: u8| {
        let socket = UdpSocket::bind((caller(from), 0)).await.unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        socket
    };
    let answered = async |socket: &UdpSocket| {
        socket.send(b"x").await.unwrap();
        let mut buffer = [0; 16];
        tokio::time::timeout(Duration::from_millis(300), socket.recv(&mut buffer))
            .await
            .is_ok_and(|n| n.is_ok())
    };
    let (hers, his) = (ask(2).await, ask(3).await);
    assert!(answered(&hers).await);
    assert!(!answered(&his).await);
    let metrics = Arc::clone(&proxy.metrics);
    until("the datagram is counted", || metrics.encode().unwrap().contains("weft_proxy_denied_total")).await;
    proxy.apply(access("api", vec![grant(&["him"])]));
    assert!(!answered(&hers).await, "not even in a session there was");
    assert!(answered(&his).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_of_access_control_concerns_connections_that_are_open() {
    let mut proxy = Proxy::start();
    let port = restricted(&mut proxy, vec![grant(&["her"])]).await;
    let tcp = |status| service(port, Traffic::Tcp, None, status);
    proxy.apply(tcp(None));
    let (mut hers, mut his) = (connect(2, port).await, connect(3, port).await);
    let answers = async |stream: &mut TcpStream| {
        let mut buffer = [0; 256];
        let written = stream.write_all(b"x").await.is_ok();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await;
        written && matches!(read, Ok(Ok(1..)))
    };
    assert!(answers(&mut hers).await && answers(&mut his).await);
    proxy.apply(tcp(Some(403)));
    let mut buffer = [0; 16];
    let cut = tokio::time::timeout(Duration::from_secs(5), his.read(&mut buffer)).await.expect("it is cut");
    assert!(!matches!(cut, Ok(1..)), "nothing allows it any more");
    assert!(answers(&mut hers).await);
    // The other way round in one update, with all that is known of accounts gone at once.
    let removals = vec![
        ResourceKey::Identity(account("her")),
        ResourceKey::Identity(account("api")),
        ResourceKey::Access(account("api")),
    ];
    proxy.applier.apply(&Update { upserts: vec![weft_config::Entry::new(tcp(None))], removals });
    for _ in 0..10 {
        assert!(answers(&mut hers).await, "who was allowed stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_be_served_in_its_new_form_is_restricted_all_the_same() {
    let mut proxy = Proxy::start();
    let port = restricted(&mut proxy, vec![grant(&["her"])]).await;
    proxy.apply(service(port, Traffic::default(), None, None));
    assert_eq!(get(3, port, "/").await.0, 200);
    let taken = TcpListener::bind("[::]:0").await.unwrap();
    let Resource::Service(mut both) = service(port, Traffic::default(), None, Some(403)) else {
        panic!("it is one")
    };
    let second = Port { port: 81, listen_port: taken.local_addr().unwrap().port(), ..both.ports[0].clone() };
    both.ports.push(second);
    proxy.apply(Resource::Service(both));
    assert_eq!(proxy.applier.rejections().len(), 1);
    assert_eq!((get(3, port, "/").await.0, get(2, port, "/").await.0), (403, 200));
    let held = proxy.applier.held().lock().get(&ResourceKey::Service(id("web"))).unwrap();
    let Resource::Service(held) = &*held.resource else { panic!("it is one") };
    assert_eq!(held.ports.len(), 1);
    assert!(held.ports[0].restriction.is_some(), "a restart goes by what is held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_leads_to_pods_of_its_own_namespace_only() {
    let mut proxy = Proxy::start();
    let port = restricted(&mut proxy, vec![grant(&["her"])]).await;
    let elsewhere = AccountId { namespace: "else".into(), name: "api".into() };
    let mine = Identity { addresses: vec![server(1)] };
    proxy.apply_all([
        identity("api", &[]),
        Resource::Identity(elsewhere.clone(), mine),
        Resource::Access(elsewhere, Access { grants: vec![grant(&["her"])] }),
    ]);
    let (status, why) = get(2, port, "/").await;
    assert!(status == 403 && why.contains("another namespace"), "{status} {why}");
}
