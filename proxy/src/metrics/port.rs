//! The series of one port of a Service. Made when the port is; a request only adds, and takes no lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::Method;

/// Methods that are told apart; all others are `other`, so that no caller can make series.
pub(super) const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "other"];
/// Classes of answers; `none`: the client went away unanswered.
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Upper bounds of the duration histogram, in microseconds.
pub(super) const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// A number that grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// How many now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// How long requests took. The last bucket has no bound.
#[derive(Debug, Default)]
pub(super) struct Durations {
    buckets: [Count; BOUNDS_US.len() + 1],
    sum_us: Count,
}

impl Durations {
    fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)].inc();
        self.sum_us.add(us);
    }

    /// Sum in seconds, count, and the count of each bucket with its bound in seconds.
    #[allow(clippy::cast_precision_loss, reason = "a sum of microseconds is exact for three centuries")]
    pub(super) fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(Count::get)).collect();
        (self.sum_us.get() as f64 / 1e6, buckets.iter().map(|(_, count)| count).sum(), buckets)
    }
}

/// What became of requests.
#[derive(Debug, Default)]
struct Answers {
    requests: [[Count; CLASSES.len()]; METHODS.len()],
    durations: Durations,
}

/// The series of one port of a Service.
#[derive(Debug, Default)]
pub struct PortMetrics {
    /// Made with the first request: of thousands of ports a node talks to few.
    answers: OnceLock<Box<Answers>>,
    /// Requests and TCP connections that failed by our own account: not what a policy refuses, nor what an endpoint answers.
    pub failures: Count,
    /// Requests sent again, and TCP connections tried again.
    pub retries: Count,
    /// Connections to endpoints that could not be made.
    pub connect_failures: Count,
    /// Requests refused because their sender sent too many.
    pub rate_limited: Count,
    /// Requests refused by the circuit breaker.
    pub breaker_refused: Count,
    /// Requests, connections and datagrams that access control denied.
    pub denied: Count,
    /// Endpoints passed over for a while.
    pub ejections: Count,
    /// Bytes of bodies, TCP streams and datagrams from clients.
    pub received: Count,
    /// The same, to clients.
    pub sent: Count,
    /// TCP connections accepted.
    pub tcp_connections: Count,
    /// TCP connections open.
    pub tcp_open: Level,
    /// UDP sessions begun.
    pub udp_sessions: Count,
    /// UDP sessions there are.
    pub udp_open: Level,
    /// Datagrams dropped: no endpoint, too many sessions, or the receiver's queue was full.
    pub udp_dropped: Count,
}

impl PortMetrics {
    /// A request was answered with `status` (0: not answered) after `duration`.
    pub fn answered(&self, method: &Method, status: u16, duration: Duration) {
        let method = match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::POST => 2,
            Method::PUT => 3,
            Method::DELETE => 4,
            Method::PATCH => 5,
            Method::OPTIONS => 6,
            _ => 7,
        };
        let answers = self.answers.get_or_init(Box::default);
        answers.requests[method][usize::from(status / 100).min(5)].inc();
        answers.durations.observe(duration);
    }

    /// How long requests took; `None`: there was none.
    pub(super) fn durations(&self) -> Option<&Durations> {
        self.answers.get().map(|answers| &answers.durations)
    }

    /// HTTP requests and TCP connections so far.
    pub(super) fn total(&self) -> u64 {
        let buckets = self.durations().into_iter().flat_map(|durations| &durations.buckets);
        buckets.chain([&self.tcp_connections]).map(Count::get).sum()
    }

    /// Requests so far, by method and class; only those there were.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let answers = self.answers.get().into_iter();
        let rows = answers.flat_map(|answers| METHODS.into_iter().zip(&answers.requests));
        let cells = rows.flat_map(|(method, row)| {
            CLASSES.into_iter().zip(row).map(move |(class, count)| (method, class, count))
        });
        cells.map(|(method, class, count)| (method, class, count.get())).filter(|(_, _, count)| *count > 0)
    }
}
