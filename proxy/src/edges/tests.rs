use super::*;
use weft_config::edges::bucket;

use crate::tables::PortTraffic;

fn port(edges: &Arc<Edges>, name: &str) -> PortEntry {
    let id = EndpointsId { service: ServiceId::new("shop", name), port: 80 };
    PortEntry {
        service: id.service.clone(),
        port: 80,
        listen_port: 10_000,
        name: "".into(),
        backend: Arc::new(Backend::new(id)),
        split: None,
        restriction: None,
        traffic: PortTraffic::Tcp,
        timeouts: weft_config::Timeouts::default(),
        metrics: Arc::default(),
        edges: Arc::clone(edges),
    }
}

fn ended<'a>(port: &'a PortEntry, source: &str, status: u16) -> Ended<'a> {
    let endpoint = Some("10.0.0.9:8080".parse().unwrap());
    let took = Duration::from_millis(3);
    Ended { source: source.parse().unwrap(), port, backend: None, endpoint, status, took }
}

/// Source, number and failures of each edge.
fn told(edges: &Edges) -> Vec<(String, u64, u64)> {
    let all = edges.read().edges.into_iter().map(|edge| {
        let number = edge.buckets.iter().map(|(_, count)| count).sum();
        (edge.source.to_string(), number, edge.failures)
    });
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}

#[test]
fn an_edge_is_told_for_its_window() {
    let edges = Arc::new(Edges::default());
    let web = port(&edges, "web");
    edges.count(ended(&web, "10.0.0.1", 200));
    assert_eq!(edges.read(), ProxyEdges::default(), "the period is not over");
    edges.turn(5);
    // Both forms of an address are one.
    edges.count(ended(&web, "::ffff:10.0.0.1", 503));
    edges.count(ended(&web, "10.0.0.1", 0));
    edges.count(ended(&web, "10.0.0.1", 404));
    edges.turn(10);
    let told = edges.read();
    assert_eq!(told.end, 10);
    let shop_web = ServiceName { namespace: "shop".into(), name: "web".into() };
    let expected = EdgeFigures {
        source: "10.0.0.1".parse().unwrap(),
        endpoint: Some("10.0.0.9:8080".parse().unwrap()),
        service: shop_web,
        port: 80,
        backend: None,
        failures: 2,
        buckets: vec![(u8::try_from(bucket(3000)).unwrap(), 4)],
    };
    assert_eq!(told.edges, [expected]);
    (0..4).for_each(|i| edges.turn(15 + i));
    assert_eq!(self::told(&edges), [("10.0.0.1".to_owned(), 4, 2)]);
    edges.turn(35);
    assert_eq!(self::told(&edges), [("10.0.0.1".to_owned(), 3, 2)], "the first period has left the window");
    edges.turn(40);
    assert!(edges.read().edges.is_empty());
}

#[test]
fn edges_are_apart_by_source_service_endpoint_and_share() {
    let edges = Arc::new(Edges::default());
    let (web, cart) = (port(&edges, "web"), port(&edges, "cart"));
    let share = Backend::new(EndpointsId { service: ServiceId::new("shop", "v2"), port: 80 });
    edges.count(ended(&web, "10.0.0.1", 200));
    edges.count(ended(&web, "10.0.0.2", 200));
    edges.count(ended(&cart, "10.0.0.1", 200));
    edges.count(Ended { endpoint: None, ..ended(&web, "10.0.0.1", 200) });
    edges.count(Ended { backend: Some(&share), ..ended(&web, "10.0.0.1", 200) });
    edges.turn(5);
    let all = edges.read().edges;
    assert_eq!(all.len(), 5);
    let backends: Vec<_> = all.iter().filter_map(|edge| edge.backend.as_ref()).collect();
    assert_eq!(backends, [&ServiceName { namespace: "shop".into(), name: "v2".into() }]);
    assert_eq!(all.iter().filter(|edge| edge.endpoint.is_none()).count(), 1);
}

#[test]
fn an_idle_edge_dies_everywhere_and_may_come_again() {
    let edges = Arc::new(Edges::default());
    let web = port(&edges, "web");
    edges.count(ended(&web, "10.0.0.1", 200));
    edges.count(ended(&web, "10.0.0.2", 200));
    let alive = || edges.known.lock().edges.len();
    for i in 0..u64::from(window::PATIENCE) {
        edges.turn(5 * i);
        edges.count(ended(&web, "10.0.0.2", 200));
        assert_eq!(alive(), 2);
    }
    edges.turn(1000);
    assert_eq!(alive(), 1);
    edges.count(ended(&web, "10.0.0.2", 200));
    assert_eq!(edges.local.get().unwrap().borrow().edges.len(), 1, "the thread forgot it, too");
    edges.count(ended(&web, "10.0.0.1", 200));
    edges.turn(1005);
    assert_eq!(told(&edges)[0], ("10.0.0.1".to_owned(), 1, 0));
}

#[test]
fn too_many_are_missed_and_counted_as_such() {
    let edges = Arc::new(Edges::default());
    let web = port(&edges, "web");
    for i in 0..u32::try_from(MOST).unwrap() + 3 {
        let source = std::net::Ipv4Addr::from_bits(0x0a00_0000 + i);
        edges.count(ended(&web, &source.to_string(), 200));
    }
    assert_eq!(edges.missed.get(), 3);
    (0..=window::PATIENCE).for_each(|i| edges.turn(u64::from(i)));
    edges.count(ended(&web, "10.99.0.1", 200));
    assert_eq!(edges.missed.get(), 3, "there is room again");
}

#[test]
fn threads_count_on_the_same_edge_and_nothing_is_lost() {
    let edges = Arc::new(Edges::default());
    let web = port(&edges, "web");
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| (0..10_000).for_each(|_| edges.count(ended(&web, "10.0.0.1", 500))));
        }
        edges.turn(1);
    });
    edges.turn(2);
    assert_eq!(told(&edges), [("10.0.0.1".to_owned(), 40_000, 40_000)]);
}
