//! What a proxy or an operator counts, read from its `/metrics`.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use weft_config::contract::ADMIN_PORT;

use crate::Result;
use crate::cluster::Cluster;
use crate::mesh::{self, NAMESPACE};

/// Requests, by `method` and `code_class`.
pub const REQUESTS: &str = "weft_proxy_requests_total";
/// How long they took: a histogram.
pub const DURATIONS: &str = "weft_proxy_request_duration_seconds";
/// Tries on another endpoint.
pub const RETRIES: &str = "weft_proxy_retries_total";
/// Requests refused by the rate limit.
pub const RATE_LIMITED: &str = "weft_proxy_rate_limited_total";
/// 0 closed, 1 open, 2 recovering.
pub const BREAKER_STATE: &str = "weft_proxy_breaker_state";
/// Endpoints that were passed over for a while.
pub const EJECTIONS: &str = "weft_proxy_ejections_total";
/// Connections to endpoints that could not be made.
pub const CONNECT_FAILURES: &str = "weft_proxy_connect_failures_total";
/// Bytes, by `direction`: `received` from clients, `sent` to them.
pub const BYTES: &str = "weft_proxy_traffic_bytes_total";
/// Requests, connections and datagrams that access control denied.
pub const DENIED: &str = "weft_proxy_denied_total";
/// TCP connections that are open.
pub const TCP_OPEN: &str = "weft_proxy_tcp_connections_open";
/// UDP sessions that there are.
pub const UDP_OPEN: &str = "weft_proxy_udp_sessions_open";

/// All samples at one time.
#[derive(Debug, Clone)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Those of a pod of ours.
    pub async fn of(cluster: &Cluster, pod: &Pod) -> Result<Self> {
        let path =
            format!("/api/v1/namespaces/{NAMESPACE}/pods/{}:{ADMIN_PORT}/proxy/metrics", pod.name_any());
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(Self::parse(&cluster.client.request_text(request).await?))
    }

    /// Those of the proxy on `node`.
    pub async fn on(cluster: &Cluster, node: &str) -> Result<Self> {
        Self::of(cluster, &mesh::proxy_on(cluster, node).await?).await
    }

    fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(parse_line).collect())
    }

    /// The sum of all samples of `name` whose labels include `labels`; nothing when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |sample: &Sample, (key, value): &(&str, &str)| {
            sample.labels.iter().any(|(name, is)| name == key && is == value)
        };
        let mut fitting = self
            .0
            .iter()
            .filter(|sample| sample.name == name && labels.iter().all(|label| has(sample, label)))
            .map(|sample| sample.value);
        let first = fitting.next()?;
        Some(first + fitting.sum::<f64>())
    }

    /// The same where no sample counts as nothing yet.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(name, labels).unwrap_or(0.0)
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    let (series, value) = match line.find('}') {
        Some(end) => (&line[..=end], line[end + 1..].trim()),
        None => line.split_once(' ')?,
    };
    let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
    // Values of ours hold no escapes: names of Kubernetes objects, methods, classes.
    let labels = labels.split("\",").filter_map(|pair| {
        let (key, value) = pair.split_once("=\"")?;
        Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    let value = value.split(' ').next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels: labels.collect(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(
            "# TYPE a counter\na_total{namespace=\"x\",service=\"s, t\"} 3\na_total{namespace=\"y\"} 4 123\nb 1.5\n# EOF\n",
        );
        assert_eq!(metrics.sum("a_total", &[]), Some(7.0));
        assert_eq!(metrics.sum("a_total", &[("namespace", "x"), ("service", "s, t")]), Some(3.0));
        assert_eq!(metrics.sum("a_total", &[("namespace", "z")]), None);
        assert_eq!((metrics.count("c", &[]), metrics.sum("b", &[])), (0.0, Some(1.5)));
    }
}
