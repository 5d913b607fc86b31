//! Everything `/metrics` shows: what each port of a Service carries, and how the proxy itself is.

mod collect;
mod port;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use weft_config::ServiceId;

use crate::edges::Edges;
use crate::http::breaker::Breaker;

use collect::PortCollector;
pub use port::{Count, Level, PortMetrics};

/// The series of one port of a Service.
#[derive(Debug)]
struct Series {
    metrics: Arc<PortMetrics>,
    /// Its circuit breaker, if it has one now.
    breaker: Option<Arc<Breaker>>,
}

/// What this proxy has carried since it began, and how much of it failed by its own account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// HTTP requests and TCP connections.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
}

impl Totals {
    fn add(&mut self, port: &PortMetrics) {
        self.requests += port.total();
        self.failures += port.failures.get();
    }
}

/// The ports there are. Locked when one comes or goes and when the series are read, never by a request.
type Ports = Mutex<BTreeMap<(ServiceId, u16), Series>>;

/// All series of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ports: Arc<Ports>,
    /// What the ports that are gone had counted.
    gone: Mutex<Totals>,
    /// Who calls whom.
    pub edges: Arc<Edges>,
    /// Open downstream connections.
    pub connections: Gauge,
    /// Listen ports bound.
    pub listeners: Gauge,
    /// Resources held.
    pub resources: Gauge,
    /// Resources refused in their latest form.
    pub rejected: Gauge,
    /// Whether the stream to an operator is up.
    pub connected: Gauge,
    /// Updates applied.
    pub updates: Counter,
    /// Failures to write the last-known-good snapshot.
    pub snapshot_failures: Counter,
    /// Seconds since the epoch at which the configuration last changed.
    pub last_update: Gauge<f64, AtomicU64>,
    /// Seconds from the start of this process until a full configuration was in force.
    pub start: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("weft_proxy"),
            ports: Arc::default(),
            gone: Mutex::default(),
            edges: Arc::default(),
            connections: Gauge::default(),
            listeners: Gauge::default(),
            resources: Gauge::default(),
            rejected: Gauge::default(),
            connected: Gauge::default(),
            updates: Counter::default(),
            snapshot_failures: Counter::default(),
            last_update: Gauge::default(),
            start: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register_collector(Box::new(PortCollector(Arc::clone(&self.ports))));
        r.register("build", "Version of this proxy", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        r.register("connections", "Open connections from clients", self.connections.clone());
        r.register("listeners", "Listen ports bound", self.listeners.clone());
        r.register("config_resources", "Resources held", self.resources.clone());
        r.register("config_rejected", "Resources refused in their latest form", self.rejected.clone());
        r.register("config_connected", "1 while the stream to an operator is up", self.connected.clone());
        r.register("config_updates", "Updates applied", self.updates.clone());
        r.register(
            "edges_missed",
            "Requests in no edge: there were too many edges",
            self.edges.missed.clone(),
        );
        r.register("snapshot_failures", "Failed writes of the snapshot", self.snapshot_failures.clone());
        r.register_with_unit(
            "config_last_update_timestamp",
            "When the configuration last changed, since the epoch",
            Unit::Seconds,
            self.last_update.clone(),
        );
        r.register_with_unit(
            "start",
            "From the start of this process until a full configuration was in force",
            Unit::Seconds,
            self.start.clone(),
        );
    }

    /// The series of one port of a Service, whose circuit breaker is now `breaker`.
    pub fn port(&self, service: &ServiceId, port: u16, breaker: Option<Arc<Breaker>>) -> Arc<PortMetrics> {
        let mut ports = self.ports.lock();
        let new = || Series { metrics: Arc::default(), breaker: None };
        let series = ports.entry((service.clone(), port)).or_insert_with(new);
        series.breaker = breaker;
        Arc::clone(&series.metrics)
    }

    /// Forgets the series of all ports of `service` but `kept`.
    pub fn forget_all_but(&self, service: &ServiceId, kept: &[u16]) {
        let all = (service.clone(), 0)..=(service.clone(), u16::MAX);
        let mut ports = self.ports.lock();
        for (_, series) in ports.extract_if(all, |(_, port), _| !kept.contains(port)) {
            self.gone.lock().add(&series.metrics);
        }
    }

    /// All that was carried so far.
    pub fn totals(&self) -> Totals {
        let mut totals = *self.gone.lock();
        for series in self.ports.lock().values() {
            totals.add(&series.metrics);
        }
        totals
    }

    /// All series in the `OpenMetrics` text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;

    #[test]
    fn a_port_has_series_until_it_is_forgotten() {
        let metrics = Metrics::default();
        let service = ServiceId::new("shop", "cart");
        let breaker = Arc::new(Breaker::new(&"NetworkErrorRatio() > 0.5".parse().unwrap()));
        let port = metrics.port(&service, 80, Some(breaker));
        port.answered(&Method::GET, 204, Duration::from_millis(2));
        port.answered(&Method::from_bytes(b"BREW").unwrap(), 0, Duration::from_secs(60));
        port.retries.inc();
        port.failures.inc();
        port.sent.add(10);
        let totals = Totals { requests: 2, failures: 1 };
        assert_eq!(metrics.totals(), totals);
        let text = metrics.encode().unwrap();
        let labels = r#"namespace="shop",service="cart",port="80""#;
        for line in [
            format!(r#"weft_proxy_requests_total{{{labels},method="GET",code_class="2xx"}} 1"#),
            format!(r#"weft_proxy_requests_total{{{labels},method="other",code_class="none"}} 1"#),
            format!(r#"weft_proxy_request_duration_seconds_bucket{{le="0.001",{labels}}} 0"#),
            format!(r#"weft_proxy_request_duration_seconds_bucket{{le="0.0025",{labels}}} 1"#),
            format!(r#"weft_proxy_request_duration_seconds_bucket{{le="+Inf",{labels}}} 2"#),
            format!("weft_proxy_request_duration_seconds_count{{{labels}}} 2"),
            format!("weft_proxy_retries_total{{{labels}}} 1"),
            format!("weft_proxy_failures_total{{{labels}}} 1"),
            format!(r#"weft_proxy_traffic_bytes_total{{{labels},direction="sent"}} 10"#),
            format!("weft_proxy_breaker_state{{{labels}}} 0"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("udp_dropped_total{"), "nothing happened on it:\n{text}");
        metrics.forget_all_but(&service, &[]);
        assert!(!metrics.encode().unwrap().contains("cart"));
        assert_eq!(metrics.totals(), totals, "what was carried was carried");
    }
}
