//! The right to write, and when it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Until when this process may write, by its own clock, and what of its writes is still on its way.
#[derive(Debug, Clone, Default)]
pub struct Fence(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    term: Mutex<Term>,
    under_way: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Term {
    until: Option<Instant>,
    /// Of a process that takes part in no election.
    endless: bool,
    /// Until when a write that was not answered may still land.
    in_doubt_until: Option<Instant>,
}

/// The right to one write, until dropped.
#[derive(Debug)]
pub(crate) struct Permit(Fence);

impl Fence {
    /// One that never closes: for a process that writes whoever leads, because a person said so.
    pub fn endless() -> Self {
        let fence = Self::default();
        fence.term().endless = true;
        fence
    }

    /// Whether writing is allowed now.
    pub fn is_open(&self) -> bool {
        let term = self.term();
        term.endless || term.until.is_some_and(|until| Instant::now() < until)
    }

    /// The right to write once, if writing is allowed now.
    pub(crate) fn enter(&self) -> Option<Permit> {
        // Counted first: who closes the fence and then sees nothing under way may rely on it.
        let permit = Permit(self.clone());
        self.0.under_way.send_modify(|writes| *writes += 1);
        self.is_open().then_some(permit)
    }

    /// When the term ends.
    pub(super) fn until(&self) -> Option<Instant> {
        self.term().until
    }

    pub(super) fn open(&self, until: Instant) {
        self.term().until = Some(until);
    }

    pub(super) fn close(&self) {
        self.term().until = None;
    }

    /// Waits until no write that was begun can land any more. `false`: that takes longer than `patience`.
    pub(crate) async fn drained(&self, patience: Duration) -> bool {
        let mut under_way = self.0.under_way.subscribe();
        let drained = async {
            // The sender lives in self: waiting cannot fail.
            let _ = under_way.wait_for(|writes| *writes == 0).await;
            let in_doubt_until = self.term().in_doubt_until;
            if let Some(at) = in_doubt_until {
                tokio::time::sleep_until(at).await;
            }
        };
        tokio::time::timeout(patience, drained).await.is_ok()
    }

    fn term(&self) -> MutexGuard<'_, Term> {
        self.0.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The write was not answered: for so long it may still land.
    pub(crate) fn leave_in_doubt(&self, so_long: Duration) {
        self.0.term().in_doubt_until = Some(Instant::now() + so_long);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.under_way.send_modify(|writes| *writes -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_open_for_its_term() {
        let fence = Fence::default();
        assert!(!fence.is_open() && fence.enter().is_none());
        fence.open(Instant::now() + Duration::from_secs(60));
        assert!(fence.is_open() && fence.enter().is_some());
        fence.open(Instant::now());
        assert!(!fence.is_open(), "the term is over");
        assert!(Fence::endless().enter().is_some());
    }

    #[tokio::test]
    async fn it_is_drained_when_every_write_was_answered() {
        let fence = Fence::default();
        fence.open(Instant::now() + Duration::from_secs(60));
        let permit = fence.enter().unwrap();
        fence.close();
        assert!(!fence.drained(Duration::ZERO).await);
        drop(permit);
        assert!(fence.drained(Duration::ZERO).await);
        assert!(fence.enter().is_none());
        assert!(fence.drained(Duration::ZERO).await, "who is not let in counts no longer");

        fence.open(Instant::now() + Duration::from_secs(60));
        fence.enter().unwrap().leave_in_doubt(Duration::from_millis(50));
        assert!(!fence.drained(Duration::from_millis(1)).await, "it may still land");
        assert!(fence.drained(Duration::from_secs(60)).await, "not for ever");
    }
}
