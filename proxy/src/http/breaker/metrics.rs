//! What a breaker counts, over the last ten seconds: only what its expression speaks of.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::latency::{Distribution, Histogram};

/// How many seconds metrics cover, the one that is not over yet included.
const SECONDS: usize = 10;

/// Counts over the last [`SECONDS`]: one cell for each second, used again and again.
///
/// The upper half of a cell is the second it counts, the lower half the count. So whoever comes first in a second
/// clears what was there before and counts itself in one step, and no count is lost. (Who is held up for ten seconds
/// halfway through is counted in a later second.)
#[derive(Debug, Default)]
pub(super) struct Rolling([AtomicU64; SECONDS]);

const STAMP: u32 = 32;

impl Rolling {
    /// One more in `second`. Whoever is so late that its cell counts a later second is not counted.
    pub(super) fn add(&self, second: u32) {
        let cell = &self.0[second as usize % SECONDS];
        let mut seen = cell.load(Relaxed);
        while seen >> STAMP < u64::from(second) {
            match cell.compare_exchange_weak(seen, (u64::from(second) << STAMP) | 1, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
        if seen >> STAMP == u64::from(second) {
            cell.fetch_add(1, Relaxed);
        }
    }

    /// How many in the last [`SECONDS`], `second` being the last of them.
    pub(super) fn sum(&self, second: u32) -> u64 {
        let last = u64::from(second);
        let cells = self.0.iter().map(|cell| cell.load(Relaxed));
        cells
            .filter(|cell| (cell >> STAMP) <= last && last < (cell >> STAMP) + SECONDS as u64)
            .map(|cell| cell & u64::from(u32::MAX))
            .sum()
    }
}

/// Which answers a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    All,
    /// Those that tell of a broken or late connection, told apart by status as Traefik does.
    NetworkErrors,
    /// Those with a status from `from` to below `to`.
    Within {
        from: u16,
        to: u16,
    },
}

impl Answers {
    fn include(self, status: u16) -> bool {
        match self {
            Self::All => true,
            Self::NetworkErrors => matches!(status, 502 | 504),
            Self::Within { from, to } => (from..to).contains(&status),
        }
    }
}

/// The counters of one breaker.
#[derive(Debug)]
pub(super) struct Metrics {
    counters: Vec<(Answers, Rolling)>,
    latencies: Option<Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { counters: vec![(Answers::All, Rolling::default())], latencies: None }
    }
}

impl Metrics {
    /// The index of the counter of all answers, which is always there.
    pub(super) const ALL: usize = 0;

    /// From now on counts `answers`. Returns the index of their counter.
    pub(super) fn count(&mut self, answers: Answers) -> usize {
        self.counters.iter().position(|(counted, _)| *counted == answers).unwrap_or_else(|| {
            self.counters.push((answers, Rolling::default()));
            self.counters.len() - 1
        })
    }

    /// From now on keeps latencies.
    pub(super) fn time(&mut self) {
        self.latencies.get_or_insert_default();
    }

    pub(super) fn record(&self, second: u32, status: u16, latency: Duration) {
        for (answers, counter) in &self.counters {
            if answers.include(status) {
                counter.add(second);
            }
        }
        if let Some(latencies) = &self.latencies {
            latencies.add(second, latency);
        }
    }

    pub(super) fn read(&self, second: u32) -> Reading {
        Reading {
            sums: self.counters.iter().map(|(_, counter)| counter.sum(second)).collect(),
            latencies: self.latencies.as_ref().map(|latencies| latencies.read(second)),
        }
    }
}

/// All metrics at one time.
#[derive(Debug)]
pub(super) struct Reading {
    sums: Vec<u64>,
    latencies: Option<Distribution>,
}

impl Reading {
    /// Whether nothing was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.sums[Metrics::ALL] == 0
    }

    /// One counter divided by another; 0 if the other is.
    pub(super) fn ratio(&self, of: usize, among: usize) -> f64 {
        match self.sums[among] {
            0 => 0.0,
            among => float(self.sums[of]) / float(among),
        }
    }

    /// Within how many milliseconds `quantile` per cent of requests were answered; 0 if there were none.
    pub(super) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latencies.as_ref().map_or(0.0, |latencies| latencies.millis_at(quantile))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of ten seconds are far below 2^52")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}
