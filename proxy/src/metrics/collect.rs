//! Shows the series of all ports. Only series that something happened on are shown: a mesh of thousands of Services has few
//! that one node talks to.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use weft_config::ServiceId;

use super::port::{Count, PortMetrics};
use super::{Ports, Series};
use crate::http::breaker::State;

/// Labels of one series: those of its port and, for some, more.
struct Labels<'a> {
    port: &'a (ServiceId, u16),
    more: &'a [(&'static str, &'static str)],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let (service, port) = self.port;
        ("namespace", &*service.namespace).encode(encoder.encode_label())?;
        ("service", &*service.name).encode(encoder.encode_label())?;
        ("port", u32::from(*port)).encode(encoder.encode_label())?;
        for label in self.more {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// Reads all ports when asked.
#[derive(Debug)]
pub(super) struct PortCollector(pub(super) Arc<Ports>);

/// A counter of each port.
type Counter = (&'static str, &'static str, fn(&PortMetrics) -> &Count);

const COUNTERS: [Counter; 10] = [
    ("failures", "Requests and TCP connections that failed by the proxy's own account", |m| &m.failures),
    ("retries", "Requests and TCP connections tried again on another endpoint", |m| &m.retries),
    ("connect_failures", "Failed connections to endpoints", |m| &m.connect_failures),
    ("rate_limited", "Requests refused because their sender sent too many", |m| &m.rate_limited),
    ("breaker_refused", "Requests refused by the circuit breaker", |m| &m.breaker_refused),
    ("denied", "Requests, connections and datagrams that no TrafficTarget allows", |m| &m.denied),
    ("ejections", "Times an endpoint was passed over for a while", |m| &m.ejections),
    ("tcp_connections", "TCP connections accepted", |m| &m.tcp_connections),
    ("udp_sessions", "UDP sessions begun", |m| &m.udp_sessions),
    ("udp_dropped", "Datagrams dropped", |m| &m.udp_dropped),
];

impl Collector for PortCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let ports = self.0.lock();
        let mut metric = encoder.encode_descriptor(
            "requests",
            "Requests by method and class of the answer",
            None,
            MetricType::Counter,
        )?;
        for (port, series) in &*ports {
            for (method, code_class, n) in series.metrics.requests() {
                let more = [("method", method), ("code_class", code_class)];
                count(&mut metric, port, &more, n)?;
            }
        }
        let help = "Time from the request's header to the end of the answer";
        let mut metric = encoder.encode_descriptor(
            "request_duration",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (port, series) in &*ports {
            let Some(durations) = series.metrics.durations() else { continue };
            let (sum, n, buckets) = durations.read();
            if n > 0 {
                let labels = Labels { port, more: &[] };
                metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, n, &buckets, None)?;
            }
        }
        for (name, help, of) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (port, series) in &*ports {
                count(&mut metric, port, &[], of(&series.metrics).get())?;
            }
        }
        let help = "Bytes of bodies, TCP streams and datagrams, from clients (received) and to them (sent)";
        let mut metric =
            encoder.encode_descriptor("traffic", help, Some(&Unit::Bytes), MetricType::Counter)?;
        for (port, series) in &*ports {
            count(&mut metric, port, &[("direction", "received")], series.metrics.received.get())?;
            count(&mut metric, port, &[("direction", "sent")], series.metrics.sent.get())?;
        }
        for (name, help, of) in LEVELS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (port, series) in &*ports {
                if let Some(level) = of(series) {
                    let labels = Labels { port, more: &[] };
                    metric.encode_family(&labels)?.encode_gauge(&level)?;
                }
            }
        }
        Ok(())
    }
}

/// A gauge of each port; `None`: nothing to show.
type Gauge = (&'static str, &'static str, fn(&Series) -> Option<i64>);

const LEVELS: [Gauge; 3] = [
    ("tcp_connections_open", "Open TCP connections", |s| {
        (s.metrics.tcp_connections.get() > 0).then(|| s.metrics.tcp_open.get())
    }),
    ("udp_sessions_open", "UDP sessions there are", |s| {
        (s.metrics.udp_sessions.get() > 0).then(|| s.metrics.udp_open.get())
    }),
    ("breaker_state", "Circuit breaker: 0 closed, 1 open, 2 recovering", |s| {
        Some(match s.breaker.as_ref()?.state(Instant::now()) {
            State::Closed => 0,
            State::Open => 1,
            State::Recovering => 2,
        })
    }),
];

fn count(
    metric: &mut MetricEncoder<'_>,
    port: &(ServiceId, u16),
    more: &[(&'static str, &'static str)],
    n: u64,
) -> Result<(), fmt::Error> {
    if n == 0 {
        return Ok(());
    }
    metric.encode_family(&Labels { port, more })?.encode_counter::<NoLabelSet, u64, f64>(&n, None)
}
