//! Carrying datagrams: each source has a session with one endpoint, over a socket of its own, so that answers find back.
//!
//! One task owns a port's sessions and takes in what sources send; each session has a task that takes in what its endpoint
//! sends. Sessions end when they were silent for a while, when their endpoint is gone from the Service, or when it says that
//! nobody listens. Datagrams are dropped, and counted, rather than queued.

mod session;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::balance::EndpointList;
use crate::listen::Carriers;
use crate::tables::{PortEntry, PortTraffic};
use session::Session;

/// How long a session may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// Sessions of one port. Each takes a socket.
const MOST_SESSIONS: usize = 16_384;
/// The largest datagram there is.
const LARGEST: usize = 65_535;
/// Datagrams taken in one go before others get their turn.
const TURN: usize = 64;

/// Everything one UDP port is.
pub struct Server {
    socket: Arc<UdpSocket>,
    port: u16,
    carriers: Arc<Carriers>,
    sessions: HashMap<SocketAddr, Session>,
    /// The endpoints when the sessions were last looked through.
    endpoints: Arc<EndpointList>,
}

impl Server {
    /// Serves what arrives on `socket`, for the Service behind the listen port `port`.
    pub fn new(socket: std::net::UdpSocket, port: u16, carriers: Arc<Carriers>) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        Ok(Self { socket, port, carriers, sessions: HashMap::new(), endpoints: Arc::default() })
    }

    /// Until told to stop.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut buffer = vec![0; LARGEST].into_boxed_slice();
        let mut sweep = interval(Duration::from_secs(5));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
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
        let Some(entry) = self.entry() else { return };
        for _ in 0..TURN {
            let (n, source) = match self.socket.try_recv_from(buffer) {
                Ok(received) => received,
                // A late ICMP error of one source is nobody else's business.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => continue,
                Err(_) => return,
            };
            entry.metrics.received.add(n as u64);
            self.forward(&entry, source, &buffer[..n]);
        }
    }

    fn entry(&self) -> Option<Arc<PortEntry>> {
        let entry = self.carriers.tables.port(self.port).clone()?;
        matches!(entry.traffic, PortTraffic::Udp).then_some(entry)
    }

    fn forward(&mut self, entry: &Arc<PortEntry>, source: SocketAddr, datagram: &[u8]) {
        if !Arc::ptr_eq(&self.endpoints, &entry.backend.endpoints.load()) {
            self.endpoints = entry.backend.endpoints.load_full();
            self.sessions.retain(|_, session| session.endpoint().is_in(&self.endpoints));
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
            if self.endpoints.datagram_goes(session.endpoint().endpoint()) {
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
            self.sweep();
            if self.sessions.len() >= MOST_SESSIONS {
                return Err(io::Error::other("there are too many sessions"));
            }
        }
        let Some(endpoint) = self.endpoints.pick(&[]) else {
            return Err(io::Error::other(format!("no ready endpoint: {}", self.endpoints.why_empty())));
        };
        Session::begin(
            endpoint,
            source,
            Arc::clone(entry),
            Arc::clone(&self.socket),
            Arc::clone(&self.carriers),
        )
    }

    /// Ends the sessions that were silent for too long.
    fn sweep(&mut self) {
        let idle = self.entry().and_then(|entry| entry.timeouts.idle).unwrap_or(IDLE);
        let now = Instant::now();
        self.sessions.retain(|_, session| !session.is_over(now, idle));
    }
}
