//! When a command that runs for an unknown time ends: told by a signal, by its standard input, or after so many seconds.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// How a command is told to end. SIGTERM always ends it.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Until {
    /// End after so many seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// End when a byte arrives on standard input, or it is closed: the test's exec session says when.
    #[arg(long)]
    until_stdin: bool,
}

impl Until {
    /// By standard input, or after ten minutes.
    pub(crate) const TOLD: Self = Self { seconds: 600, until_stdin: true };

    /// Completes when the command should end.
    pub(crate) async fn wait(self) -> io::Result<()> {
        let told = async {
            if self.until_stdin {
                // Closed or a byte: either way the test is done.
                let _ = tokio::io::stdin().read(&mut [0]).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = terminated() => ended,
            () = told => Ok(()),
            () = tokio::time::sleep(Duration::from_secs(self.seconds)) => Ok(()),
        }
    }
}

/// Completes on SIGTERM or SIGINT.
pub(crate) async fn terminated() -> io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => (),
        _ = int.recv() => (),
    }
    Ok(())
}
