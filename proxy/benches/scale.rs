//! A proxy with the configuration of a large cluster, without one: `cargo bench -p weft-proxy --bench scale -- 10000` prints,
//! for so many Services with five endpoints each, how long it takes until they are in force, the memory, and the time one
//! changed endpoint takes. `make bench-scale` measures the same on a real cluster; this is for looking into the proxy alone.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_config::{
    Endpoints, EndpointsId, Entry, Port, Resource, ResourceSet, Service, ServiceId, Timeouts, Traffic,
    Update, snapshot,
};
use weft_proxy::access_log::{AccessLog, Format};
use weft_proxy::listen::{Carriers, Listeners, start_worker};
use weft_proxy::metrics::Metrics;
use weft_proxy::sync::Sync;
use weft_proxy::tables::Tables;
use weft_proxy::tables::apply::Applier;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Changes of endpoints that are timed.
const CHANGES: usize = 5000;

fn id(number: usize) -> ServiceId {
    ServiceId::new(format!("team-{}", number / 100), format!("service-{number}"))
}

fn endpoints(number: usize, spare: u8) -> Entry {
    let host = u32::try_from(number * 16).unwrap();
    let address = |one: u8| std::net::Ipv4Addr::from(0x0a40_0000 + host + u32::from(one));
    let ready = [spare, 1, 2, 3, 4].into_iter().map(|one| (address(one), 8080).into()).collect();
    let id = EndpointsId { service: id(number), port: 80 };
    Entry::new(Resource::Endpoints(id, Endpoints { ready, ..Endpoints::default() }))
}

fn service(number: usize) -> Entry {
    let port = Port {
        port: 80,
        name: "http".into(),
        listen_port: 10_000 + u16::try_from(number).unwrap(),
        traffic: Traffic::default(),
        timeouts: Timeouts::default(),
        endpoints: EndpointsId { service: id(number), port: 80 },
        split: None,
        restriction: None,
    };
    Entry::new(Resource::Service(Service { id: id(number), ports: vec![port] }))
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, serve, directory, services] = &arguments[..]
        && serve == "serve"
    {
        return serve_from(Path::new(directory), services.parse().unwrap());
    }
    let services = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(1000);
    let directory = std::env::temp_dir().join(format!("weft-bench-scale-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let set: ResourceSet = (0..services).flat_map(|number| [endpoints(number, 0), service(number)]).collect();
    snapshot::write(&directory.join("config"), &set).unwrap();
    // In a process of its own, which has not held all this before.
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["serve", directory.to_str().unwrap(), &services.to_string()]);
    assert!(child.status().unwrap().success());
    std::fs::remove_dir_all(&directory).unwrap();
}

/// In MiB: `VmRSS` now, `VmHWM` at most.
fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

#[tokio::main(flavor = "current_thread")]
async fn serve_from(directory: &Path, services: usize) {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let began = Instant::now();
    let (tables, metrics) = (Arc::new(Tables::default()), Arc::new(Metrics::default()));
    let workers = [0, 1].map(|number| start_worker(number).unwrap());
    let carriers =
        Carriers::new(Arc::clone(&tables), "node1", &workers, AccessLog::new(Format::Off).unwrap()).unwrap();
    let listeners = Arc::new(Listeners::new(carriers, Arc::clone(&metrics)));
    let idle = memory("VmRSS");
    // Another that holds nothing, for the changes: that of the first is not to be had.
    let applier = Applier::new(Arc::clone(&tables), Arc::clone(&listeners), Arc::clone(&metrics));
    let (_sync, view) = Sync::new(applier, Arc::clone(&metrics), directory);
    assert!(*view.complete.borrow());
    let took = began.elapsed();
    assert_eq!(view.held.lock().len(), services * 2, "{:?}", view.status.load().rejections.first());
    // The allocator gives back what was needed to read it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!(
        "{services} Services are in force after {:.2} s; idle {idle:.1} MiB, now {:.1} MiB, at most {:.1} MiB",
        took.as_secs_f64(),
        memory("VmRSS"),
        memory("VmHWM"),
    );

    let mut applier = Applier::new(Arc::default(), listeners, metrics);
    applier
        .apply(&Update { upserts: (0..services).map(|n| endpoints(n, 0)).collect(), removals: Vec::new() });
    let changes: Vec<_> = (1..=CHANGES)
        .map(|turn| {
            endpoints(turn * 7919 % services, if (turn / services).is_multiple_of(2) { 6 } else { 7 })
        })
        .collect();
    let began = Instant::now();
    for change in changes {
        applier.apply(&Update { upserts: vec![change], removals: Vec::new() });
    }
    println!("a changed endpoint: {:?}", began.elapsed() / u32::try_from(CHANGES).unwrap());
}
