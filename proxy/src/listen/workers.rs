//! The threads that carry traffic: each has a runtime, an engine and with it upstream connections of its own. A connection
//! stays with the worker it was given to, and so does all that is done for it (`docs/decisions/0014`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use tokio::runtime::{Builder, Handle};

use crate::http::Engine;

/// Starts a thread that runs what is spawned on its runtime, until the process ends.
pub fn start_worker(number: usize) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(std::future::pending::<()>());
    thread::Builder::new().name(format!("worker-{number}")).spawn(run)?;
    Ok(handle)
}

/// One of them.
pub(super) struct Worker {
    pub(super) runtime: Handle,
    /// For HTTP.
    pub(super) engine: Arc<Engine>,
    /// Connections it has.
    open: AtomicUsize,
}

impl Worker {
    pub(super) fn new(runtime: Handle, engine: Arc<Engine>) -> Self {
        Self { runtime, engine, open: AtomicUsize::new(0) }
    }
}

/// All of them.
pub(super) struct Workers(Box<[Arc<Worker>]>);

impl Workers {
    /// `all` must not be empty.
    pub(super) fn new(all: impl IntoIterator<Item = Worker>) -> Self {
        Self(all.into_iter().map(Arc::new).collect())
    }

    /// The one that listens on `port`.
    pub(super) fn at(&self, port: u16) -> &Arc<Worker> {
        &self.0[usize::from(port) % self.0.len()]
    }

    /// The one with the fewest connections; `here`, which need not be woken for it, if there is none with fewer.
    pub(super) fn idlest(&self, here: &Arc<Worker>) -> &Arc<Worker> {
        let open = |worker: &Arc<Worker>| worker.open.load(Relaxed);
        let other = self.0.iter().min_by_key(|worker| (open(worker), !Arc::ptr_eq(worker, here)));
        other.unwrap_or(&self.0[0])
    }
}

/// Counts a connection of a worker until dropped.
pub(super) struct Busy(pub(super) Arc<Worker>);

impl Busy {
    pub(super) fn new(worker: &Arc<Worker>) -> Self {
        worker.open.fetch_add(1, Relaxed);
        Self(Arc::clone(worker))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::{AccessLog, Format};
    use crate::http;

    #[tokio::test]
    async fn a_connection_goes_to_who_has_the_fewest_and_stays_where_it_came_when_all_have_as_many() {
        let worker = || {
            let log = Arc::new(AccessLog::new(Format::Off).unwrap());
            Worker::new(Handle::current(), http::engine(Arc::default(), "node1", log).unwrap())
        };
        let workers = Workers::new([worker(), worker(), worker()]);
        let [first, second, third] = &*workers.0 else { panic!() };
        assert!(Arc::ptr_eq(workers.at(4), second));
        assert!(Arc::ptr_eq(workers.idlest(third), third), "it need not be woken");
        let (_a, b) = (Busy::new(third), Busy::new(first));
        assert!(Arc::ptr_eq(workers.idlest(third), second));
        let _c = Busy::new(second);
        drop(b);
        assert!(Arc::ptr_eq(workers.idlest(third), first));
    }
}
