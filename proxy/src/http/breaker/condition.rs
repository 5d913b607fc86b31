//! An expression whose metrics are resolved to what counts them.

use weft_config::expression::{Expression, Metric, Op};

use super::metrics::{Answers, Metrics, Reading};

/// When the breaker opens.
#[derive(Debug)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Compare { left: Measured, op: Op, right: f64 },
}

/// Where a metric's value comes from.
#[derive(Debug)]
pub(super) enum Measured {
    /// One counter divided by another.
    Ratio { of: usize, among: usize },
    /// Milliseconds at this percentage.
    Latency { quantile: f64 },
}

impl Condition {
    /// Resolves `expression`, and has `metrics` count what it needs.
    pub(super) fn new(expression: &Expression, metrics: &mut Metrics) -> Self {
        match expression {
            Expression::And(parts) => Self::All(parts.iter().map(|part| Self::new(part, metrics)).collect()),
            Expression::Or(parts) => Self::Any(parts.iter().map(|part| Self::new(part, metrics)).collect()),
            Expression::Not(inner) => Self::Not(Box::new(Self::new(inner, metrics))),
            Expression::Compare { metric, op, value } => {
                Self::Compare { left: Measured::new(metric, metrics), op: *op, right: *value }
            }
        }
    }

    pub(super) fn holds(&self, reading: &Reading) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(reading)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(reading)),
            Self::Not(inner) => !inner.holds(reading),
            Self::Compare { left, op, right } => op.holds(left.value(reading), *right),
        }
    }
}

impl Measured {
    fn new(metric: &Metric, metrics: &mut Metrics) -> Self {
        match *metric {
            Metric::NetworkErrorRatio => {
                Self::Ratio { of: metrics.count(Answers::NetworkErrors), among: Metrics::ALL }
            }
            Metric::LatencyAtQuantileMs(quantile) => {
                metrics.time();
                Self::Latency { quantile }
            }
            Metric::ResponseCodeRatio { from, to, divided_by_from, divided_by_to } => Self::Ratio {
                of: metrics.count(Answers::Within { from, to }),
                among: metrics.count(Answers::Within { from: divided_by_from, to: divided_by_to }),
            },
        }
    }

    fn value(&self, reading: &Reading) -> f64 {
        match *self {
            Self::Ratio { of, among } => reading.ratio(of, among),
            Self::Latency { quantile } => reading.latency_ms(quantile),
        }
    }
}
