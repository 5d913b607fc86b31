//! Writes the last-known-good snapshot, off the path of updates: the latest one wins.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use weft_config::snapshot;

use crate::tables::held;

/// Changes that come within this time are written once.
const GATHER: Duration = Duration::from_millis(100);
/// Where changes come all the time, the pause before a write is so many times what the last one took: a large configuration
/// is not written more often than a twentieth of one core can.
const PAUSE: u32 = 20;
/// But it is not older than this: the last write may have taken long for other reasons.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Tells the writing task that something changed.
pub(super) struct Saver(watch::Sender<()>);

impl Saver {
    /// Starts the task. It ends with the `Saver`. Failures are counted and logged once until the next success: a proxy
    /// without a writable directory works, it only cannot start without an operator.
    pub(super) fn start(path: PathBuf, held: held::Shared, failures: Counter) -> Self {
        let (sender, mut changes) = watch::channel(());
        tokio::spawn(async move {
            let mut failing = false;
            let mut pause = GATHER;
            while changes.changed().await.is_ok() {
                tokio::time::sleep(pause).await;
                changes.mark_unchanged();
                // Here, where no update can be half applied: the task that applies them runs on the same thread.
                let resources = held.lock().encoded();
                let path = path.clone();
                let began = Instant::now();
                let write = move || snapshot::write_encoded(&path, resources.iter());
                let written = tokio::task::spawn_blocking(write).await;
                pause = (began.elapsed() * PAUSE).clamp(GATHER, LONGEST_PAUSE);
                if let Ok(Err(error)) = written {
                    failures.inc();
                    if !failing {
                        tracing::warn!(%error, "the last-known-good configuration cannot be written");
                    }
                    failing = true;
                } else {
                    failing = false;
                }
            }
        });
        Self(sender)
    }

    /// What is held has changed.
    pub(super) fn save(&self) {
        self.0.send_replace(());
    }
}
