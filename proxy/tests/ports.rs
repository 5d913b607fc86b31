//! Listen ports: what is let in on them, and how they pass from one Service to another.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{Backend, Blocked, Proxy, exchange, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_config::status::Holder;

/// Nothing is refused, and each of these Services, whose backends answer with its name, is carried on this port.
async fn all_carried(proxy: &Proxy, services: impl IntoIterator<Item = (&str, u16)>) {
    assert!(proxy.applier.rejections().is_empty(), "{:?}", proxy.applier.rejections());
    for (name, port) in services {
        let answer = exchange(port, "GET / HTTP/1.0\r\n\r\n").await;
        assert!(answer.contains(" 200 OK") && answer.ends_with(name), "{name} {port}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_held_until_its_connections_have_left() {
    let backend = Backend::start("one").await;
    let mut proxy = Proxy::start();
    let port = proxy.service("cart", &[backend.address]);
    let mut client = support::KeepAlive::connect(port).await;
    assert!(client.get().await.contains(" 200 OK"));
    let for_whom = |proxy: &Proxy| proxy.listeners.holders([port, free_port()].into_iter());
    let cart = Holder { listen_port: port, namespace: "shop".into(), name: "cart".into(), port: 80 };
    assert_eq!(for_whom(&proxy), [cart]);
    proxy.remove("cart");
    support::until("nobody new is let in", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err())
        .await;
    assert_eq!(proxy.listeners.held_ports(), [port], "a client is still connected");
    assert_eq!(for_whom(&proxy), []);
    let answer = client.get().await;
    assert!(answer.contains(" 503 ") && answer.to_lowercase().contains("connection: close"), "{answer:?}");
    drop(client);
    support::until("the port is free", || proxy.listeners.held_ports().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_cannot_be_had_is_refused_alone() {
    let taken = std::net::TcpListener::bind("[::]:0").unwrap();
    let backend = Backend::start("one").await;
    let mut proxy = Proxy::start();
    proxy.service_on("cart", taken.local_addr().unwrap().port(), &[backend.address]);
    let why = proxy.applier.rejections().values().next().expect("it is refused").clone();
    assert!(why.contains("cannot listen"), "{why}");
    let port = free_port();
    proxy.service_on("other", port, &[backend.address]);
    assert!(exchange(port, "GET / HTTP/1.0\r\n\r\n").await.contains(" 200 OK"));
    assert_eq!(proxy.applier.rejections().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_leave_descriptors_for_connections_and_who_is_refused_one_gets_it_when_another_is_closed() {
    let backend = Backend::start("one").await;
    // Room for three ports.
    let mut proxy = Proxy::with_files(4);
    let ports = ["a", "b", "c"].map(|name| proxy.service(name, &[backend.address]));
    let (fourth, fifth) = (free_port(), free_port());
    proxy.service_on("d", fourth, &[backend.address]);
    proxy.service_on("e", fifth, &[backend.address]);
    let why = proxy.applier.rejections().values().next().expect("it is refused").clone();
    assert!(why.contains("3 ports are open") && why.contains("raise the limit"), "{why}");
    assert_eq!(proxy.applier.rejections().len(), 2);
    assert!(TcpStream::connect(("127.0.0.1", fourth)).await.is_err());
    assert!(exchange(ports[0], "GET / HTTP/1.0\r\n\r\n").await.contains(" 200 OK"));

    proxy.remove("b");
    let refused: Vec<_> = proxy.applier.rejections().keys().map(ToString::to_string).collect();
    assert_eq!(refused, ["Service shop/e"]);
    assert!(exchange(fourth, "GET / HTTP/1.0\r\n\r\n").await.contains(" 200 OK"));
    // What is no longer wanted is not tried any more.
    proxy.remove("e");
    proxy.remove("a");
    assert!(proxy.applier.rejections().is_empty());
    assert!(TcpStream::connect(("127.0.0.1", fifth)).await.is_err());
}

/// As for a proxy that has missed the changes in between. Found by the operator's model, seed 22265.
#[tokio::test(flavor = "multi_thread")]
async fn services_that_take_each_others_ports_in_one_update_all_get_theirs() {
    let backends = [Backend::start("a").await, Backend::start("b").await, Backend::start("c").await];
    let mut proxy = Proxy::start();
    let names = ["a", "b", "c"];
    let ports: Vec<_> =
        names.iter().zip(&backends).map(|(name, backend)| proxy.service(name, &[backend.address])).collect();
    let free = free_port();
    proxy.move_to(&[("a", ports[1]), ("b", ports[2]), ("c", free)]);
    all_carried(&proxy, [("a", ports[1]), ("b", ports[2]), ("c", free)]).await;
}

/// As when somebody has edited shadows while no operator led: each change comes alone, and those before the last cannot be taken.
#[tokio::test(flavor = "multi_thread")]
async fn services_that_change_places_one_after_the_other_all_get_theirs() {
    let names = ["a", "b", "c"];
    let backends = [Backend::start("a").await, Backend::start("b").await, Backend::start("c").await];
    let mut proxy = Proxy::start();
    let ports: Vec<_> =
        names.iter().zip(&backends).map(|(name, one)| proxy.service(name, &[one.address])).collect();
    proxy.move_to(&[("a", ports[1])]);
    assert_eq!(proxy.applier.rejections().len(), 1, "it is another's");
    assert!(exchange(ports[0], "GET / HTTP/1.0\r\n\r\n").await.ends_with('a'), "it goes on as it was");
    for places in [[1, 0, 2], [0, 1, 2], [1, 2, 0], [0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]] {
        for (name, place) in names.iter().zip(places) {
            proxy.move_to(&[(name, ports[place])]);
        }
        all_carried(&proxy, [0, 1, 2].map(|i| (names[i], ports[places[i]]))).await;
    }
}

/// The loops that accept are ended when their workers come to it. A port must not be refused to its next Service until then: nothing
/// would try it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_changes_hands_in_one_update_however_busy_the_workers_are() {
    let backends = [Backend::start("a").await, Backend::start("b").await];
    let mut proxy = Proxy::start();
    let [port, _] =
        [("a", &backends[0]), ("b", &backends[1])].map(|(name, one)| proxy.service(name, &[one.address]));
    let (busy, free) = (proxy.workers.each_ref().map(Blocked::new), free_port());
    proxy.move_to(&[("a", free), ("b", port)]);
    drop(busy);
    all_carried(&proxy, [("a", free), ("b", port)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_let_in_for_one_service_is_not_carried_to_the_next_on_that_port() {
    let backends = [Backend::start("a").await, Backend::start("b").await];
    let mut proxy = Proxy::start();
    let [port, _] =
        [("a", &backends[0]), ("b", &backends[1])].map(|(name, one)| proxy.service(name, &[one.address]));
    // The worker that listens has a connection already, so the next one goes to the other, which does not come to it.
    let beside = loop {
        let free = free_port();
        if free % 2 == port % 2 {
            break free;
        }
    };
    proxy.service_on("c", beside, &[backends[0].address]);
    let mut kept = support::KeepAlive::connect(beside).await;
    assert!(kept.get().await.contains(" 200 OK"));
    let busy = Blocked::new(&proxy.workers[usize::from(port + 1) % 2]);
    let mut late = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    support::until("it is let in", || proxy.listeners.open_connections() == 2).await;
    late.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    proxy.remove("a");
    assert!(proxy.listeners.held_ports().contains(&port), "it has not left");
    proxy.move_to(&[("b", port)]);
    assert!(proxy.applier.rejections().is_empty(), "{:?}", proxy.applier.rejections());
    drop(busy);
    let mut answer = String::new();
    let read = late.read_to_string(&mut answer).await;
    assert_eq!(answer, "", "{read:?}");
    assert!(exchange(port, "GET / HTTP/1.0\r\n\r\n").await.ends_with('b'));
}
