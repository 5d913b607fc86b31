//! How a proxy takes its leave, after SIGTERM.
//!
//! 1. Readiness fails at once; kube-proxy will send new connections elsewhere, but not at once.
//! 2. For the accept window everything goes on as before.
//! 3. Then every answer says `Connection: close` (GOAWAY for h2). New connections are still taken: refusing one is a failed
//!    request, taking it costs nothing.
//! 4. When no connection is left, or at the deadline, it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::listen::Listeners;

/// How long the last connection must have been gone, in case another is on its way.
const QUIET: Duration = Duration::from_millis(500);
/// How often open connections are counted meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// The times of a drain.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Step 2 takes this long.
    pub accept_window: Duration,
    /// Steps 3 and 4 take at most this long.
    pub deadline: Duration,
}

/// Returns when this process should end: a signal came and the drain it began is over, or a second signal came.
pub async fn until_over(
    drain: Drain,
    listeners: Arc<Listeners>,
    draining: watch::Sender<bool>,
) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! { _ = term.recv() => {} _ = interrupt.recv() => {} }
    tracing::info!(connections = listeners.open_connections(), "told to end: draining");
    draining.send_replace(true);
    tokio::select! {
        () = drained(drain, &listeners) => {}
        _ = term.recv() => tracing::warn!("told to end again: ending at once"),
        _ = interrupt.recv() => tracing::warn!("interrupted again: ending at once"),
    }
    Ok(())
}

/// Steps 2 to 4.
pub async fn drained(drain: Drain, listeners: &Listeners) {
    sleep(drain.accept_window).await;
    listeners.drain();
    let deadline = Instant::now() + drain.deadline;
    let mut quiet_since = None;
    while Instant::now() < deadline {
        if listeners.open_connections() > 0 {
            quiet_since = None;
        } else if quiet_since.get_or_insert_with(Instant::now).elapsed() >= QUIET {
            tracing::info!("drained");
            return;
        }
        sleep(LOOK).await;
    }
    tracing::warn!(connections = listeners.open_connections(), "drain deadline: cutting what is left");
}
