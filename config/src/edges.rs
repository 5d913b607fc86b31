//! What a proxy tells of who called whom, to whoever asks its admin port, and the histogram it is told in.
//!
//! All proxies sort durations into the same buckets, so that the counts of several can be added before a quantile is taken.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How many seconds of traffic are told.
pub const WINDOW_SECONDS: u64 = 30;
/// Windows end at multiples of this many seconds since the epoch, at the same moment on all nodes whose clocks agree.
pub const PERIOD_SECONDS: u64 = 5;

/// The answer to `GET` [`crate::contract::EDGES_PATH`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyEdges {
    /// When the window ended, in seconds since the epoch; 0: no window has ended yet.
    pub end: u64,
    /// Every edge that something went over in the window.
    pub edges: Vec<EdgeFigures>,
}

/// Requests from one address to one endpoint, for one port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeFigures {
    /// Where they came from.
    pub source: IpAddr,
    /// The endpoint that was tried last; `None`: they got to none.
    pub endpoint: Option<SocketAddr>,
    /// The Service that was called.
    pub service: ServiceName,
    /// The number of its port.
    pub port: u16,
    /// The Service whose endpoints a split chose; `None`: no split was asked.
    pub backend: Option<ServiceName>,
    /// How many of them failed: an answer of 500 or above, or none.
    pub failures: u64,
    /// How many took how long: the number of the [`bucket`] and the count in it, ascending, without empty ones. The sum of the
    /// counts is the number of requests.
    pub buckets: Vec<(u8, u64)>,
}

/// Namespace and name of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Width of the first buckets, in microseconds.
const UNIT: u64 = 16;
/// How many buckets have that width.
const LINEAR: u64 = 16;
/// Of the others there are so many between each power of two and the next: none is wider than an eighth of where it begins.
const PER_OCTAVE: u64 = 8;
/// Two to this power is [`PER_OCTAVE`].
const OCTAVE_BITS: u32 = 3;
/// How many buckets there are. The last takes all that is beyond it, from 126 seconds on.
pub const BUCKETS: usize = 168;

/// The bucket for a duration.
pub fn bucket(microseconds: u64) -> usize {
    let units = microseconds / UNIT;
    if units < LINEAR {
        return usize::try_from(units).unwrap_or(0);
    }
    let octave = units.ilog2() - OCTAVE_BITS;
    // The leading bit is one too many; the octaves begin where the linear part ends.
    let place = u64::from(octave) * PER_OCTAVE + (units >> octave);
    usize::try_from(place).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// From where to where a bucket reaches, in microseconds: from its first to before its second.
pub fn bounds(bucket: usize) -> (u64, u64) {
    let begins = |bucket: u64| {
        if bucket < LINEAR {
            return bucket * UNIT;
        }
        let octave = bucket / PER_OCTAVE - 1;
        ((bucket % PER_OCTAVE + PER_OCTAVE) << octave) * UNIT
    };
    let bucket = bucket.min(BUCKETS - 1) as u64;
    (begins(bucket), begins(bucket + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        assert_eq!(bounds(0), (0, 16));
        for number in 0..BUCKETS {
            let (low, high) = bounds(number);
            assert_eq!((bucket(low), bucket(high - 1)), (number, number), "{low}..{high}");
            assert!(high - low <= UNIT.max(low / PER_OCTAVE), "{low}..{high} is too wide");
            assert!(number + 1 == BUCKETS || bounds(number + 1).0 == high);
        }
        assert_eq!(bounds(BUCKETS - 1), (125_829_120, 134_217_728));
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
