//! The figures of some traffic: they add up, and give quantiles.

use std::collections::BTreeMap;

use weft_config::edges::{EdgeFigures, bounds};

/// What is known of some requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Figures {
    failures: u64,
    buckets: BTreeMap<u8, u64>,
}

impl Figures {
    /// Adds an edge's.
    pub(super) fn add(&mut self, edge: &EdgeFigures) {
        self.failures += edge.failures;
        for (bucket, count) in &edge.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    pub(super) fn successes(&self) -> u64 {
        self.buckets.values().sum::<u64>().saturating_sub(self.failures)
    }

    /// The time, in microseconds, within which so many percent of the requests were over; 0 without requests. Within a bucket
    /// they are taken as evenly spread, which is off by an eighth at most.
    pub(super) fn within(&self, percent: u64) -> u64 {
        let total: u64 = self.buckets.values().sum();
        let rank = (total * percent).div_ceil(100);
        let mut before = 0;
        for (bucket, count) in &self.buckets {
            if before + count >= rank && rank > 0 {
                let (low, high) = bounds(usize::from(*bucket));
                return low + (high - low) * (rank - before) / count;
            }
            before += count;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use weft_config::edges::{ServiceName, bucket};

    use super::*;

    fn edge(durations_us: &[u64], failures: u64) -> EdgeFigures {
        let buckets = durations_us.iter().map(|us| (u8::try_from(bucket(*us)).unwrap(), 1)).collect();
        let service = ServiceName { namespace: "n".into(), name: "s".into() };
        EdgeFigures {
            source: [10, 0, 0, 1].into(),
            endpoint: None,
            service,
            port: 80,
            backend: None,
            failures,
            buckets,
        }
    }

    #[test]
    fn quantiles_are_those_of_all_requests_together() {
        let mut all = Figures::default();
        assert_eq!((all.within(99), all.successes()), (0, 0), "nothing is no division by nothing");
        let fast: Vec<_> = (0..90).map(|i| 1000 + i).collect();
        all.add(&edge(&fast, 0));
        all.add(&edge(&[50_000; 10], 4));
        assert_eq!((all.successes(), all.failures()), (96, 4));
        let near = |got: u64, exact: u64| got.abs_diff(exact) * 8 <= exact;
        assert!(near(all.within(50), 1045), "{}", all.within(50));
        assert!(near(all.within(90), 1089), "{}", all.within(90));
        assert!(near(all.within(99), 50_000), "{}", all.within(99));
        assert!(all.within(50) <= all.within(90) && all.within(90) <= all.within(99));
    }
}
