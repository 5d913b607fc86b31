//! `TrafficMetrics` and `TrafficMetricsList`, as they are written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use weft_config::edges::WINDOW_SECONDS;

use super::figures::Figures;
use super::kind::Reference;

/// The API group.
pub const GROUP: &str = "metrics.smi-spec.io";
/// Its only version.
pub const VERSION: &str = "v1alpha1";
/// Both.
pub const GROUP_VERSION: &str = "metrics.smi-spec.io/v1alpha1";

/// An answer.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Document {
    /// Of one object.
    One(Box<TrafficMetrics>),
    /// Of several, or of one object's edges or shares.
    List(Box<TrafficMetricsList>),
}

/// The metrics of one object, edge or share.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficMetrics {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata,
    timestamp: String,
    window: String,
    resource: Reference,
    edge: Edge,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<Backend>,
    metrics: [Metric; 5],
}

/// As every object has it: clients show the name.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    creation_timestamp: String,
}

/// A list of metrics.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficMetricsList {
    kind: &'static str,
    api_version: &'static str,
    metadata: serde_json::Map<String, serde_json::Value>,
    resource: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<LabelSelector>,
    items: Vec<TrafficMetrics>,
}

/// Which way the traffic went, and at whose side that was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Edge {
    pub(super) direction: Direction,
    pub(super) side: Side,
    pub(super) resource: Peer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    From,
    To,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    Client,
    Server,
}

/// The other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub(super) enum Peer {
    /// Everybody; written as an empty object.
    All {},
    One(Reference),
}

/// A share of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Backend {
    pub(super) apex: String,
    pub(super) name: String,
    pub(super) weight: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Metric {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
    /// A quantity, as Kubernetes writes them.
    value: String,
}

impl TrafficMetrics {
    pub(super) fn new(
        resource: Reference,
        edge: Edge,
        backend: Option<Backend>,
        figures: &Figures,
        end: Timestamp,
    ) -> Self {
        let latency =
            |name, percent| Metric { name, unit: Some("ms"), value: milliseconds(figures.within(percent)) };
        let count = |name, count: u64| Metric { name, unit: None, value: count.to_string() };
        Self {
            kind: "TrafficMetrics",
            api_version: GROUP_VERSION,
            metadata: Metadata {
                name: resource.name.clone().unwrap_or_default(),
                namespace: resource.namespace.clone(),
                creation_timestamp: end.to_string(),
            },
            timestamp: end.to_string(),
            window: format!("{WINDOW_SECONDS}s"),
            resource,
            edge,
            backend,
            metrics: [
                latency("p99_response_latency", 99),
                latency("p90_response_latency", 90),
                latency("p50_response_latency", 50),
                count("success_count", figures.successes()),
                count("failure_count", figures.failures()),
            ],
        }
    }
}

impl TrafficMetricsList {
    pub(super) fn new(
        resource: Reference,
        selector: Option<LabelSelector>,
        items: Vec<TrafficMetrics>,
    ) -> Self {
        let metadata = serde_json::Map::new();
        Self { kind: "TrafficMetricsList", api_version: GROUP_VERSION, metadata, resource, selector, items }
    }
}

/// `1500m` is one and a half: thousandths of a millisecond are microseconds.
fn milliseconds(microseconds: u64) -> String {
    if microseconds.is_multiple_of(1000) {
        (microseconds / 1000).to_string()
    } else {
        format!("{microseconds}m")
    }
}
