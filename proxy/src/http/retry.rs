//! When a failed request is sent again: only where that is safe.
//!
//! - A connection that could not be made: nothing was sent, so always, on another endpoint,
//!   for up to three seconds.
//! - A stream that the endpoint says it has not processed (RFC 9113, section 8.7): that is no failure of the endpoint, and the first time
//!   it costs nothing; each further time it costs from the budget.
//! - A connection that broke before any byte of an answer: when the method is idempotent (RFC 9110, section 9.2.2) and the
//!   body, if any, is still at hand. This one costs from a budget, so that a Service in trouble is not drowned.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::Method;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType, RetryType};

use super::request::{Request, Target};

/// How often a request of one port may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tries in all, the first one included.
    pub tries: usize,
    /// Of these, how many may have reached an endpoint that then broke the connection.
    pub sent: u8,
}

impl Limits {
    /// What was asked for, in tries; without, as many as do no harm.
    pub fn new(asked: Option<u8>) -> Self {
        let default = Self { tries: MOST_TRIES, sent: MOST_SENT };
        asked.map_or(default, |asked| Self {
            tries: usize::from(asked).clamp(1, MOST_TRIES),
            sent: asked.max(1),
        })
    }
}

/// Tries in all, the first one included: when most endpoints of a Service go at once, a request may meet several of them.
pub const MOST_TRIES: usize = 10;
/// Of these, how many may have reached an endpoint that then broke the connection, unless more were asked for. When a
/// Deployment is scaled down, idle connections to each pod that goes break under the next request: three were too few
/// where four of five went at once.
pub const MOST_SENT: u8 = 5;
/// No try begins after this: endpoints that do not even refuse cost a second each.
pub const LAST_TRY_AFTER: Duration = Duration::from_secs(3);

/// Thousandths of a retry that each request earns: at most one request in five is sent again.
const EARNED: u64 = 200;
/// Thousandths of a retry that each second earns, so that quiet Services can retry, too.
const EARNED_PER_SECOND: u64 = 10_000;
/// The most that can be saved up.
const MOST_SAVED: u64 = 100_000;

/// Whether RFC 9110 allows `method` to be repeated.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Whether `request`, whose connection to an endpoint broke, is sent again. Notes whose failure it was.
pub fn after_it_broke(error: &Error, session: &Session, request: &mut Request) -> bool {
    let downstream = session.as_downstream();
    let theirs = *error.esource() != ErrorSource::Downstream;
    let repeatable =
        theirs && downstream.response_written().is_none() && !downstream.retry_buffer_truncated();
    if theirs && was_not_processed(error) {
        // No failure: the endpoint takes nothing more on this connection. Once that is nothing to pay for; an endpoint that refuses
        // everything must not multiply what comes.
        let afforded = |target: &Target| request.tries() <= 1 || target.http.budget.take();
        return repeatable && request.may_try_again() && request.target.as_ref().is_some_and(afforded);
    }
    if theirs {
        request.endpoint_failed();
    }
    request.sent += 1;
    let safe = is_idempotent(&session.req_header().method)
        && !matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout);
    let afforded = |target: &Target| request.sent < target.http.tries.sent && target.http.budget.take();
    repeatable && safe && request.may_try_again() && request.target.as_ref().is_some_and(afforded)
}

/// Whether the endpoint says that it has not processed a request over h2: it refused the stream, wants it over HTTP/1.1, or had told
/// before that it was about to close the connection. Pingora decides to retry after these, and after answers it cannot read.
fn was_not_processed(error: &Error) -> bool {
    matches!(error.retry, RetryType::Decided(true)) && *error.etype() != ErrorType::InvalidH2
}

/// How many retries may still be made, in thousandths.
#[derive(Debug)]
pub struct Budget {
    saved: AtomicU64,
    since: Instant,
    /// Milliseconds after `since` up to which time has been paid out.
    paid_until: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { saved: AtomicU64::new(MOST_SAVED / 10), since: Instant::now(), paid_until: AtomicU64::new(0) }
    }
}

impl Budget {
    /// A request came: it earns its share.
    pub fn request(&self) {
        // Full is the common case and must not write.
        if self.saved.load(Relaxed) < MOST_SAVED {
            self.saved.fetch_add(EARNED, Relaxed);
        }
    }

    /// Takes one retry, if there is one.
    pub fn take(&self) -> bool {
        self.pay_for_time();
        self.saved.fetch_update(Relaxed, Relaxed, |saved| saved.checked_sub(1000)).is_ok()
    }

    fn pay_for_time(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let paid = self.paid_until.swap(now, Relaxed);
        let earned = now.saturating_sub(paid).saturating_mul(EARNED_PER_SECOND / 1000);
        let _ = self
            .saved
            .fetch_update(Relaxed, Relaxed, |saved| Some(saved.saturating_add(earned).min(MOST_SAVED)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_done_within_bounds() {
        assert_eq!(Limits::new(None), Limits { tries: 10, sent: 5 });
        assert_eq!(Limits::new(Some(1)), Limits { tries: 1, sent: 1 });
        assert_eq!(Limits::new(Some(5)), Limits { tries: 5, sent: 5 });
        assert_eq!(Limits::new(Some(200)).tries, MOST_TRIES);
    }

    #[test]
    fn only_idempotent_methods_are_repeated() {
        assert!([Method::GET, Method::HEAD, Method::PUT, Method::DELETE].iter().all(is_idempotent));
        assert!(![Method::POST, Method::PATCH, Method::CONNECT].iter().any(is_idempotent));
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_repeated() {
        let budget = Budget::default();
        while budget.saved.load(Relaxed) >= 1000 {
            budget.saved.fetch_sub(1000, Relaxed);
        }
        (0..1000).for_each(|_| budget.request());
        let retries = (0..1000).take_while(|_| budget.take()).count();
        // Time pays a little meanwhile; the saving is capped.
        assert!((90..=110).contains(&retries), "{retries}");
    }
}
