//! Everything `/metrics` shows. Series of a Service port are made when the port is, so that a request only adds.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use weft_config::ServiceId;

/// Upper bounds in seconds.
const DURATION_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Names one port of a Service.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PortLabels {
    namespace: String,
    service: String,
    port: u16,
}

/// Names the answers of one class on one port of a Service.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClassLabels {
    namespace: String,
    service: String,
    port: u16,
    /// 1xx to 5xx, or `none` when the client went away unanswered.
    code_class: &'static str,
}

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// All series of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<ClassLabels, Counter>,
    durations: Family<PortLabels, Histogram, fn() -> Histogram>,
    retries: Family<PortLabels, Counter>,
    connect_failures: Family<PortLabels, Counter>,
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
}

/// The series of one port of a Service, ready to be added to.
#[derive(Debug)]
pub struct PortMetrics {
    requests: [Counter; 6],
    duration: Histogram,
    /// Requests sent again to another endpoint.
    pub retries: Counter,
    /// Connections to endpoints that could not be made.
    pub connect_failures: Counter,
}

impl PortMetrics {
    /// A request was answered with `status` (0: not answered) after `seconds`.
    pub fn answered(&self, status: u16, seconds: f64) {
        self.requests[usize::from(status / 100).min(5)].inc();
        self.duration.observe(seconds);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("weft_proxy"),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            retries: Family::default(),
            connect_failures: Family::default(),
            connections: Gauge::default(),
            listeners: Gauge::default(),
            resources: Gauge::default(),
            rejected: Gauge::default(),
            connected: Gauge::default(),
            updates: Counter::default(),
            snapshot_failures: Counter::default(),
            last_update: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("build", "Version of this proxy", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        r.register("requests", "Requests by class of the answer's status", self.requests.clone());
        r.register_with_unit(
            "request_duration",
            "Time from the request's header to the end of the answer",
            Unit::Seconds,
            self.durations.clone(),
        );
        r.register("retries", "Requests sent again to another endpoint", self.retries.clone());
        r.register("connect_failures", "Failed connections to endpoints", self.connect_failures.clone());
        r.register("connections", "Open connections from clients", self.connections.clone());
        r.register("listeners", "Listen ports bound", self.listeners.clone());
        r.register("config_resources", "Resources held", self.resources.clone());
        r.register("config_rejected", "Resources refused in their latest form", self.rejected.clone());
        r.register("config_connected", "1 while the stream to an operator is up", self.connected.clone());
        r.register("config_updates", "Updates applied", self.updates.clone());
        r.register("snapshot_failures", "Failed writes of the snapshot", self.snapshot_failures.clone());
        r.register_with_unit(
            "config_last_update_timestamp",
            "When the configuration last changed, since the epoch",
            Unit::Seconds,
            self.last_update.clone(),
        );
    }

    /// The series of one port of a Service.
    pub fn port(&self, service: &ServiceId, port: u16) -> Arc<PortMetrics> {
        let labels = port_labels(service, port);
        let requests =
            CLASSES.map(|class| self.requests.get_or_create(&class_labels(service, port, class)).clone());
        Arc::new(PortMetrics {
            requests,
            duration: self.durations.get_or_create(&labels).clone(),
            retries: self.retries.get_or_create(&labels).clone(),
            connect_failures: self.connect_failures.get_or_create(&labels).clone(),
        })
    }

    /// Forgets the series of a port that is gone.
    pub fn forget(&self, service: &ServiceId, port: u16) {
        let labels = port_labels(service, port);
        for class in CLASSES {
            self.requests.remove(&class_labels(service, port, class));
        }
        self.durations.remove(&labels);
        self.retries.remove(&labels);
        self.connect_failures.remove(&labels);
    }

    /// All series in the `OpenMetrics` text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn port_labels(service: &ServiceId, port: u16) -> PortLabels {
    PortLabels { namespace: service.namespace.to_string(), service: service.name.to_string(), port }
}

fn class_labels(service: &ServiceId, port: u16, code_class: &'static str) -> ClassLabels {
    ClassLabels {
        namespace: service.namespace.to_string(),
        service: service.name.to_string(),
        port,
        code_class,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_series_until_it_is_forgotten() {
        let metrics = Metrics::default();
        let service = ServiceId::new("shop", "cart");
        let port = metrics.port(&service, 80);
        port.answered(204, 0.002);
        port.answered(0, 0.002);
        let text = metrics.encode().unwrap();
        let series = |class, n| {
            format!(
                "weft_proxy_requests_total{{namespace=\"shop\",service=\"cart\",port=\"80\",code_class=\"{class}\"}} {n}"
            )
        };
        assert!(text.contains(&series("2xx", 1)) && text.contains(&series("none", 1)), "{text}");
        assert!(text.contains("weft_proxy_request_duration_seconds_count"), "{text}");
        metrics.forget(&service, 80);
        assert!(!metrics.encode().unwrap().contains("cart"));
    }
}
