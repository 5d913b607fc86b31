//! The rate limit: a token bucket for each source address. Free of HTTP.
//!
//! A bucket is one number, the time at which it will be full again (the generic cell rate algorithm): a source that was
//! silent long enough has the same bucket as one that never came, so forgetting it loses nothing. Buckets lie in a fixed
//! table of small sets; when a set is full of sources that all are busy, the least busy one is forgotten. No locks.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use weft_config::RateLimit;

/// Sets in the table, and buckets in a set. A proxy's callers are the pods of its node and, while a node's own proxy is
/// away, those of others: far fewer than the 4,096 there is room for.
const SETS: usize = 512;
const WAYS: usize = 8;

/// A bucket. `full_at` is in nanoseconds after the limiter's start.
#[derive(Debug, Default)]
struct Bucket {
    /// Hash of the source's address; 0: nobody's.
    source: AtomicU64,
    full_at: AtomicU64,
}

fn empty() -> Box<[[Bucket; WAYS]]> {
    (0..SETS).map(|_| Default::default()).collect()
}

/// The limiter of one port of a Service.
#[derive(Debug)]
pub struct RateLimiter {
    start: Instant,
    /// Nanoseconds in which one token comes.
    interval: u64,
    /// Nanoseconds that fill an empty bucket.
    depth: u64,
    hasher: RandomState,
    /// Made when the first source comes: most ports of a mesh-wide limit see none on most nodes.
    sets: OnceLock<Box<[[Bucket; WAYS]]>>,
}

impl RateLimiter {
    /// Full buckets for everybody.
    pub fn new(limit: RateLimit) -> Self {
        let interval = 1_000_000_000 / u64::from(limit.average.max(1));
        Self {
            start: Instant::now(),
            interval,
            depth: interval.saturating_mul(limit.burst.max(1).into()),
            hasher: RandomState::new(),
            sets: OnceLock::new(),
        }
    }

    /// Takes a token of `source`, or says after how long there will be one.
    pub fn admit(&self, source: IpAddr, now: Instant) -> Result<(), Duration> {
        let now = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bucket(self.hasher.hash_one(source.to_canonical()).max(1), now);
        let taken = bucket.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            let next = full_at.max(now).saturating_add(self.interval);
            (next - now <= self.depth).then_some(next)
        });
        match taken {
            Ok(_) => Ok(()),
            Err(full_at) => {
                Err(Duration::from_nanos((full_at.max(now) + self.interval).saturating_sub(self.depth + now)))
            }
        }
    }

    fn bucket(&self, source: u64, now: u64) -> &Bucket {
        #[allow(clippy::cast_possible_truncation, reason = "any part of the hash will do")]
        let set = &self.sets.get_or_init(empty)[(source >> 32) as usize % SETS];
        if let Some(known) = set.iter().find(|bucket| bucket.source.load(Relaxed) == source) {
            return known;
        }
        // Whoever is full the soonest has the least to lose.
        let mut least = &set[0];
        for bucket in set {
            if bucket.full_at.load(Relaxed) < least.full_at.load(Relaxed) {
                least = bucket;
            }
        }
        let before = least.source.load(Relaxed);
        // When another request takes the place first the two share a bucket this once.
        if least.source.compare_exchange(before, source, Relaxed, Relaxed).is_ok() {
            let _ = least.full_at.fetch_update(Relaxed, Relaxed, |full_at| (full_at > now).then_some(now));
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn limiter(average: u32, burst: u32) -> RateLimiter {
        RateLimiter::new(RateLimit { average, burst })
    }

    #[test]
    fn a_burst_passes_and_then_the_average() {
        let limiter = limiter(10, 5);
        let start = limiter.start;
        let passed = |at: Instant, n: usize| (0..n).filter(|_| limiter.admit(A, at).is_ok()).count();
        assert_eq!(passed(start, 20), 5);
        assert_eq!(passed(start + Duration::from_secs(1), 20), 5, "no more than the burst is saved up");
        let trickle =
            (0..100).filter(|i| limiter.admit(A, start + Duration::from_millis(2000 + i * 20)).is_ok());
        let trickle = trickle.count();
        assert!((24..=26).contains(&trickle), "2 s at 10 a second and a burst of 5, not {trickle}");
    }

    #[test]
    fn the_refused_are_told_when_to_come_back() {
        let limiter = limiter(2, 1);
        assert!(limiter.admit(A, limiter.start).is_ok());
        let wait = limiter.admit(A, limiter.start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        assert!(limiter.admit(A, limiter.start + wait - Duration::from_millis(1)).is_err());
        assert!(limiter.admit(A, limiter.start + wait).is_ok());
    }

    #[test]
    fn sources_do_not_share() {
        let limiter = limiter(1, 1);
        assert!(limiter.admit(A, limiter.start).is_ok() && limiter.admit(B, limiter.start).is_ok());
        assert!(limiter.admit(A, limiter.start).is_err());
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert!(limiter.admit(mapped, limiter.start).is_err(), "the same address in another form");
    }

    proptest! {
        /// However the requests of one source come: in any time t no more than burst + average * t pass, others or not.
        #[test]
        fn never_more_than_asked_for(average in 1..1000u32, burst in 1..50u32, gaps in prop::collection::vec(0..20_000u64, 1..300)) {
            let limiter = limiter(average, burst);
            let (mut at, mut passed) = (Duration::ZERO, 0);
            for gap in gaps {
                at += Duration::from_micros(gap);
                let _ = limiter.admit(B, limiter.start + at);
                if limiter.admit(A, limiter.start + at).is_ok() {
                    passed += 1;
                }
                let most = f64::from(burst) + f64::from(average) * at.as_secs_f64() + 1.0;
                prop_assert!(f64::from(passed) <= most, "{passed} of {most} after {at:?}");
            }
        }
    }

    #[test]
    fn thousands_of_sources_are_told_apart() {
        let limiter = limiter(1, 1);
        let source = |i: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + i));
        let first = (0..1000).filter(|i| limiter.admit(source(*i), limiter.start).is_ok()).count();
        assert_eq!(first, 1000);
        let again = (0..1000).filter(|i| limiter.admit(source(*i), limiter.start).is_ok()).count();
        assert!(again < 10, "{again} were forgotten");
    }
}
