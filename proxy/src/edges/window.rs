//! The figures of edges: what requests add to, and the window they are told for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use weft_config::edges::{BUCKETS, PERIOD_SECONDS, WINDOW_SECONDS, bucket};

use super::Edge;

/// Periods in a window.
const PERIODS: usize = (WINDOW_SECONDS / PERIOD_SECONDS) as usize;
/// For how many periods nothing may go over an edge before it dies: two minutes.
pub(super) const PATIENCE: u32 = 24;

/// What requests add to; a turn takes it out again.
#[derive(Debug)]
pub(super) struct Counts {
    failures: AtomicU32,
    buckets: [AtomicU32; BUCKETS],
}

impl Default for Counts {
    fn default() -> Self {
        Self { failures: AtomicU32::new(0), buckets: [const { AtomicU32::new(0) }; BUCKETS] }
    }
}

impl Counts {
    /// One more. The bucket comes first and is taken out last, so that there are never more failures than requests.
    pub(super) fn add(&self, took: Duration, failed: bool) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(took)].fetch_add(1, Relaxed);
        if failed {
            self.failures.fetch_add(1, Relaxed);
        }
    }

    fn take(&self) -> Period {
        // A load first: most are zero, and a swap would take the cache line from whoever counts.
        let take = |count: &AtomicU32| if count.load(Relaxed) == 0 { 0 } else { count.swap(0, Relaxed) };
        let failures = take(&self.failures);
        let counts = (0..=u8::MAX).zip(self.buckets.iter().map(take));
        Period { failures, buckets: counts.filter(|(_, count)| *count > 0).collect() }
    }
}

/// What went over an edge in one period.
#[derive(Debug, Default)]
struct Period {
    failures: u32,
    /// Those that are not empty.
    buckets: Box<[(u8, u32)]>,
}

/// An edge and its last periods.
pub(super) struct Entry {
    pub(super) edge: Arc<Edge>,
    periods: [Period; PERIODS],
    /// How many periods in a row had nothing.
    quiet: u32,
}

impl From<Arc<Edge>> for Entry {
    fn from(edge: Arc<Edge>) -> Self {
        Self { edge, periods: Default::default(), quiet: 0 }
    }
}

impl Entry {
    /// Failures, and the buckets that are not empty, of the whole window.
    pub(super) fn sum(&self) -> (u64, Vec<(u8, u64)>) {
        if self.quiet as usize >= PERIODS {
            return (0, Vec::new());
        }
        let mut sum = [0_u64; BUCKETS];
        for (bucket, count) in self.periods.iter().flat_map(|period| &period.buckets) {
            sum[usize::from(*bucket)] += u64::from(*count);
        }
        let failures = self.periods.iter().map(|period| u64::from(period.failures)).sum();
        (failures, (0..=u8::MAX).zip(sum).filter(|(_, count)| *count > 0).collect())
    }
}

/// All edges and their last periods.
#[derive(Default)]
pub(super) struct Book {
    pub(super) edges: Vec<Entry>,
    /// When the last period ended, in seconds since the epoch.
    pub(super) end: u64,
    /// Which of an entry's periods the next one replaces.
    oldest: usize,
}

impl Book {
    /// Closes a period. Returns the edges that have been quiet for too long; they are not in the book any more.
    pub(super) fn turn(&mut self, now: u64) -> Vec<Arc<Edge>> {
        let mut idle = Vec::new();
        let oldest = self.oldest;
        self.edges.retain_mut(|entry| {
            let period = entry.edge.counts.take();
            entry.quiet = if period.buckets.is_empty() { entry.quiet + 1 } else { 0 };
            entry.periods[oldest] = period;
            let keep = entry.quiet < PATIENCE;
            if !keep {
                idle.push(Arc::clone(&entry.edge));
            }
            keep
        });
        self.oldest = (oldest + 1) % PERIODS;
        self.end = now;
        idle
    }
}
