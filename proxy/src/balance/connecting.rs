//! h2: one connection to an endpoint is made at a time.
//!
//! Pingora shares an h2 connection among requests once it is there. Those that come while it is being made would each make
//! one of their own, and all of these would then be used in turn for as long as there is load: each with its buffers, and
//! with few frames to send together. So requests wait for the one that is making it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::{now_ms, now_ms_and};

/// Whether a connection to an endpoint is being made.
#[derive(Debug, Default)]
pub struct Connecting {
    /// Until when it may take, in [`now_ms`]; 0: none is. Who makes it may be dropped and never tell of its end.
    until: AtomicU64,
    over: Notify,
}

impl Connecting {
    /// From now on one is being made; it may take `limit`.
    pub fn begins(&self, limit: Duration) {
        self.until.store(now_ms_and(limit), SeqCst);
    }

    /// It is there, or has failed.
    pub fn ended(&self) {
        self.until.store(0, SeqCst);
        self.over.notify_waiters();
    }

    /// Returns when none is being made, or after `limit`. True: one was and no longer is, and the endpoint may have shown to be
    /// gone.
    pub async fn settled(&self, limit: Duration) -> bool {
        if self.until.load(SeqCst) == 0 {
            return false;
        }
        let mut over = std::pin::pin!(self.over.notified());
        // From here on its end is not missed.
        over.as_mut().enable();
        let left = Duration::from_millis(self.until.load(SeqCst).saturating_sub(now_ms())).min(limit);
        !left.is_zero() && timeout(left, over).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_is_being_made_is_waited_for() {
        let connecting = Arc::new(Connecting::default());
        assert!(!connecting.settled(LONG).await, "there is nothing to wait for");
        connecting.begins(LONG);
        assert!(!connecting.settled(SHORT).await, "not for longer than that");
        let waiting = Arc::clone(&connecting);
        let waiting = tokio::spawn(async move { waiting.settled(LONG).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        connecting.ended();
        assert!(waiting.await.unwrap());
        assert!(!connecting.settled(LONG).await);
    }

    #[tokio::test]
    async fn who_makes_it_may_be_gone() {
        let connecting = Connecting::default();
        connecting.begins(SHORT);
        assert!(!connecting.settled(LONG).await);
        assert!(!connecting.settled(LONG).await);
    }
}
