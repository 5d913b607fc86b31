//! When the API server was heard of last. The Lease changes every few seconds, and every replica watches it: who hears nothing of
//! it for long knows nothing of anything else either.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Nothing heard for so long: what this replica knows of pods and endpoints is old. Several times what a leader's failure takes.
const LOST: Duration = Duration::from_secs(60);

/// Whether this replica hears of the API server; cloning is cheap.
#[derive(Debug, Clone)]
pub struct Contact {
    last: watch::Sender<Option<Instant>>,
    lost_after: Duration,
}

impl Default for Contact {
    fn default() -> Self {
        Self::lost_after(LOST)
    }
}

impl Contact {
    /// Lost when nothing is heard for so long.
    pub fn lost_after(lost_after: Duration) -> Self {
        Self { last: watch::Sender::new(None), lost_after }
    }

    /// The API server was heard of.
    pub fn made(&self) {
        self.last.send_replace(Some(Instant::now()));
    }

    /// Whether there was contact, and none for too long.
    pub fn is_lost(&self) -> bool {
        self.last.borrow().is_some_and(|last| last.elapsed() >= self.lost_after)
    }

    /// Returns when it is lost.
    pub async fn lost(&self) {
        while !self.is_lost() {
            let last = self.last.borrow().unwrap_or_else(Instant::now);
            tokio::time::sleep_until(last + self.lost_after).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_lost_when_nothing_was_heard_for_long_and_is_there_again_with_the_next_word() {
        let contact = Contact::default();
        tokio::time::sleep(2 * LOST).await;
        assert!(!contact.is_lost(), "there was none yet");
        contact.made();
        let began = Instant::now();
        tokio::time::sleep(LOST / 2).await;
        contact.made();
        contact.lost().await;
        assert_eq!(began.elapsed(), LOST + LOST / 2);
        assert!(contact.is_lost());
        contact.made();
        assert!(!contact.is_lost());
    }
}
