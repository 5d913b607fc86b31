//! The same breaker, written down without a thought to cost, and random traffic through both.

use std::time::Duration;

use proptest::prelude::*;
use weft_config::expression::{Expression, Metric};

use super::super::State;
use super::super::metrics::float;
use super::Bench;

/// Keeps every answer.
struct Naive {
    expression: Expression,
    /// Second, status, microseconds.
    answers: Vec<(u64, u16, u64)>,
    tripped: Option<u64>,
    looked: Option<u64>,
    /// Whether there was an answer since.
    answered: bool,
    earned: u64,
}

impl Naive {
    fn state(&self, now: u64) -> State {
        match self.tripped.map(|tripped| now - tripped) {
            Some(..10_000) => State::Open,
            Some(..20_000) => State::Recovering,
            _ => State::Closed,
        }
    }

    fn look(&mut self, now: u64) {
        if !self.answered
            || self.state(now) == State::Open
            || self.looked.is_some_and(|looked| now < looked + 100)
        {
            return;
        }
        (self.looked, self.answered) = (Some(now), false);
        self.answers.retain(|(second, ..)| second + 10 > now / 1000);
        if !self.answers.is_empty() && self.holds(&self.expression) {
            (self.tripped, self.earned) = (Some(now), 0);
            self.answers.clear();
        }
    }

    /// Recovering, the n-th request since the trip passes when the shares up to it go beyond a whole number.
    fn passes(&mut self, now: u64) -> bool {
        self.look(now);
        match self.state(now) {
            State::Closed => true,
            State::Open => false,
            State::Recovering => {
                let before = self.earned;
                self.earned += (now - self.tripped.unwrap() - 10_000).max(1);
                before.div_ceil(10_000) != self.earned.div_ceil(10_000)
            }
        }
    }

    fn record(&mut self, now: u64, status: u16, micros: u64) {
        let started = now - micros / 1000;
        if self.state(now) != State::Open && self.tripped.is_none_or(|tripped| started > tripped) {
            self.answers.push((now / 1000, status, micros));
            self.answered = true;
            self.look(now);
        }
    }

    fn holds(&self, expression: &Expression) -> bool {
        match expression {
            Expression::And(parts) => parts.iter().all(|part| self.holds(part)),
            Expression::Or(parts) => parts.iter().any(|part| self.holds(part)),
            Expression::Not(inner) => !self.holds(inner),
            Expression::Compare { metric, op, value } => op.holds(self.value(metric), *value),
        }
    }

    fn value(&self, metric: &Metric) -> f64 {
        let count = |counted: &dyn Fn(u16) -> bool| {
            f64::from(u32::try_from(self.answers.iter().filter(|(_, s, _)| counted(*s)).count()).unwrap())
        };
        let ratio = |of: f64, among: f64| if among == 0.0 { 0.0 } else { of / among };
        match *metric {
            Metric::NetworkErrorRatio => ratio(count(&|s| s == 502 || s == 504), count(&|_| true)),
            Metric::ResponseCodeRatio { from, to, divided_by_from, divided_by_to } => ratio(
                count(&|s| (from..to).contains(&s)),
                count(&|s| (divided_by_from..divided_by_to).contains(&s)),
            ),
            Metric::LatencyAtQuantileMs(quantile) => {
                let mut all: Vec<u64> = self.answers.iter().map(|(.., micros)| *micros).collect();
                all.sort_unstable();
                let all: Vec<f64> = all.into_iter().map(rounded_ms).collect();
                let enough = |n: usize| float(n as u64) >= quantile * float(all.len() as u64) / 100.0;
                all[(1..=all.len()).find(|&n| enough(n)).unwrap() - 1]
            }
        }
    }
}

/// To the middle of one of 64 steps between this power of two and the next.
fn rounded_ms(micros: u64) -> f64 {
    let step = (1..=micros).rev().find(|n| n.is_power_of_two()).map_or(1, |power| (power / 64).max(1));
    (float(micros / step * step) + float(step - 1) / 2.0) / 1000.0
}

fn expressions() -> impl Strategy<Value = String> {
    let metric = prop::sample::select(vec![
        "NetworkErrorRatio()",
        "ResponseCodeRatio(500, 600, 0, 600)",
        "ResponseCodeRatio(500, 600, 200, 300)",
        "ResponseCodeRatio(200, 300, 400, 400)",
        "LatencyAtQuantileMS(0)",
        "LatencyAtQuantileMS(50)",
        "LatencyAtQuantileMS(99.9)",
    ]);
    let op = prop::sample::select(vec![">", ">=", "<", "<=", "==", "!="]);
    let value = prop::sample::select(vec!["0", "0.25", "0.5", "1", "5", "20"]);
    let compare = (metric, op, value).prop_map(|(metric, op, value)| format!("{metric} {op} {value}"));
    compare.prop_recursive(3, 8, 3, |inner| {
        let joined = |by: &'static str| {
            prop::collection::vec(inner.clone(), 2..4).prop_map(move |all| format!("({})", all.join(by)))
        };
        prop_oneof![joined(" && "), joined(" || "), inner.clone().prop_map(|inner| format!("!({inner})"))]
    })
}

/// How long until the next request, its status, and its latency in microseconds.
fn requests() -> impl Strategy<Value = Vec<(u64, u16, u64)>> {
    let gap = prop_oneof![8 => 0_u64..60, 4 => 60_u64..1_500, 1 => 1_500_u64..12_000];
    let status = prop::sample::select(vec![200, 200, 204, 404, 500, 502, 503, 504, 600]);
    let micros = prop_oneof![3 => 0_u64..2_000, 2 => 0_u64..60_000];
    prop::collection::vec((gap, status, micros), 1..200)
}

proptest! {
    /// Whatever the expression and whatever comes: the same requests pass, and the state is the same.
    #[test]
    fn does_what_the_naive_breaker_does(text in expressions(), requests in requests()) {
        let bench = Bench::new(&text);
        let mut naive = Naive {
            expression: text.parse().unwrap(), answers: vec![], tripped: None, looked: None, answered: false, earned: 0,
        };
        let mut now = 0;
        for (gap, status, micros) in requests {
            now += gap;
            let passes = naive.passes(now);
            prop_assert_eq!(bench.passes(now), passes, "at {} ms", now);
            if passes {
                now += micros / 1000;
                bench.breaker.record(bench.at(now), status, Duration::from_micros(micros));
                naive.record(now, status, micros);
            }
            prop_assert_eq!(bench.state(now), naive.state(now), "at {} ms", now);
        }
    }
}
