//! Writes the last-known-good snapshot, off the path of updates: the latest one wins. While an operator is there it moves on
//! the time of what is written, so that a proxy that starts without one knows how old that is.

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
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often the time is moved on, and what could not be written is tried again. A proxy that starts without an operator takes
/// what it has for so much older.
const CONFIRM: Duration = Duration::from_secs(10);

/// What is to be in the file.
#[derive(Clone, Copy, Default)]
struct Wanted {
    /// Counts the configurations; the latest is what is held.
    number: u64,
    /// Whether an operator is there that says the same.
    in_step: bool,
}

/// Tells the writing task what changed.
pub(super) struct Saver(watch::Sender<Wanted>);

impl Saver {
    /// Starts the task. It ends with the `Saver`. Failures are counted and logged once until the next success: a proxy
    /// without a writable directory works, it only cannot start without an operator.
    pub(super) fn start(path: PathBuf, held: held::Shared, failures: Counter) -> Self {
        let (sender, wanted) = watch::channel(Wanted::default());
        tokio::spawn(keep(path, held, failures, wanted));
        Self(sender)
    }

    /// What is held has changed, and an operator is there that says so.
    pub(super) fn save(&self) {
        self.0.send_modify(|wanted| *wanted = Wanted { number: wanted.number + 1, in_step: true });
    }

    /// No operator is there any more.
    pub(super) fn operator_gone(&self) {
        self.0.send_modify(|wanted| wanted.in_step = false);
    }
}

async fn keep(path: PathBuf, held: held::Shared, failures: Counter, mut wanted: watch::Receiver<Wanted>) {
    // Which configuration is in the file.
    let mut written = 0;
    let mut failing = false;
    let mut pause = GATHER;
    loop {
        let looks_again = {
            let wanted = wanted.borrow();
            failing || (wanted.in_step && wanted.number == written)
        };
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
            () = tokio::time::sleep(CONFIRM), if looks_again => {}
        }
        let Wanted { number, in_step } = *wanted.borrow_and_update();
        let unwritten = number != written;
        if !unwritten && !in_step {
            continue;
        }
        // Here, where no update can be half applied: the task that applies them runs on the same thread.
        let resources = unwritten.then(|| held.lock().encoded());
        let path = path.clone();
        let began = Instant::now();
        let done = tokio::task::spawn_blocking(move || match resources {
            Some(resources) => snapshot::write_encoded(&path, resources.iter()),
            None => snapshot::confirm(&path),
        });
        let done = done.await;
        if unwritten {
            pause = (began.elapsed() * PAUSE).clamp(GATHER, LONGEST_PAUSE);
        }
        match done {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_written_is_tried_again_without_a_change() {
        let directory = std::env::temp_dir().join(format!("weft-saver-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let (path, failures) = (directory.join("config"), Counter::default());
        let saver = Saver::start(path.clone(), held::Shared::default(), failures.clone());
        saver.save();
        // Time is made to pass when nothing else goes on; a write goes on in another thread.
        while failures.get() == 0 {
            tokio::time::sleep(GATHER).await;
        }
        std::fs::create_dir(&directory).unwrap();
        while !path.exists() {
            tokio::time::sleep(GATHER).await;
        }
        drop(saver);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
