//! Weft's proxy as the DaemonSet runs it, from a snapshot: there is no operator here.

use std::path::Path;

use weft_config::{
    Endpoints, EndpointsId, Entry, HttpPolicy, Port, Resource, ResourceSet, Scheme, Service, ServiceId,
    Timeouts, Traffic, snapshot,
};

use super::Start;
use crate::Result;
use crate::ports::{
    ADMIN, BACKEND_BULK, BACKEND_ECHO, BACKEND_H2C, BACKEND_HTTP, BACKEND_UDP, MANY, front, local,
};

pub(super) fn prepare(program: &Path, work: &Path, services: u16) -> Result<Start> {
    let directory = work.join("weft");
    std::fs::create_dir_all(&directory)?;
    let mut set = ResourceSet::default();
    if services == 1 {
        let h2c = HttpPolicy { scheme: Scheme::H2c, ..HttpPolicy::default() };
        for (name, backend, traffic) in [
            ("http", BACKEND_HTTP, Traffic::default()),
            ("h2c", BACKEND_H2C, Traffic::Http(h2c)),
            ("echo", BACKEND_ECHO, Traffic::Tcp),
            ("bulk", BACKEND_BULK, Traffic::Tcp),
            ("udp", BACKEND_UDP, Traffic::Udp),
        ] {
            add(&mut set, name, front(backend), traffic, backend);
        }
    }
    for number in 0..services {
        add(&mut set, &format!("svc-{number}"), MANY + number, Traffic::default(), BACKEND_HTTP);
    }
    snapshot::write(&directory.join("config"), &set)?;
    let mut start = Start::new(program, ["--worker-threads=1", "--log-level=warn"]);
    start
        .arguments
        .extend([format!("--snapshot-dir={}", directory.display()), format!("--admin-port={ADMIN}")]);
    // Nobody is there: it goes on from its snapshot.
    start.environment.push(("WEFT_OPERATOR_URL", "https://127.0.0.1:1".to_owned()));
    start.environment.push(("NODE_NAME", "bench".to_owned()));
    start.environment.push(("POD_NAME", "bench".to_owned()));
    Ok(start)
}

fn add(set: &mut ResourceSet, name: &str, listen_port: u16, traffic: Traffic, backend: u16) {
    let service = ServiceId::new("bench", name);
    let id = EndpointsId { service: service.clone(), port: 80 };
    let endpoints = Endpoints { ready: vec![local(backend)], ..Endpoints::default() };
    set.insert(Entry::new(Resource::Endpoints(id.clone(), endpoints)));
    let port = Port {
        port: 80,
        name: "bench".into(),
        listen_port,
        traffic,
        timeouts: Timeouts::default(),
        endpoints: id,
        split: None,
        restriction: None,
    };
    set.insert(Entry::new(Resource::Service(Service { id: service, ports: vec![port] })));
}
