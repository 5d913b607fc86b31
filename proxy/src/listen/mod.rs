//! The listeners: one for each port of each Service, opened and closed at run time without touching the others.
//!
//! Each runs as a pingora service of its own, all sharing one HTTP engine and one upstream pool. A closed listener takes no
//! new connection at once; its open connections are told to leave with their next answer and are cut at a deadline. Until
//! they are gone its port counts as held.

mod connection;
mod socket;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use pingora::listeners::Listeners as PingoraListeners;
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::sync::watch;

use crate::http::Engine;
use crate::metrics::Metrics;

pub use connection::{Connections, PortApp};

/// How long connections of a closed listener may take to leave.
const LEAVE_DEADLINE: Duration = Duration::from_secs(30);

struct Listener {
    /// `true` ends the accept loop.
    stop_accepting: watch::Sender<bool>,
    connections: Arc<Connections>,
}

/// All listeners of this proxy.
pub struct Listeners {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    /// Open connections of all listeners, closed ones included.
    open_connections: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: BTreeMap<u16, Listener>,
    /// Closed, with connections that have not left yet.
    leaving: BTreeMap<u16, Arc<Connections>>,
    /// The whole process drains: listeners opened from now on tell their connections to leave, too.
    draining: bool,
}

impl Listeners {
    /// No listener yet; connections will be served by `engine`.
    pub fn new(engine: Arc<Engine>, metrics: Arc<Metrics>) -> Self {
        let (open_connections, state) = Default::default();
        Self { engine, metrics, open_connections, state }
    }

    /// Binds `port` and begins to accept. Needs a tokio runtime around it.
    pub fn open(&self, port: u16) -> std::io::Result<()> {
        let mut state = self.state.lock();
        if let Some(left_over) = state.leaving.remove(&port) {
            // The port has a new meaning: whoever is still connected means the old one.
            left_over.cut();
        }
        let (address, sockets) = socket::bind(port)?;
        let (stop_accepting, accepting) = watch::channel(false);
        let connections =
            Arc::new(Connections::new(Arc::clone(&self.open_connections), self.metrics.connections.clone()));
        if state.draining {
            connections.tell_to_leave();
        }
        let app = PortApp::new(Arc::clone(&self.engine), Arc::clone(&connections));
        let mut service =
            Service::with_listeners(format!("port {port}"), PingoraListeners::tcp(&address), app);
        tokio::spawn(async move { service.start_service(Some(sockets), accepting, 1).await });
        state.open.insert(port, Listener { stop_accepting, connections });
        self.metrics.listeners.inc();
        Ok(())
    }

    /// Stops accepting on `port` and tells its connections to leave.
    pub fn close(&self, port: u16) {
        let mut state = self.state.lock();
        let Some(listener) = state.open.remove(&port) else { return };
        self.metrics.listeners.dec();
        listener.stop_accepting.send_replace(true);
        listener.connections.tell_to_leave();
        if listener.connections.count() > 0 {
            let connections = Arc::clone(&listener.connections);
            state.leaving.insert(port, listener.connections);
            tokio::spawn(async move {
                tokio::time::sleep(LEAVE_DEADLINE).await;
                connections.cut();
            });
        }
    }

    /// Every port that is open or still has connections, ascending.
    pub fn held_ports(&self) -> Vec<u16> {
        let mut state = self.state.lock();
        state.leaving.retain(|_, connections| connections.count() > 0);
        let mut ports: Vec<_> = state.open.keys().chain(state.leaving.keys()).copied().collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// From now on every answer tells its client to leave; new connections are still accepted.
    pub fn drain(&self) {
        let mut state = self.state.lock();
        state.draining = true;
        for listener in state.open.values() {
            listener.connections.tell_to_leave();
        }
    }

    /// Open connections of all listeners.
    pub fn open_connections(&self) -> usize {
        self.open_connections.load(SeqCst)
    }
}
