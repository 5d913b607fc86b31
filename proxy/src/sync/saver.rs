//! Writes the last-known-good snapshot, off the path of updates: the latest one wins. While an operator is there it moves on
//! the time of what is written, so that a proxy that starts without one knows how old that is.

use std::path::PathBuf;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use weft_config::{ResourceSet, snapshot};

/// Changes that come within this time are written once.
const GATHER: Duration = Duration::from_millis(100);
/// How often the time is moved on. A proxy that starts without an operator takes what it has for so much older.
const CONFIRM: Duration = Duration::from_secs(10);

/// What is to be in the file.
#[derive(Default)]
struct Wanted {
    /// Counts the configurations.
    number: u64,
    set: Option<ResourceSet>,
    /// Whether an operator is there that says the same.
    in_step: bool,
}

/// Hands configurations to the writing task.
pub(super) struct Saver(watch::Sender<Wanted>);

impl Saver {
    /// Starts the task. It ends with the `Saver`. Failures are counted and logged once until the next success: a proxy
    /// without a writable directory works, it only cannot start without an operator.
    pub(super) fn start(path: PathBuf, failures: Counter) -> Self {
        let (sender, wanted) = watch::channel(Wanted::default());
        tokio::spawn(keep(path, failures, wanted));
        Self(sender)
    }

    /// This is the configuration now, and an operator is there that says so.
    pub(super) fn save(&self, set: ResourceSet) {
        self.0.send_modify(|wanted| {
            *wanted = Wanted { number: wanted.number + 1, set: Some(set), in_step: true };
        });
    }

    /// No operator is there any more.
    pub(super) fn operator_gone(&self) {
        self.0.send_modify(|wanted| wanted.in_step = false);
    }
}

async fn keep(path: PathBuf, failures: Counter, mut wanted: watch::Receiver<Wanted>) {
    // Which configuration is in the file.
    let mut written = 0;
    let mut failing = false;
    loop {
        let confirming = {
            let wanted = wanted.borrow();
            wanted.in_step && wanted.number == written
        };
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(GATHER).await;
            }
            () = tokio::time::sleep(CONFIRM), if confirming => {}
        }
        let (number, set) = {
            let wanted = wanted.borrow_and_update();
            let unwritten = wanted.number != written;
            if !unwritten && !wanted.in_step {
                continue;
            }
            (wanted.number, wanted.set.clone().filter(|_| unwritten))
        };
        let path = path.clone();
        let done = tokio::task::spawn_blocking(move || match set {
            Some(set) => snapshot::write(&path, &set),
            None => snapshot::confirm(&path),
        });
        match done.await {
            Ok(Ok(())) => (written, failing) = (number, false),
            Ok(Err(error)) => {
                failures.inc();
                if !failing {
                    tracing::warn!(%error, "the last-known-good configuration cannot be written");
                }
                failing = true;
            }
            Err(_) => {}
        }
    }
}
