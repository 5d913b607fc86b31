//! Everything `/metrics` shows.

use std::sync::atomic::AtomicU64;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// From one Service, tens of microseconds, to all of a large cluster.
const COMPILE_BUCKETS: [f64; 8] = [0.000_1, 0.000_5, 0.002_5, 0.01, 0.05, 0.25, 1.0, 5.0];

/// All series of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Config streams open.
    pub streams: Gauge,
    /// Streams whose last update was not answered yet.
    pub unacknowledged: Gauge,
    /// Updates sent over all streams.
    pub updates: Counter,
    /// Bytes of those updates.
    pub update_bytes: Counter,
    /// Resources refused by proxies, counted at each Ack.
    pub rejections: Counter,
    /// Callers turned away.
    pub refused: Counter,
    /// Version of the configuration.
    pub version: Gauge,
    /// Resources in the configuration.
    pub resources: Gauge,
    /// Seconds from a change of the index to its new configuration, compiled and published.
    pub compile: Histogram,
    /// Whether this replica leads.
    pub leading: Gauge,
    /// The conditions of the MeshConfig that is served, by their types: 1 for those that hold. While this replica leads.
    pub conditions: Family<[(&'static str, String); 1], Gauge>,
    /// Looks at a MeshConfig and what it asks for.
    pub reconciliations: Counter,
    /// Reconciliations that failed.
    pub reconcile_failures: Counter,
    /// Requests to the API server; a watch is one.
    pub api_requests: Counter,
    /// Seconds from the start of this process until a proxy that came would have been given everything.
    pub start: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("weft_operator"),
            streams: Gauge::default(),
            unacknowledged: Gauge::default(),
            updates: Counter::default(),
            update_bytes: Counter::default(),
            rejections: Counter::default(),
            refused: Counter::default(),
            version: Gauge::default(),
            resources: Gauge::default(),
            compile: Histogram::new(COMPILE_BUCKETS),
            leading: Gauge::default(),
            conditions: Family::default(),
            reconciliations: Counter::default(),
            reconcile_failures: Counter::default(),
            api_requests: Counter::default(),
            start: Gauge::default(),
        };
        let r = &mut metrics.registry;
        r.register("build", "Version of this operator", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        r.register("config_streams", "Proxies connected to this replica", metrics.streams.clone());
        r.register(
            "config_unacknowledged",
            "Connected proxies that have not answered their last update yet",
            metrics.unacknowledged.clone(),
        );
        r.register("config_updates", "Updates sent to proxies", metrics.updates.clone());
        r.register("config_update_bytes", "Bytes of updates sent to proxies", metrics.update_bytes.clone());
        r.register("config_rejections", "Resources refused by proxies", metrics.rejections.clone());
        r.register(
            "config_refused_callers",
            "Callers turned away from the config stream",
            metrics.refused.clone(),
        );
        r.register(
            "config_version",
            "Version of the configuration, of this replica's own count",
            metrics.version.clone(),
        );
        r.register("config_resources", "Resources in the configuration", metrics.resources.clone());
        r.register(
            "compile_seconds",
            "From changed facts to a published configuration",
            metrics.compile.clone(),
        );
        r.register("leading", "1 while this replica leads", metrics.leading.clone());
        r.register(
            "condition",
            "1 while a condition of the MeshConfig holds, 0 while it does not; of the replica that leads",
            metrics.conditions.clone(),
        );
        r.register(
            "reconciliations",
            "Looks at a MeshConfig and what it asks for",
            metrics.reconciliations.clone(),
        );
        r.register("reconcile_failures", "Reconciliations that failed", metrics.reconcile_failures.clone());
        r.register(
            "api_requests",
            "Requests to the API server; a watch is one",
            metrics.api_requests.clone(),
        );
        r.register_with_unit(
            "start",
            "From the start of this process until it served a complete configuration",
            Unit::Seconds,
            metrics.start.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// Notes how a MeshConfig is.
    pub fn note_conditions(&self, conditions: &[Condition]) {
        for condition in conditions {
            let label = [("type", condition.type_.clone())];
            self.conditions.get_or_create(&label).set(i64::from(condition.status == "True"));
        }
    }

    /// All series in the text format of `OpenMetrics`.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// A gauge that is one higher for as long as this lives.
pub(super) struct Raised<'a>(&'a Gauge);

impl<'a> Raised<'a> {
    pub(super) fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
