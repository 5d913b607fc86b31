//! What became of the requests.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Failure;
use crate::http::Answer;
use crate::serve::Account;

/// Failures told in full; the others are only counted.
const TOLD: usize = 20;
/// A request that left so much after its time is counted as late: then the load itself was starved.
const LATE: Duration = Duration::from_millis(20);

/// The counts of one mode.
pub(super) struct Tally {
    mode: &'static str,
    expect: Vec<String>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    sent: u64,
    failed: u64,
    late: u64,
    failures: Vec<Value>,
    last_failure_at: Option<Duration>,
    apps: BTreeMap<String, u64>,
    pods: BTreeMap<String, u64>,
    weft_nodes: BTreeMap<String, u64>,
    micros: Vec<u64>,
}

impl Tally {
    pub(super) fn new(mode: &'static str, expect: &[String]) -> Self {
        Self { mode, expect: expect.to_vec(), counts: Mutex::default() }
    }

    /// Counts one request: when it should have left, how late it left, and how long it took since it should have left.
    pub(super) fn count(
        &self,
        at: Duration,
        late: Duration,
        took: Duration,
        outcome: &Result<Answer, Failure>,
    ) {
        let judged = match outcome {
            Ok(answer) => self.judge(answer),
            Err(error) => Err(error.to_string()),
        };
        let mut counts = self.counts();
        counts.sent += 1;
        counts.late += u64::from(late > LATE);
        counts.micros.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        match judged {
            Ok((account, node)) => {
                *counts.apps.entry(account.app).or_default() += 1;
                *counts.pods.entry(account.pod).or_default() += 1;
                *counts.weft_nodes.entry(node).or_default() += 1;
            }
            Err(what) => {
                counts.failed += 1;
                counts.last_failure_at = counts.last_failure_at.max(Some(at));
                if counts.failures.len() < TOLD {
                    let failure = json!({
                        "at_s": at.as_secs_f64(),
                        "took_ms": took.as_secs_f64() * 1000.0,
                        "what": what,
                    });
                    counts.failures.push(failure);
                }
            }
        }
    }

    /// Good is 200 with a whole account of an app we meant. Who answered and the node that carried it.
    fn judge(&self, answer: &Answer) -> Result<(Account, String), String> {
        let excerpt =
            || String::from_utf8_lossy(answer.text()).trim_end().chars().take(200).collect::<String>();
        if answer.status != hyper::StatusCode::OK {
            return Err(format!("status {}: {}", answer.status.as_u16(), excerpt()));
        }
        if let Some(broken) = &answer.body.broken {
            return Err(broken.clone());
        }
        let account: Account = serde_json::from_slice(answer.text())
            .map_err(|error| format!("not our server's answer ({error}): {}", excerpt()))?;
        if !self.expect.contains(&account.app) {
            return Err(format!("{} answered instead of {}", account.app, self.expect.join(" or ")));
        }
        let node = answer.headers.get("x-weft-node").map_or("", |node| node.to_str().unwrap_or("?"));
        let node = node.to_owned();
        Ok((account, node))
    }

    /// A line for people.
    pub(super) fn progress(&self) -> String {
        let counts = self.counts();
        format!("{}: {} done, {} failed, {} late", self.mode, counts.sent, counts.failed, counts.late)
    }

    /// All of it.
    pub(super) fn report(&self) -> Value {
        let mut counts = self.counts();
        counts.micros.sort_unstable();
        json!({
            "mode": self.mode,
            "sent": counts.sent,
            "ok": counts.sent - counts.failed,
            "failed": counts.failed,
            "late": counts.late,
            "failures": counts.failures,
            "last_failure_s": counts.last_failure_at.map(|at| at.as_secs_f64()),
            "apps": counts.apps,
            "pods": counts.pods,
            "weft_nodes": counts.weft_nodes,
            "p50_ms": percentile_ms(&counts.micros, 50),
            "p99_ms": percentile_ms(&counts.micros, 99),
            "max_ms": percentile_ms(&counts.micros, 100),
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The smallest value that so many per cent do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

fn percentile_ms(sorted_micros: &[u64], percent: usize) -> f64 {
    Duration::from_micros(percentile(sorted_micros, percent)).as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!([50, 99, 100].map(|p| percentile(&values, p)), [50, 99, 100]);
        assert_eq!(percentile(&[], 50), 0);
        assert_eq!(percentile(&[7], 1), 7);
    }
}
