//! The listeners: one for each port of each Service, opened and closed at run time without touching the others.
//!
//! An HTTP or TCP port has an accept loop, a UDP port a receive loop, on one of the [`workers`]; a connection goes to the
//! worker that has the fewest. A closed listener takes no new connection at once; its open connections are told to leave
//! with their next answer and are cut at a deadline. Until they are gone its port counts as held. When the type of a port
//! changes between HTTP and TCP its socket stays open all the time: no connection is refused.
//!
//! Each port takes a descriptor, and so does each connection. Ports get three quarters of those the process may have, and what
//! goes beyond is refused: ports that took all would carry nothing, for any Service.

mod connection;
mod socket;
mod stream;
mod workers;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use weft_config::Traffic;
use weft_config::status::Holder;

use crate::access_log::AccessLog;
use crate::http;
use crate::http::headers::BadNode;
use crate::metrics::Metrics;
use crate::tables::Tables;
use crate::udp;

use connection::Open;
pub use connection::{Connections, header_arrived};
pub use socket::prepare;
pub use workers::start_worker;
use workers::{Busy, Worker, Workers};

/// How long connections of a closed listener may take to leave.
const LEAVE_DEADLINE: Duration = Duration::from_secs(30);
/// The pause after a connection could not be accepted, for example because there are no descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// What listens on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A TCP socket whose connections speak HTTP.
    Http,
    /// A TCP socket.
    Tcp,
    /// A UDP socket.
    Udp,
}

impl Transport {
    /// What `traffic` arrives on.
    pub fn of(traffic: &Traffic) -> Self {
        match traffic {
            Traffic::Http(_) => Self::Http,
            Traffic::Tcp => Self::Tcp,
            Traffic::Udp => Self::Udp,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// What carries the traffic that arrives.
pub struct Carriers {
    workers: Workers,
    /// What each port is for.
    pub tables: Arc<Tables>,
    /// For TCP and UDP; the engines have holds of their own.
    pub access_log: Arc<AccessLog>,
}

impl Carriers {
    /// For `tables`, on `node`, with a worker on each of `runtimes`, of which there must be one.
    pub fn new(
        tables: Arc<Tables>,
        node: &str,
        runtimes: &[Handle],
        access_log: AccessLog,
    ) -> Result<Self, BadNode> {
        let access_log = Arc::new(access_log);
        let worker = |runtime: &Handle| {
            let engine = http::engine(Arc::clone(&tables), node, Arc::clone(&access_log))?;
            Ok(Worker::new(runtime.clone(), engine))
        };
        let workers = Workers::new(runtimes.iter().map(worker).collect::<Result<Vec<_>, _>>()?);
        Ok(Self { workers, tables, access_log })
    }
}

struct Listener {
    transport: Transport,
    connections: Arc<Connections>,
    /// For whoever takes it over.
    socket: Option<Arc<TcpListener>>,
    accepting: JoinHandle<()>,
}

impl Listener {
    /// Nobody new is let in. For datagrams that is the end of the task alone.
    fn stop(&self) {
        if let Some(socket) = &self.socket {
            socket::stop(socket);
        }
    }
}

/// Why no further port is opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "{open} ports are open, and the rest of the {files} files that this process may have open is for connections; raise the \
     limit of open files (LimitNOFILE) of the node's container runtime"
)]
struct NoRoom {
    open: usize,
    files: u64,
}

/// All listeners of this proxy.
pub struct Listeners {
    carriers: Arc<Carriers>,
    /// Files this process may have open.
    files: u64,
    metrics: Arc<Metrics>,
    /// Open connections of all listeners, closed ones included.
    open_connections: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: BTreeMap<u16, Listener>,
    /// Closed. Whoever else holds the connections is one of them that has not left yet, or still accepts.
    leaving: Vec<(u16, Arc<Connections>)>,
    /// The whole process drains: listeners opened from now on tell their connections to leave, too.
    draining: bool,
}

impl Listeners {
    /// No listener yet; what arrives will be carried by `carriers`.
    pub fn new(carriers: Carriers, metrics: Arc<Metrics>) -> Self {
        let (open_connections, state) = Default::default();
        // Where nobody knows, the kernel says when it is enough.
        let files = rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::MAX);
        Self { carriers: Arc::new(carriers), files, metrics, open_connections, state }
    }

    /// As if this process might have so many files open.
    #[must_use]
    pub fn with_files(mut self, files: u64) -> Self {
        self.files = files;
        self
    }

    fn room(&self, state: &State) -> Result<(), NoRoom> {
        let (open, files) = (state.open.len(), self.files);
        let for_ports = files - files / 4;
        if u64::try_from(open).is_ok_and(|open| open < for_ports) {
            Ok(())
        } else {
            Err(NoRoom { open, files })
        }
    }

    /// Binds `port` and begins to accept, after `bound`: who connects before waits in the kernel, and finds what `bound` has put
    /// into the tables. Needs a tokio runtime around it. Fails where too few descriptors would be left for connections.
    pub fn open(&self, port: u16, transport: Transport, bound: impl FnOnce()) -> io::Result<()> {
        let mut state = self.state.lock();
        self.room(&state).map_err(|full| io::Error::new(io::ErrorKind::QuotaExceeded, full))?;
        for (_, left_over) in state.leaving.extract_if(.., |(leaving, _)| *leaving == port) {
            // The port has a new meaning: whoever is still connected means the old one.
            left_over.cut();
        }
        let listener = self.start(port, transport, None, bound)?;
        self.insert(&mut state, port, listener);
        Ok(())
    }

    /// From now on what arrives on the open `port` is carried as `transport`. Without effect when it is already.
    pub fn switch(&self, port: u16, transport: Transport) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(before) = state.open.get(&port).filter(|listener| listener.transport != transport) else {
            return Ok(());
        };
        let socket = match &before.socket {
            Some(socket) if transport != Transport::Udp => Some(Arc::clone(socket)),
            _ => None,
        };
        let listener = self.start(port, transport, socket, || ())?;
        if let Some(before) = state.open.remove(&port) {
            self.metrics.listeners.dec();
            if transport == Transport::Udp {
                before.stop();
            }
            Self::leave(&mut state, port, before);
        }
        self.insert(&mut state, port, listener);
        Ok(())
    }

    fn insert(&self, state: &mut State, port: u16, listener: Listener) {
        if state.draining {
            listener.connections.tell_to_leave();
        }
        state.open.insert(port, listener);
        self.metrics.listeners.inc();
    }

    /// Begins to listen, on `socket` if there is one already.
    fn start(
        &self,
        port: u16,
        transport: Transport,
        socket: Option<Arc<TcpListener>>,
        bound: impl FnOnce(),
    ) -> io::Result<Listener> {
        let connections =
            Arc::new(Connections::new(Arc::clone(&self.open_connections), self.metrics.connections.clone()));
        let carriers = Arc::clone(&self.carriers);
        let worker = Arc::clone(carriers.workers.at(port));
        // Sockets belong to the runtime they are made in: for one port always the same.
        let _in_it = worker.runtime.enter();
        if transport == Transport::Udp {
            let server = udp::Server::new(socket::bind_udp(port)?, port, carriers)?;
            bound();
            let until = Arc::clone(&connections);
            let accepting = tokio::spawn(async move {
                tokio::select! {
                    // What is queued may be for a Service that no longer has the port.
                    biased;
                    () = until.until_cut() => {}
                    () = server.run() => {}
                }
            });
            return Ok(Listener { transport, connections, socket: None, accepting });
        }
        let new = || TcpListener::from_std(socket::bind(port)?).map(Arc::new);
        let socket = socket.map_or_else(new, Ok)?;
        let (here, listener) = (Arc::clone(&worker), Arc::clone(&socket));
        bound();
        let accepting = tokio::spawn(accept(listener, port, here, carriers, Arc::clone(&connections)));
        Ok(Listener { transport, connections, socket: Some(socket), accepting })
    }

    /// Stops accepting on `port` and tells its connections to leave.
    pub fn close(&self, port: u16) {
        let mut state = self.state.lock();
        let Some(listener) = state.open.remove(&port) else { return };
        self.metrics.listeners.dec();
        listener.stop();
        Self::leave(&mut state, port, listener);
    }

    fn leave(state: &mut State, port: u16, listener: Listener) {
        // Between accepting a connection and handing it on there is nothing to wait for: none is lost.
        listener.accepting.abort();
        listener.connections.tell_to_leave();
        let connections = Arc::downgrade(&listener.connections);
        state.leaving.push((port, listener.connections));
        tokio::spawn(async move {
            tokio::time::sleep(LEAVE_DEADLINE).await;
            if let Some(connections) = connections.upgrade() {
                connections.cut();
            }
        });
    }

    /// Every port that is open or still has connections, ascending.
    pub fn held_ports(&self) -> Vec<u16> {
        let mut state = self.state.lock();
        state.leaving.retain(|(_, connections)| Arc::strong_count(connections) > 1);
        let mut ports: Vec<_> =
            state.open.keys().copied().chain(state.leaving.iter().map(|(port, _)| *port)).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// For whom those of `ports` are that are open.
    pub fn holders(&self, ports: impl Iterator<Item = u16>) -> Vec<Holder> {
        let state = self.state.lock();
        let open = ports.filter(|port| state.open.contains_key(port));
        let holder = |listen_port: u16| {
            let entry = self.carriers.tables.port(listen_port);
            let entry = entry.as_ref()?;
            let (namespace, name) = (entry.service.namespace.to_string(), entry.service.name.to_string());
            Some(Holder { listen_port, namespace, name, port: entry.port })
        };
        open.filter_map(holder).collect()
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

/// Accepts connections, on the worker `here`, until aborted.
async fn accept(
    listener: Arc<TcpListener>,
    port: u16,
    here: Arc<Worker>,
    carriers: Arc<Carriers>,
    connections: Arc<Connections>,
) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(port, %error, "accept");
                // Boxed: there are thousands of these loops, and few ever wait here.
                Box::pin(tokio::time::sleep(ACCEPT_AGAIN)).await;
                continue;
            }
        };
        // Open from now on, whenever its worker comes to it.
        let open = Open::new(&connections);
        let busy = Busy::new(carriers.workers.idlest(&here));
        let carriers = Arc::clone(&carriers);
        if Arc::ptr_eq(&busy.0, &here) {
            tokio::spawn(connection::serve(stream, client, port, busy, carriers, open));
        } else if let Ok(stream) = stream.into_std() {
            let runtime = busy.0.runtime.clone();
            runtime.spawn(async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    connection::serve(stream, client, port, busy, carriers, open).await;
                }
            });
        }
    }
}
