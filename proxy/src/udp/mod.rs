//! Carrying datagrams: each source has a session with one endpoint, over a socket of its own, so that answers find back.
//!
//! One task owns a port's sessions and takes in what sources send; each session has a task that takes in what its endpoint
//! sends. Sessions end when they were silent for a while, when their endpoint is gone from the Service, or when it says that
//! nobody listens. Datagrams are dropped, and counted, rather than queued.

mod session;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::access::{Denied, What, admit};
use crate::access_log::Line;
use crate::balance::EndpointList;
use crate::listen::Carriers;
use crate::tables::{Backend, PortEntry, PortTraffic};
use session::Session;

/// How long a session may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// Sessions of one port. Each takes a socket.
const MOST_SESSIONS: usize = 16_384;
/// The largest datagram there is.
const LARGEST: usize = 65_535;
/// How often sessions are swept, and at most when there are too many: each sweep looks at all of them.
const SWEEP: Duration = Duration::from_secs(5);
const SWEEP_WHEN_FULL: Duration = Duration::from_secs(1);
/// Datagrams taken in one go before others get their turn.
const TURN: usize = 64;

/// Everything one UDP port is.
pub struct Server {
    socket: Arc<UdpSocket>,
    port: u16,
    carriers: Arc<Carriers>,
    sessions: HashMap<SocketAddr, Session>,
    /// Sources that were denied since the last sweep: one line each in the access log.
    denied: HashSet<IpAddr>,
    seen: Seen,
    swept: Instant,
}

/// What sessions depend on, as it was when they were last looked through.
#[derive(Default)]
struct Seen {
    /// The endpoints of each backend.
    endpoints: Vec<Arc<EndpointList>>,
    /// Told when access changes; there once a session was restricted.
    access: Option<watch::Receiver<()>>,
}

impl Seen {
    /// Whether it is all as it was.
    fn is_now(&self, entry: &PortEntry) -> bool {
        let mut seen = self.endpoints.iter();
        let same = |backend: &Arc<Backend>| {
            seen.next().is_some_and(|list| Arc::ptr_eq(list, &backend.endpoints.load()))
        };
        entry.backends().all(same)
            && seen.next().is_none()
            && entry.restriction.is_some() == self.access.is_some()
            && self.access.as_ref().is_none_or(|access| !access.has_changed().unwrap_or(true))
    }
}

impl Server {
    /// Serves what arrives on `socket`, for the Service behind the listen port `port`.
    pub fn new(socket: std::net::UdpSocket, port: u16, carriers: Arc<Carriers>) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        Ok(Self {
            socket,
            port,
            carriers,
            sessions: HashMap::new(),
            denied: HashSet::new(),
            seen: Seen::default(),
            swept: Instant::now(),
        })
    }

    /// Until aborted.
    pub async fn run(mut self) {
        let mut buffer = vec![0; LARGEST].into_boxed_slice();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = sweep.tick() => self.sweep(),
                ready = self.socket.readable() => {
                    if let Err(error) = ready {
                        return tracing::error!(port = self.port, %error, "the UDP socket is broken");
                    }
                    self.take_in(&mut buffer);
                }
            }
        }
    }

    /// Takes in what has arrived.
    fn take_in(&mut self, buffer: &mut [u8]) {
        // Where there is none, what has arrived must go all the same.
        let entry = self.entry();
        for _ in 0..TURN {
            let (n, source) = match self.socket.try_recv_from(buffer) {
                Ok(received) => received,
                // A late ICMP error of one source is nobody else's business.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => continue,
                Err(_) => return,
            };
            let Some(entry) = &entry else { continue };
            entry.metrics.received.add(n as u64);
            self.forward(entry, source, &buffer[..n]);
        }
    }

    fn entry(&self) -> Option<Arc<PortEntry>> {
        let entry = self.carriers.tables.port(self.port).clone()?;
        matches!(entry.traffic, PortTraffic::Udp).then_some(entry)
    }

    fn forward(&mut self, entry: &Arc<PortEntry>, source: SocketAddr, datagram: &[u8]) {
        if !self.seen.is_now(entry) {
            self.look_through(entry);
        }
        // A second try: the session there was may have been told that nobody listens.
        for _ in 0..2 {
            if !self.sessions.contains_key(&source) {
                match self.begin(entry, source) {
                    Ok(session) => self.sessions.insert(source, session),
                    Err(error) => {
                        tracing::debug!(service = %entry.service, %error, "datagram dropped");
                        return entry.metrics.udp_dropped.inc();
                    }
                };
            }
            let Some(session) = self.sessions.get(&source) else { return };
            // Only new sessions go elsewhere then: those it has may wait for something that takes its time.
            if session.backend().endpoints.load().datagram_goes(session.endpoint().endpoint()) {
                entry.metrics.ejections.inc();
            }
            match session.send(datagram) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return entry.metrics.udp_dropped.inc();
                }
                Err(_) => {
                    session.endpoint().endpoint().connect_failed();
                    entry.metrics.connect_failures.inc();
                    entry.metrics.ejections.inc();
                    self.sessions.remove(&source);
                }
            }
        }
        entry.metrics.udp_dropped.inc();
    }

    fn begin(&mut self, entry: &Arc<PortEntry>, source: SocketAddr) -> io::Result<Session> {
        if self.sessions.len() >= MOST_SESSIONS {
            if self.swept.elapsed() >= SWEEP_WHEN_FULL {
                self.sweep();
            }
            if self.sessions.len() >= MOST_SESSIONS {
                return Err(io::Error::other("there are too many sessions"));
            }
        }
        let carriers = Arc::clone(&self.carriers);
        let (accounts, route) = (&carriers.tables.accounts, entry.route(None));
        let allowed = if entry.restriction.is_some() {
            let admitted = admit::now(accounts, entry, route, source.ip(), What::Udp);
            Some(admitted.map_err(|denied| self.deny(entry, source, &denied))?)
        } else {
            None
        };
        let list = route.backend.endpoints.load();
        let Some(endpoint) = admit::pick(accounts, &list, allowed.as_ref(), &[]) else {
            return Err(io::Error::other(format!("no ready endpoint: {}", list.why_empty())));
        };
        Session::begin(
            (Arc::clone(route.backend), endpoint),
            source,
            Arc::clone(entry),
            Arc::clone(&self.socket),
            Arc::clone(&self.carriers),
        )
    }

    /// Tells of the source of a datagram that may not pass.
    fn deny(&mut self, entry: &PortEntry, source: SocketAddr, denied: &Denied) -> io::Error {
        let why = denied.to_string();
        let log = &self.carriers.access_log;
        if log.is_on() && self.denied.insert(source.ip()) {
            let line = Line::new("udp", entry, Duration::ZERO);
            log.write(&Line { client: Some(source), reason: Some(&why), ..line });
        }
        io::Error::new(io::ErrorKind::PermissionDenied, why)
    }

    /// Something changed: ends the sessions whose endpoint is gone, and those that are no longer allowed.
    fn look_through(&mut self, entry: &PortEntry) {
        let accounts = &self.carriers.tables.accounts;
        // Before the look: what changes during it is looked at again.
        self.seen = Seen {
            endpoints: entry.backends().map(|backend| backend.endpoints.load_full()).collect(),
            access: entry.restriction.map(|_| accounts.changes()),
        };
        let lists = &self.seen.endpoints;
        self.sessions.retain(|source, session| {
            let address = session.endpoint().endpoint().address.ip();
            lists.iter().any(|list| session.endpoint().is_in(list))
                && (entry.restriction.is_none()
                    || admit::still(accounts, entry, source.ip(), address, What::Udp))
        });
    }

    /// Ends the sessions that were silent for too long.
    fn sweep(&mut self) {
        if let Some(entry) = self.entry().filter(|entry| !self.seen.is_now(entry)) {
            self.look_through(&entry);
        }
        self.denied.clear();
        let idle = self.entry().and_then(|entry| entry.timeouts.idle).unwrap_or(IDLE);
        let now = Instant::now();
        self.swept = now;
        self.sessions.retain(|_, session| !session.is_over(now, idle));
    }
}
