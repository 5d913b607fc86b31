//! How long requests took, over the last ten seconds, to within 0.8 %: a log-linear histogram, as HDR histograms are.

use std::sync::OnceLock;
use std::time::Duration;

use super::metrics::{Rolling, float};

/// Every power of two is divided into this many bins.
const BINS: u64 = 1 << BITS;
const BITS: u32 = 6;
/// Longer latencies count as this: an hour, in microseconds.
const MOST: u64 = 3_600_000_000;
/// From 0 to [`BINS`] microseconds, then one for each power of two up to [`MOST`].
const OCTAVES: usize = (MOST.ilog2() - BITS + 2) as usize;

/// Only octaves that some request fell into take memory: 5 KiB each. A Service's latencies span a few.
#[derive(Debug, Default)]
pub(super) struct Histogram([OnceLock<Box<[Rolling]>>; OCTAVES]);

impl Histogram {
    pub(super) fn add(&self, second: u32, latency: Duration) {
        let (octave, bin) = place(latency);
        let bins = self.0[octave].get_or_init(|| (0..BINS).map(|_| Rolling::default()).collect());
        bins[bin].add(second);
    }

    /// The last ten seconds, `second` being the last of them.
    pub(super) fn read(&self, second: u32) -> Distribution {
        let mut up_to = 0;
        let mut steps = Vec::new();
        for (octave, bins) in self.0.iter().enumerate() {
            for (bin, counter) in bins.get().into_iter().flatten().enumerate() {
                let count = counter.sum(second);
                if count > 0 {
                    up_to += count;
                    steps.push((up_to, middle(octave, bin)));
                }
            }
        }
        Distribution(steps)
    }
}

/// How many requests took at most how many milliseconds, ascending.
#[derive(Debug)]
pub(super) struct Distribution(Vec<(u64, f64)>);

impl Distribution {
    /// Within how many milliseconds `quantile` per cent of requests were answered; 0 if there were none.
    pub(super) fn millis_at(&self, quantile: f64) -> f64 {
        let total = self.0.last().map_or(0, |(up_to, _)| *up_to);
        let wanted = quantile * float(total) / 100.0;
        let step = self.0.partition_point(|(up_to, _)| float(*up_to) < wanted);
        self.0.get(step).map_or(0.0, |(_, millis)| *millis)
    }
}

/// The octave and the bin in it.
fn place(latency: Duration) -> (usize, usize) {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(MOST).min(MOST);
    let octave = (micros | (BINS - 1)).ilog2() + 1 - BITS;
    let bin = (micros >> octave.saturating_sub(1)) % BINS;
    (octave as usize, usize::try_from(bin).unwrap_or_default())
}

/// The milliseconds in the middle of a bin.
fn middle(octave: usize, bin: usize) -> f64 {
    let (first, width) = match octave.checked_sub(1) {
        None => (bin as u64, 1_u64),
        Some(shift) => ((BINS + bin as u64) << shift, 1 << shift),
    };
    (float(first) + float(width - 1) / 2.0) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_fine_enough_and_in_order() {
        let mut last = (0, 0);
        let mut micros = 0_u64;
        while micros <= MOST {
            let placed = place(Duration::from_micros(micros));
            assert!(placed >= last && placed.0 < OCTAVES, "{micros} µs in {placed:?} after {last:?}");
            let off = (middle(placed.0, placed.1) * 1000.0 - float(micros)).abs();
            assert!(off <= float(micros) * 0.008, "{micros} µs is {off} µs off");
            last = placed;
            micros += 1 + micros / 300;
        }
        assert_eq!(place(Duration::MAX), place(Duration::from_secs(3600)));
        assert_eq!(place(Duration::from_secs(3600)).0, OCTAVES - 1);
    }

    #[test]
    fn quantiles_count_from_the_shortest() {
        let histogram = Histogram::default();
        assert!(histogram.read(0).millis_at(50.0).abs() < f64::EPSILON);
        for micros in 1..=100 {
            histogram.add(0, Duration::from_micros(micros / 2));
        }
        for (quantile, micros) in
            [(0.0, 0.0), (1.0, 0.0), (2.0, 1.0), (7.0, 3.0), (50.0, 25.0), (100.0, 50.0)]
        {
            let millis = histogram.read(9).millis_at(quantile);
            assert!((millis - micros / 1000.0).abs() < 1e-9, "{quantile} %: {millis} ms");
        }
        assert!(histogram.read(10).millis_at(100.0).abs() < f64::EPSILON);
    }
}
