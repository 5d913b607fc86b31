//! Who called whom, as requests through a proxy with real sockets make it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;

use support::{Backend, Proxy, endpoints_id, exchange, free_port, id, until};
use weft_config::edges::EdgeFigures;
use weft_config::{Endpoints, Port, Resource, Service, Split, SplitBackend, Timeouts, Traffic};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// The edges of the window, once so many requests have ended.
async fn edges(proxy: &Proxy, requests: usize) -> BTreeMap<String, EdgeFigures> {
    let counted = |line: &str| -> usize {
        let of_requests = line.starts_with("weft_proxy_requests_total{");
        line.rsplit(' ').next().filter(|_| of_requests).and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    until("all have ended", || {
        proxy.metrics.encode().unwrap().lines().map(counted).sum::<usize>() == requests
    })
    .await;
    proxy.metrics.edges.turn(5);
    let all = proxy.metrics.edges.read().edges;
    all.into_iter().map(|edge| (edge.service.name.clone(), edge)).collect()
}

fn requests(edge: &EdgeFigures) -> u64 {
    edge.buckets.iter().map(|(_, count)| count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_told_by_source_endpoint_and_service() {
    let good = Backend::start("good").await;
    let bad = Backend::start_status(500, 30).await;
    let mut proxy = Proxy::start();
    let ports = [
        proxy.service("good", &[good.address]),
        proxy.service("bad", &[bad.address]),
        proxy.service("empty", &[]),
    ];
    for port in ports {
        exchange(port, GET).await;
    }
    exchange(ports[0], GET).await;
    let edges = edges(&proxy, 4).await;
    assert_eq!(edges.len(), 3);
    assert!(edges.values().all(|edge| edge.source.to_string() == "127.0.0.1" && edge.port == 80));
    let (good_edge, bad_edge, empty) = (&edges["good"], &edges["bad"], &edges["empty"]);
    assert_eq!((good_edge.endpoint, requests(good_edge), good_edge.failures), (Some(good.address), 2, 0));
    assert_eq!((bad_edge.endpoint, requests(bad_edge), bad_edge.failures), (Some(bad.address), 1, 1));
    let (low, _) = weft_config::edges::bounds(usize::from(bad_edge.buckets[0].0));
    assert!(low >= 25_000, "it took 30 ms: {bad_edge:?}");
    assert_eq!((empty.endpoint, requests(empty), empty.failures), (None, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_request_tells_its_share() {
    let backend = Backend::start("v1").await;
    let mut proxy = Proxy::start();
    let port = free_port();
    let part = SplitBackend { endpoints: endpoints_id("v1"), weight: 1, split: None };
    let web = Port {
        port: 80,
        name: String::new(),
        listen_port: port,
        traffic: Traffic::default(),
        timeouts: Timeouts::default(),
        endpoints: endpoints_id("web"),
        split: Some(Split { matches: Vec::new(), backends: vec![part] }),
        restriction: None,
    };
    let ready = Endpoints { ready: vec![backend.address], ..Endpoints::default() };
    proxy.apply_all([
        Resource::Endpoints(endpoints_id("v1"), ready),
        Resource::Service(Service { id: id("web"), ports: vec![web] }),
    ]);
    exchange(port, GET).await;
    let edges = edges(&proxy, 1).await;
    let share = edges["web"].backend.as_ref().map(|backend| (&*backend.namespace, &*backend.name));
    assert_eq!(share, Some(("shop", "v1")));
}
