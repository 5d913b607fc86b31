//! Writes the last-known-good snapshot, off the path of updates: the latest one wins.

use std::path::PathBuf;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use weft_config::{ResourceSet, snapshot};

/// Changes that come within this time are written once.
const GATHER: Duration = Duration::from_millis(100);

/// Hands configurations to the writing task.
pub(super) struct Saver(watch::Sender<Option<ResourceSet>>);

impl Saver {
    /// Starts the task. It ends with the `Saver`. Failures are counted and logged once until the next success: a proxy
    /// without a writable directory works, it only cannot start without an operator.
    pub(super) fn start(path: PathBuf, failures: Counter) -> Self {
        let (sender, mut latest) = watch::channel(None);
        tokio::spawn(async move {
            let mut failing = false;
            while latest.changed().await.is_ok() {
                tokio::time::sleep(GATHER).await;
                let Some(set) = latest.borrow_and_update().clone() else { continue };
                let path = path.clone();
                let written = tokio::task::spawn_blocking(move || snapshot::write(&path, &set)).await;
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

    pub(super) fn save(&self, set: ResourceSet) {
        self.0.send_replace(Some(set));
    }
}
