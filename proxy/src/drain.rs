//! How a proxy takes its leave, after SIGTERM.
//!
//! 1. Readiness fails at once; kube-proxy will send new connections elsewhere, but not at once.
//! 2. For the accept window everything goes on as before, and for longer while an operator says that shadow Services still offer
//!    this proxy: Kubernetes takes it out of thousands of `EndpointSlices` one after the other. The window then begins when none does.
//! 3. Then every answer says `Connection: close` (GOAWAY for h2). New connections are still taken: refusing one is a failed
//!    request, taking it costs nothing.
//! 4. When no connection is left, or at the deadline, it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::listen::Listeners;

/// How long the last connection must have been gone, in case another is on its way.
const QUIET: Duration = Duration::from_millis(500);
/// How often open connections are counted meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// How long it holds that shadow Services still offer this proxy. While they do it is said again and again.
const WORD: Duration = Duration::from_secs(20);
/// How long it takes an operator to say so.
const HEARD: Duration = Duration::from_secs(2);

/// What an operator said last of whether shadow Services still offer this proxy.
#[derive(Debug, Clone, Copy)]
pub struct Offered {
    /// They do.
    pub still: bool,
    /// When it said so.
    pub said: Instant,
}

/// The times of a drain.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Step 2 waits at most this long until no shadow Service offers this proxy.
    pub offered: Duration,
    /// Step 2 takes this long, at least.
    pub accept_window: Duration,
    /// Steps 3 and 4 take at most this long.
    pub deadline: Duration,
}

/// Returns when this process should end: a signal came and the drain it began is over, or a second signal came.
pub async fn until_over(
    drain: Drain,
    listeners: Arc<Listeners>,
    offered: watch::Receiver<Option<Offered>>,
    draining: watch::Sender<bool>,
) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! { _ = term.recv() => {} _ = interrupt.recv() => {} }
    tracing::info!(connections = listeners.open_connections(), "told to end: draining");
    draining.send_replace(true);
    tokio::select! {
        () = drained(drain, &listeners, offered) => {}
        _ = term.recv() => tracing::warn!("told to end again: ending at once"),
        _ = interrupt.recv() => tracing::warn!("interrupted again: ending at once"),
    }
    Ok(())
}

/// Steps 2 to 4.
pub async fn drained(drain: Drain, listeners: &Listeners, offered: watch::Receiver<Option<Offered>>) {
    nobody_comes(drain, offered).await;
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

/// Step 2.
async fn nobody_comes(drain: Drain, mut offered: watch::Receiver<Option<Offered>>) {
    let (began, window) = (Instant::now(), drain.accept_window);
    let latest = began + drain.offered + window;
    loop {
        let until = match *offered.borrow_and_update() {
            None => began + window.max(HEARD.min(drain.offered)),
            Some(Offered { still: true, said }) => (said + WORD).max(began + window),
            // What the slices say, kube-proxy has done a moment later.
            Some(Offered { still: false, said }) => said.max(began) + window,
        };
        tokio::select! {
            () = sleep_until(until.min(latest)) => return,
            Ok(()) = offered.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Drain = Drain {
        offered: Duration::from_mins(5),
        accept_window: Duration::from_secs(5),
        deadline: Duration::from_secs(60),
    };

    /// Seconds until nobody comes any more, when this is said after so many seconds.
    async fn seconds(said: &[(u64, bool)]) -> u64 {
        let (offered, heard) = watch::channel(None);
        let began = Instant::now();
        let said = said.to_vec();
        let speaking = tokio::spawn(async move {
            for (second, still) in said {
                sleep_until(began + Duration::from_secs(second)).await;
                offered.send_replace(Some(Offered { still, said: Instant::now() }));
            }
            std::future::pending::<()>().await;
        });
        nobody_comes(DRAIN, heard).await;
        speaking.abort();
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_begins_anew_when_no_service_offers_this_proxy_any_more() {
        assert_eq!(seconds(&[]).await, 5, "nobody knows");
        assert_eq!(seconds(&[(1, false)]).await, 6);
        assert_eq!(seconds(&[(1, true), (2, true), (3, false)]).await, 8);
        assert_eq!(seconds(&[(1, true), (19, true), (37, true), (50, false)]).await, 55);
        assert_eq!(seconds(&[(1, true), (2, true)]).await, 22, "the operator has gone");
        let always: Vec<_> = (0..2000).map(|second| (second, true)).collect();
        assert_eq!(seconds(&always).await, 305, "there is an end");
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_operator_the_window_is_all() {
        let began = Instant::now();
        nobody_comes(DRAIN, watch::channel(None).1).await;
        assert_eq!(began.elapsed(), DRAIN.accept_window);
        // But an operator gets the time to say otherwise.
        let (began, none) = (Instant::now(), Drain { accept_window: Duration::ZERO, ..DRAIN });
        nobody_comes(none, watch::channel(None).1).await;
        assert_eq!(began.elapsed(), HEARD);
    }
}
