//! Load: many clients at once in one thread. Each counts what it has had answered; whoever measures looks at the counts at two
//! times.

pub(crate) mod h2c;
pub(crate) mod http1;
pub(crate) mod paced;
pub(crate) mod streams;
pub(crate) mod udp;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use tokio::task::{JoinHandle, spawn_local};

use crate::Result;

/// What has come of the load so far.
#[derive(Default)]
pub(crate) struct Counts {
    /// Requests answered, or exchanges done.
    pub(crate) done: Cell<u64>,
    /// Bytes of bodies or streams, both ways.
    pub(crate) bytes: Cell<u64>,
    /// What went wrong, the latest.
    pub(crate) failure: Cell<Option<String>>,
    /// How much went wrong.
    pub(crate) failed: Cell<u64>,
}

impl Counts {
    /// One more, with so many bytes.
    pub(crate) fn done(&self, bytes: usize) {
        self.done.set(self.done.get() + 1);
        self.bytes.set(self.bytes.get() + bytes as u64);
    }
}

/// Clients at work. They end when dropped.
pub(crate) struct Clients {
    /// What has come of them.
    pub(crate) counts: Rc<Counts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// `n` clients, each running what `client` makes of its number, again when it fails.
    pub(crate) fn start<F: Future<Output = Result> + 'static>(
        n: usize,
        client: impl Fn(usize, Rc<Counts>) -> F + Clone + 'static,
    ) -> Self {
        let counts = Rc::new(Counts::default());
        let run = |number| {
            let (client, counts) = (client.clone(), Rc::clone(&counts));
            spawn_local(async move {
                loop {
                    if let Err(error) = client(number, Rc::clone(&counts)).await {
                        counts.failure.set(Some(error.to_string()));
                        counts.failed.set(counts.failed.get() + 1);
                        tokio::task::yield_now().await;
                    }
                }
            })
        };
        let tasks = (0..n).map(run).collect();
        Self { counts, tasks }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
