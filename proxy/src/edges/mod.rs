//! Who calls whom: requests by source, endpoint and Service, of the last seconds. The operator asks for it when somebody asks
//! the operator.
//!
//! ```text
//! request ends ─▶ this thread's edges ─▶ Edge (atomics) ◀── every 5 s ── Book: what each period had
//!                      │ first sight                                        │
//!                      └─▶ known (lock) ──── fresh ───────────────────────▶ │ ─▶ /edges
//! ```
//!
//! A request finds its edge in a map of its own thread, by addresses: no lock, no name. The figures live in [`window`].

mod window;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use thread_local::ThreadLocal;
use weft_config::edges::{EdgeFigures, PERIOD_SECONDS, ProxyEdges, ServiceName};
use weft_config::{EndpointsId, ServiceId};

use crate::metrics::PortMetrics;
use crate::tables::{Backend, PortEntry};
use window::{Book, Counts};

/// How many edges are counted at a time. Beyond it requests over further ones are only counted as missed.
pub const MOST: usize = 16_384;

/// A request that ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// Where it came from.
    pub source: IpAddr,
    /// The port it came to.
    pub port: &'a PortEntry,
    /// Where a split sent it.
    pub backend: Option<&'a Backend>,
    /// The endpoint that was tried last.
    pub endpoint: Option<SocketAddr>,
    /// With which status; 0: with none.
    pub status: u16,
    /// How long it took.
    pub took: Duration,
}

/// What an edge is found by: addresses, and places in memory that the edge itself keeps from being used for anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: u128,
    endpoint: u128,
    endpoint_port: u16,
    port: usize,
    backend: usize,
}

/// One edge.
struct Edge {
    key: Key,
    service: ServiceId,
    port: u16,
    backend: Option<Arc<EndpointsId>>,
    /// Nothing but its place in memory is of interest: it stays the same when the port's configuration changes.
    _place: Arc<PortMetrics>,
    counts: Counts,
    /// It is no longer counted: who still knows it must forget it.
    dead: AtomicBool,
}

type ByKey = HashMap<Key, Arc<Edge>, RandomState>;

/// What one thread knows.
#[derive(Default)]
struct Local {
    edges: ByKey,
    /// The state of [`Edges::deaths`] that this is good for.
    deaths: u64,
}

#[derive(Default)]
struct Known {
    edges: ByKey,
    /// Not in the book yet.
    fresh: Vec<Arc<Edge>>,
}

/// All edges of this process.
#[derive(Default)]
pub struct Edges {
    local: ThreadLocal<RefCell<Local>>,
    /// Locked when a thread first sees an edge, and for moments by [`Edges::turn`].
    known: Mutex<Known>,
    /// There are [`MOST`]: a thread need not ask for more.
    full: AtomicBool,
    /// Grows when edges die.
    deaths: AtomicU64,
    /// Requests over edges that were too many.
    pub missed: Counter,
    book: Mutex<Book>,
}

impl fmt::Debug for Edges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edges").field("missed", &self.missed.get()).finish_non_exhaustive()
    }
}

impl Edges {
    /// Counts a request. Called once for each, when it ends.
    pub fn count(&self, ended: Ended<'_>) {
        let key = Key::of(&ended);
        let mut local = self.local.get_or_default().borrow_mut();
        let deaths = self.deaths.load(Ordering::Acquire);
        if local.deaths != deaths {
            local.edges.retain(|_, edge| !edge.dead.load(Ordering::Relaxed));
            local.deaths = deaths;
        }
        let failed = ended.status == 0 || ended.status >= 500;
        if let Some(edge) = local.edges.get(&key) {
            edge.counts.add(ended.took, failed);
        } else if let Some(edge) = self.meet(key, &ended) {
            edge.counts.add(ended.took, failed);
            local.edges.insert(key, edge);
        } else {
            self.missed.inc();
        }
    }

    /// The edge, made if there is none. `None`: there are too many.
    #[cold]
    fn meet(&self, key: Key, ended: &Ended<'_>) -> Option<Arc<Edge>> {
        if self.full.load(Ordering::Relaxed) {
            return None;
        }
        let mut known = self.known.lock();
        if let Some(edge) = known.edges.get(&key) {
            return Some(Arc::clone(edge));
        }
        if known.edges.len() >= MOST {
            self.full.store(true, Ordering::Relaxed);
            return None;
        }
        let edge = Arc::new(Edge {
            key,
            service: ended.port.service.clone(),
            port: ended.port.port,
            backend: ended.backend.map(|backend| Arc::clone(&backend.id)),
            _place: Arc::clone(&ended.port.metrics),
            counts: Counts::default(),
            dead: AtomicBool::new(false),
        });
        known.edges.insert(key, Arc::clone(&edge));
        known.fresh.push(Arc::clone(&edge));
        Some(edge)
    }

    /// Closes a period; `now` is in seconds since the epoch. Edges over which nothing went for long die.
    pub fn turn(&self, now: u64) {
        let mut book = self.book.lock();
        book.edges.extend(std::mem::take(&mut self.known.lock().fresh).into_iter().map(Into::into));
        let idle = book.turn(now);
        if idle.is_empty() {
            return;
        }
        let mut known = self.known.lock();
        for edge in idle {
            // A request over it that ends in this very moment is not counted.
            known.edges.remove(&edge.key);
            edge.dead.store(true, Ordering::Relaxed);
        }
        self.full.store(false, Ordering::Relaxed);
        self.deaths.fetch_add(1, Ordering::Release);
    }

    /// The figures of the window that ended last.
    pub fn read(&self) -> ProxyEdges {
        let book = self.book.lock();
        let figures = |entry: &window::Entry| {
            let (failures, buckets) = entry.sum();
            (!buckets.is_empty()).then(|| entry.edge.figures(failures, buckets))
        };
        ProxyEdges { end: book.end, edges: book.edges.iter().filter_map(figures).collect() }
    }

    /// Closes a period whenever its time has come. Runs until dropped.
    pub async fn keep(&self) {
        loop {
            let now = since_epoch();
            let into = Duration::new(now.as_secs() % PERIOD_SECONDS, now.subsec_nanos());
            tokio::time::sleep(Duration::from_secs(PERIOD_SECONDS).saturating_sub(into)).await;
            self.turn(since_epoch().as_secs() / PERIOD_SECONDS * PERIOD_SECONDS);
        }
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl Key {
    fn of(ended: &Ended<'_>) -> Self {
        Self {
            source: bits(ended.source),
            endpoint: ended.endpoint.map_or(0, |endpoint| bits(endpoint.ip())),
            endpoint_port: ended.endpoint.map_or(0, |endpoint| endpoint.port()),
            port: Arc::as_ptr(&ended.port.metrics).addr(),
            backend: ended.backend.map_or(0, |backend| Arc::as_ptr(&backend.id).addr()),
        }
    }
}

impl Edge {
    fn figures(&self, failures: u64, buckets: Vec<(u8, u64)>) -> EdgeFigures {
        let address = |bits| Ipv6Addr::from_bits(bits).to_canonical();
        let named = |service: &ServiceId| ServiceName {
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
        };
        let Key { source, endpoint, endpoint_port, .. } = self.key;
        EdgeFigures {
            source: address(source),
            endpoint: (endpoint_port != 0).then(|| SocketAddr::new(address(endpoint), endpoint_port)),
            service: named(&self.service),
            port: self.port,
            backend: self.backend.as_ref().map(|backend| named(&backend.service)),
            failures,
            buckets,
        }
    }
}

/// The same for both ways in which an IPv4 address is written.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests;
