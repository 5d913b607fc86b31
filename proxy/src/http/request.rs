//! What one request carries along through the phases.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::proxy::Session;

use super::retry::{LAST_TRY_AFTER, MOST_TRIES};
use super::upstream::HttpPort;
use crate::access::Allowed;
use crate::balance::Outstanding;
use crate::tables::{Backend, PortEntry};

/// What one request carries along.
pub struct Request {
    /// When its header had arrived.
    pub began: Instant,
    /// What it is for; `None`: nothing is behind the port it came to any more.
    pub target: Option<Target>,
    /// Where it goes; `None`: to the endpoints of the port itself.
    pub backend: Option<Arc<Backend>>,
    /// Whose pods may get it; `None`: anybody's.
    pub allowed: Option<Allowed>,
    /// Who sent it.
    pub source: Option<SocketAddr>,
    /// The endpoint in use, counted as outstanding.
    pub endpoint: Option<Outstanding>,
    /// Endpoints tried, the one in use included.
    tried: [SocketAddr; MOST_TRIES],
    tries: usize,
    /// How often it was sent to an endpoint that then broke the connection.
    pub sent: u8,
    /// Why we answer ourselves, when the error does not tell.
    pub reason: Option<String>,
    /// The status of our own answer; over gRPC the one on the wire says less.
    pub answered: Option<u16>,
    /// Whether the circuit breaker let it pass and wants to know how it went.
    pub watched: bool,
    /// How long it took until the answer's header came.
    pub answered_after: Option<Duration>,
}

/// The port a request came to, carried as HTTP.
pub struct Target {
    /// The port.
    pub port: Arc<PortEntry>,
    /// Its policy.
    pub http: Arc<HttpPort>,
    /// When the request must be over.
    pub deadline: Option<Instant>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            target: None,
            backend: None,
            allowed: None,
            source: None,
            endpoint: None,
            tried: [SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0); MOST_TRIES],
            tries: 0,
            sent: 0,
            reason: None,
            answered: None,
            watched: false,
            answered_after: None,
        }
    }
}

impl Request {
    /// The address of who sent it.
    pub fn source_ip(&self) -> Option<IpAddr> {
        self.source.map(|source| source.ip())
    }

    /// The port it is for.
    pub fn port(&self) -> Option<&PortEntry> {
        self.target.as_ref().map(|target| &*target.port)
    }

    /// Where it goes.
    pub fn backend(&self) -> Option<&Backend> {
        self.backend.as_deref().or_else(|| self.port().map(|port| &*port.backend))
    }

    /// How often it was tried.
    pub fn tries(&self) -> usize {
        self.tries
    }

    /// The endpoints tried so far.
    pub fn tried(&self) -> &[SocketAddr] {
        &self.tried[..self.tries.min(MOST_TRIES)]
    }

    /// Notes that `endpoint` is tried now.
    pub fn trying(&mut self, endpoint: Outstanding) {
        if let Some(slot) = self.tried.get_mut(self.tries) {
            *slot = endpoint.endpoint().address;
        }
        self.tries += 1;
        self.endpoint = Some(endpoint);
    }

    /// Whether there is a try left, and time for it.
    pub fn may_try_again(&self) -> bool {
        let Some(target) = &self.target else { return false };
        self.tries < target.http.tries.tries && self.began.elapsed() < LAST_TRY_AFTER && !self.is_overdue()
    }

    /// Time left; `None`: any.
    pub fn left(&self) -> Option<Duration> {
        let deadline = self.target.as_ref()?.deadline?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether its time is over.
    pub fn is_overdue(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    /// The endpoint failed it. It is passed over if that was once too often.
    pub fn endpoint_failed(&self) {
        let (Some(target), Some(backend), Some(endpoint)) = (&self.target, self.backend(), &self.endpoint)
        else {
            return;
        };
        if backend.endpoints.load().answer_failed(endpoint.endpoint()) {
            target.port.metrics.ejections.inc();
            let (service, address) = (&target.port.service, endpoint.endpoint().address);
            tracing::info!(%service, %address, "an endpoint failed again and again; it is passed over for a while");
        }
    }
}

/// Where a request came from, and the local port it came to.
pub fn ends(session: &Session) -> (Option<SocketAddr>, u16) {
    let downstream = session.as_downstream();
    let source = downstream.client_addr().and_then(|address| address.as_inet()).copied();
    let local = downstream.server_addr().and_then(|address| address.as_inet());
    (source, local.map_or(0, SocketAddr::port))
}
