//! The circuit breaker: keeps requests from a Service that fails until it has had time to recover.
//!
//! ```text
//!           the condition holds              10 s                        10 s
//! Closed ───────────────────────▶ Open ─────────────▶ Recovering ─────────────────▶ Closed
//!   all pass                  ▲   all refused         a share passes, 0 to 100 %
//!                             └───────────────────────────┘ the condition holds
//! ```
//!
//! - `condition`: the user's expression, its metrics resolved to what counts them.
//! - `metrics`: what is counted, over the last ten seconds; `latency`: how long requests took.
//!
//! Nothing runs in the background. The state follows from the time of the last trip, and one of the requests that
//! come along looks every 100 ms whether the condition holds. No request waits for another: there are only atomics.

mod condition;
mod latency;
mod metrics;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use weft_config::expression::Expression;

use condition::Condition;
use metrics::Metrics;

/// How long all requests are refused, in milliseconds. Not shorter than what the metrics cover, so that nothing
/// from before the trip is left when requests pass again.
const OPEN: u64 = 10_000;
/// How long the share of requests that pass grows, in milliseconds.
const RECOVERING: u64 = 10_000;
/// The shortest time between two looks at the condition, in milliseconds.
const LOOK_EVERY: u64 = 100;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It goes on, and [`Breaker::record`] is told how it went.
    Pass,
    /// It is answered with 503 at once, and not recorded.
    Refused,
}

/// What a breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All requests pass.
    Closed,
    /// No request passes.
    Open,
    /// A growing share of requests passes.
    Recovering,
}

/// The circuit breaker of one Service.
#[derive(Debug)]
pub struct Breaker {
    condition: Condition,
    metrics: Metrics,
    /// Times are kept as milliseconds after this.
    start: Instant,
    /// When the condition last held, plus one; 0 for never.
    tripped: AtomicU64,
    /// When the condition may be looked at again.
    next_look: AtomicU64,
    /// Whether there is an answer nobody has looked at. Without, a look would only put off the one at the next answer.
    answered: AtomicBool,
    /// While recovering: what all requests have earned. Each earns the share that passes, as so many of [`RECOVERING`],
    /// and whoever makes it reach a whole number passes.
    earned: AtomicU64,
}

impl Breaker {
    /// A closed breaker that opens when `expression` holds.
    pub fn new(expression: &Expression) -> Self {
        Self::starting(expression, Instant::now())
    }

    /// A breaker that is never told of a time before `start`.
    fn starting(expression: &Expression, start: Instant) -> Self {
        let mut metrics = Metrics::default();
        Self {
            condition: Condition::new(expression, &mut metrics),
            metrics,
            start,
            tripped: AtomicU64::new(0),
            next_look: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            earned: AtomicU64::new(0),
        }
    }

    /// A request came.
    pub fn admit(&self, now: Instant) -> Admission {
        let now = self.millis(now);
        self.look(now);
        let passes = match Phase::at(now, self.tripped.load(Acquire)) {
            Phase::Closed => true,
            Phase::Open => false,
            Phase::Recovering { elapsed } => self.earns_its_pass(elapsed),
        };
        if passes { Admission::Pass } else { Admission::Refused }
    }

    /// A request that passed was answered with `status`, after `latency`; without an answer, with the status that told
    /// the caller so. A request from before the last trip tells nothing of the time since and is not counted.
    pub fn record(&self, now: Instant, status: u16, latency: Duration) {
        let now = self.millis(now);
        let tripped = self.tripped.load(Acquire);
        let took = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        let from_before = tripped > 0 && now.saturating_sub(took) < tripped;
        if from_before || matches!(Phase::at(now, tripped), Phase::Open) {
            return;
        }
        self.metrics.record(second(now), status, latency);
        self.answered.store(true, Release);
        self.look(now);
    }

    /// What the breaker does now.
    pub fn state(&self, now: Instant) -> State {
        match Phase::at(self.millis(now), self.tripped.load(Acquire)) {
            Phase::Closed => State::Closed,
            Phase::Open => State::Open,
            Phase::Recovering { .. } => State::Recovering,
        }
    }

    /// Opens the breaker if there is something new to look at, it is time to, nobody else does, and the condition holds.
    fn look(&self, now: u64) {
        let due = self.next_look.load(Relaxed);
        let tripped = self.tripped.load(Acquire);
        if now < due || !self.answered.load(Relaxed) || matches!(Phase::at(now, tripped), Phase::Open) {
            return;
        }
        let next = now.saturating_add(LOOK_EVERY);
        if self.next_look.compare_exchange(due, next, Relaxed, Relaxed).is_err() {
            return;
        }
        self.answered.swap(false, Acquire);
        let reading = self.metrics.read(second(now));
        // No answers, no opinion: `NetworkErrorRatio() < 0.5` would hold for ever and let nothing pass that says otherwise.
        if reading.is_empty() || !self.condition.holds(&reading) {
            return;
        }
        // The first request after it, whatever its share, is the probe.
        self.earned.store(RECOVERING - 1, Relaxed);
        // Fails if somebody who looked before has only now opened it: once is enough.
        let _ = self.tripped.compare_exchange(tripped, now.saturating_add(1), AcqRel, Relaxed);
    }

    fn earns_its_pass(&self, elapsed: u64) -> bool {
        let share = elapsed.max(1);
        let before = self.earned.fetch_add(share, Relaxed);
        before / RECOVERING != before.wrapping_add(share) / RECOVERING
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The state, with how far it is. Times in milliseconds.
enum Phase {
    Closed,
    Open,
    Recovering { elapsed: u64 },
}

impl Phase {
    /// What follows from the last trip, given as in [`Breaker::tripped`].
    fn at(now: u64, tripped: u64) -> Self {
        let Some(tripped) = tripped.checked_sub(1) else { return Self::Closed };
        // A request that took its time just before the trip sees it as open, too.
        match now.saturating_sub(tripped).checked_sub(OPEN) {
            None => Self::Open,
            Some(elapsed) if elapsed < RECOVERING => Self::Recovering { elapsed },
            Some(_) => Self::Closed,
        }
    }
}

fn second(millis: u64) -> u32 {
    u32::try_from(millis / 1000).unwrap_or(u32::MAX)
}
