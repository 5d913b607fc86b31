//! One endpoint and what its answers, and their absence, tell of it. Which one is picked is decided in the list it is in.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::Connecting;

/// Failed answers in a row after which an endpoint is passed over.
pub(super) const MOST_FAILURES: u32 = 5;
/// How long an endpoint is passed over after its first ejection; doubles with each further one.
const FIRST_EJECTION: Duration = Duration::from_secs(1);
/// The longest it is passed over.
const LONGEST_EJECTION: Duration = Duration::from_secs(30);
/// An endpoint that used to answer datagrams and has not for so long, although as many were sent to it as
/// [`MOST_UNANSWERED`], is passed over.
const LONGEST_SILENCE: Duration = Duration::from_secs(3);
/// Datagrams since the last answer, from all sources together.
const MOST_UNANSWERED: u32 = 3;

/// No endpoint has been silent since then: it has never answered a datagram.
const NEVER: u64 = u64::MAX;

/// Milliseconds since this process first asked. Monotonic.
pub fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// When `wait` will be over, in [`now_ms`].
pub fn now_ms_and(wait: Duration) -> u64 {
    now_ms().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

/// One endpoint and what this proxy has learnt of it. Survives changes of the list it is in.
#[derive(Debug)]
pub struct EndpointState {
    /// Where it listens.
    pub address: SocketAddr,
    pub(super) outstanding: AtomicU32,
    /// Ejections in a row.
    ejections: AtomicU32,
    /// Failed answers in a row.
    failures: AtomicU32,
    /// In [`now_ms`]; 0: not ejected.
    ejected_until: AtomicU64,
    /// Datagrams sent to it since one last came back.
    unanswered: AtomicU32,
    /// When the first of these was sent, in [`now_ms`]; [`NEVER`]: nothing ever came back.
    unanswered_since: AtomicU64,
    /// Only where h2 is spoken.
    connecting: OnceLock<Arc<Connecting>>,
}

// With the two counts of its Arc 96 bytes, which is a size of the allocator: a node has tens of thousands of them.
const _: () = assert!(size_of::<EndpointState>() == 80);

impl EndpointState {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            outstanding: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            unanswered: AtomicU32::new(0),
            unanswered_since: AtomicU64::new(NEVER),
            connecting: OnceLock::new(),
        }
    }

    /// Requests on their way to it.
    pub fn outstanding(&self) -> u32 {
        self.outstanding.load(Relaxed)
    }

    /// Whether an h2 connection to it is being made.
    pub fn connecting(&self) -> &Arc<Connecting> {
        self.connecting.get_or_init(Arc::default)
    }

    /// Whether it is passed over for now.
    pub fn is_ejected(&self) -> bool {
        let until = self.ejected_until.load(Relaxed);
        until != 0 && now_ms() < until
    }

    /// A connection to it failed: it is passed over from now on.
    pub fn connect_failed(&self) {
        self.eject();
        self.connect_ended();
    }

    /// A connection to it was made. What it answers over it counts by itself.
    pub fn connected(&self) {
        self.connect_ended();
        // A load first: the common case must not write a cache line that all workers share.
        if self.failures.load(Relaxed) == 0 && self.ejections.load(Relaxed) != 0 {
            self.ejections.store(0, Relaxed);
            self.ejected_until.store(0, Relaxed);
        }
    }

    fn connect_ended(&self) {
        if let Some(connecting) = self.connecting.get() {
            connecting.ended();
        }
    }

    /// It answered well.
    pub fn answered(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.ejections.store(0, Relaxed);
        }
    }

    /// It broke a connection under a request, was silent for too long, or answered that it cannot. True: that was once too
    /// often, and it should be passed over if there are others.
    pub(super) fn answer_failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        failures >= MOST_FAILURES && !self.is_ejected()
    }

    /// A datagram came from it.
    pub fn datagram_came(&self) {
        let first = self.unanswered_since.load(Relaxed) == NEVER;
        if self.unanswered.load(Relaxed) != 0 || first {
            self.unanswered.store(0, Relaxed);
            // Not over the time that a datagram which goes at this moment may have noted.
            let _ = self.unanswered_since.compare_exchange(NEVER, 0, Relaxed, Relaxed);
            self.ejections.store(0, Relaxed);
            self.ejected_until.store(0, Relaxed);
        }
    }

    /// A datagram goes to it. True: it was silent for too long and should be passed over if there are others.
    pub(super) fn datagram_goes(&self, now_ms: impl Fn() -> u64) -> bool {
        // There are protocols in which nothing ever comes back.
        if self.unanswered_since.load(Relaxed) == NEVER {
            return false;
        }
        let unanswered = self.unanswered.fetch_add(1, Relaxed);
        if unanswered == 0 {
            self.unanswered_since.store(now_ms(), Relaxed);
        }
        if unanswered < MOST_UNANSWERED {
            return false;
        }
        let silence = Duration::from_millis(now_ms().saturating_sub(self.unanswered_since.load(Relaxed)));
        silence >= LONGEST_SILENCE && !self.is_ejected()
    }

    pub(super) fn eject(&self) {
        let ejections = self.ejections.fetch_add(1, Relaxed).min(16);
        let ejection = FIRST_EJECTION.saturating_mul(1 << ejections).min(LONGEST_EJECTION);
        self.ejected_until.store(now_ms_and(ejection), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_stops_answering_datagrams_is_passed_over() {
        let state = EndpointState::new(([10, 0, 0, 1], 80).into());
        assert!(
            (0..100).all(|i| !state.datagram_goes(|| i * 1000)),
            "it never answered: nothing is expected of it"
        );
        state.datagram_came();
        assert!((0..100).all(|_| !state.datagram_goes(|| 1000)), "many at once");
        assert!(!state.datagram_goes(|| 3999));
        state.datagram_came();
        assert!(!state.datagram_goes(|| 5000), "the silence begins with the first that is not answered");
        assert!(!state.datagram_goes(|| 9000) && !state.datagram_goes(|| 10_000), "three may be lost");
        assert!(state.datagram_goes(|| 10_001));
        state.eject();
        assert!(!state.datagram_goes(|| 10_002), "it is already");
    }
}
