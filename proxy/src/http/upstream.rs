//! What a port's HTTP policy comes to: the compiled form that requests use. Made when the port is; kept, with all it has
//! counted, while the policy stays the same.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::protocols::ALPN;
use pingora::protocols::l4::ext::TcpKeepalive;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{H1UpgradePolicy, HttpPeer, PeerOptions};
use pingora::utils::tls::{WrappedX509, parse_x509};
use weft_config::{HttpPolicy, Scheme, Timeouts, UpstreamTls};

use super::breaker::Breaker;
use super::rate_limit::RateLimiter;
use super::retry::{Budget, Limits};
use super::upgrade;
use crate::balance::EndpointState;

/// How long a connection to an endpoint may take: an endpoint whose node is gone must not hold a request up for long.
pub const CONNECT: Duration = Duration::from_secs(1);
/// What a TLS handshake may take on top.
const HANDSHAKE: Duration = Duration::from_secs(4);
/// How long an endpoint may be silent, before its answer or within it. Long polls live below this.
const SILENCE: Duration = Duration::from_secs(300);
/// How long an endpoint may refuse to take more of a request.
const WRITE: Duration = Duration::from_secs(60);
/// How long an idle connection to an endpoint is kept. Short: the endpoint's own limit is unknown, and a request sent
/// while it closes the connection is lost when it may not be repeated.
const UPSTREAM_IDLE: Duration = Duration::from_secs(30);
/// Streams on one h2 connection to an endpoint; pingora's default of one would make a connection for each request.
const H2_STREAMS: usize = 100;
/// A connection to an endpoint whose node lost its power is noticed by these: data that is not acknowledged, or probes
/// that are not answered while nothing is sent.
const DEAD_PEER: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(3),
    interval: Duration::from_secs(1),
    count: 3,
    user_timeout: Duration::from_secs(5),
};

/// The compiled policy of one HTTP port, with what it counts.
#[derive(Debug)]
pub struct HttpPort {
    rules: Arc<Rules>,
    /// Refuses requests while the Service fails.
    pub breaker: Option<Arc<Breaker>>,
    /// Refuses requests of callers that send too many.
    pub rate_limiter: Option<Box<RateLimiter>>,
    /// How often a request may be tried.
    pub tries: Limits,
    /// Keeps repeated requests from drowning the Service.
    pub budget: Budget,
}

/// What follows from what was asked for alone: ports that ask for the same share it.
#[derive(Debug)]
pub struct Rules {
    policy: HttpPolicy,
    timeouts: Timeouts,
    options: PeerOptions,
    /// The name to ask for; `None`: no TLS.
    server_name: Option<String>,
    /// Keeps connections that were made under different rules apart.
    group: u64,
}

impl Rules {
    /// Compiles what was asked for.
    pub fn new(policy: &HttpPolicy, timeouts: Timeouts) -> Self {
        let mut options = PeerOptions::new();
        let connect = timeouts.connect.unwrap_or(CONNECT);
        options.connection_timeout = Some(connect);
        options.total_connection_timeout = Some(connect);
        options.read_timeout = Some(timeouts.idle.unwrap_or(SILENCE));
        options.write_timeout = Some(WRITE);
        options.idle_timeout = Some(UPSTREAM_IDLE);
        options.tcp_keepalive = Some(DEAD_PEER);
        // What may be upgraded to is for the endpoint to say; `headers` sees to it that nothing else slips through.
        options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::Preserve;
        let mut server_name = None;
        let mut group = 0;
        match &policy.scheme {
            Scheme::Http => options.alpn = ALPN::H1,
            Scheme::H2c => {
                options.alpn = ALPN::H2;
                options.max_h2_streams = H2_STREAMS;
                group = 1;
            }
            Scheme::Https(tls) => {
                options.alpn = ALPN::H2H1;
                options.max_h2_streams = H2_STREAMS;
                options.total_connection_timeout = Some(connect + HANDSHAKE);
                options.ca = Some(authorities(tls));
                options.verify_cert = !tls.unverified;
                options.verify_hostname = !tls.unverified;
                server_name = Some(tls.server_name.clone());
                let mut hasher = std::hash::DefaultHasher::new();
                (&tls.authorities, &tls.server_name, tls.unverified).hash(&mut hasher);
                group = hasher.finish() | 2;
            }
        }
        Self { policy: policy.clone(), timeouts, options, server_name, group }
    }

    /// Whether they were made from these.
    pub fn are_for(&self, policy: &HttpPolicy, timeouts: Timeouts) -> bool {
        self.policy == *policy && self.timeouts == timeouts
    }
}

impl HttpPort {
    /// A port under these rules.
    pub fn new(rules: Arc<Rules>) -> Self {
        let policy = &rules.policy;
        Self {
            breaker: policy.circuit_breaker.as_ref().map(|expression| Arc::new(Breaker::new(expression))),
            rate_limiter: policy.rate_limit.map(RateLimiter::new).map(Box::new),
            tries: Limits::new(policy.retry_attempts),
            budget: Budget::default(),
            rules,
        }
    }

    /// Whether it was made from these.
    pub fn is_for(&self, policy: &HttpPolicy, timeouts: Timeouts) -> bool {
        self.rules.are_for(policy, timeouts)
    }

    /// When a request that began at `began` must be over.
    pub fn deadline(&self, began: Instant) -> Option<Instant> {
        self.rules.timeouts.request.map(|timeout| began + timeout)
    }

    /// How long a connection to an endpoint may take.
    fn connect(&self) -> Duration {
        self.rules.timeouts.connect.unwrap_or(CONNECT)
    }

    /// Returns when no connection to `endpoint` is being made that a request could share, or when a request that began at
    /// `began` and has `left` to end should no longer wait for it. True: there was one.
    pub async fn settled(&self, endpoint: &EndpointState, began: Instant, left: Option<Duration>) -> bool {
        if self.rules.policy.scheme != Scheme::H2c {
            return false;
        }
        let limit = self.connect().saturating_sub(began.elapsed());
        endpoint.connecting().settled(left.unwrap_or(limit).min(limit)).await
    }

    /// The `endpoint`, for a request that has `left` to end and may ask for an `upgrade`.
    pub fn peer(&self, endpoint: &EndpointState, left: Option<Duration>, upgrade: bool) -> Box<HttpPeer> {
        let rules = &*self.rules;
        let tls = rules.server_name.is_some();
        let mut peer = HttpPeer::new(endpoint.address, tls, rules.server_name.clone().unwrap_or_default());
        peer.group_key = rules.group;
        peer.options.clone_from(&rules.options);
        if upgrade && rules.policy.scheme != Scheme::H2c {
            let connect = left.unwrap_or(CONNECT).min(self.connect());
            peer.group_key = upgrade::prepare(&mut peer.options, connect);
        }
        if rules.policy.scheme == Scheme::H2c {
            let (connecting, limit) = (Arc::clone(endpoint.connecting()), self.connect());
            peer.options.upstream_tcp_sock_tweak_hook = Some(Arc::new(move |_| {
                connecting.begins(limit);
                Ok(())
            }));
        }
        if let Some(left) = left {
            let within = |timeout: Option<Duration>| Some(timeout.map_or(left, |timeout| timeout.min(left)));
            peer.options.read_timeout = within(peer.options.read_timeout);
            peer.options.connection_timeout = within(peer.options.connection_timeout);
            peer.options.total_connection_timeout = within(peer.options.total_connection_timeout);
        }
        Box::new(peer)
    }
}

/// The authorities in pingora's form. Without verification pingora still wants one: a throwaway, whose key nobody has.
fn authorities(tls: &UpstreamTls) -> Arc<CaType> {
    let throwaway =
        || rcgen::generate_simple_self_signed(Vec::new()).map(|made| made.cert.der().to_vec()).ok();
    let all = if tls.unverified { throwaway().into_iter().collect() } else { tls.authorities.clone() };
    // Pingora panics on what its parser does not read.
    let readable = all.into_iter().filter(|der| {
        let read = x509_parser::parse_x509_certificate(der).is_ok();
        if !read {
            tracing::warn!(
                server_name = tls.server_name,
                "an authority's certificate cannot be read; it does not count"
            );
        }
        read
    });
    readable.map(|der| WrappedX509::new(der, parse_x509)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(scheme: Scheme) -> HttpPort {
        let policy = HttpPolicy { scheme, ..HttpPolicy::default() };
        HttpPort::new(Arc::new(Rules::new(&policy, Timeouts::default())))
    }

    fn endpoint() -> EndpointState {
        EndpointState::new(([10, 0, 0, 1], 80).into())
    }

    #[test]
    fn connections_made_under_different_rules_are_kept_apart() {
        use pingora::upstreams::peer::Peer as _;
        let tls = |name: &str, unverified| {
            port(Scheme::Https(UpstreamTls {
                server_name: name.into(),
                unverified,
                ..UpstreamTls::default()
            }))
        };
        let ports = [port(Scheme::Http), port(Scheme::H2c), tls("a", false), tls("a", true), tls("b", false)];
        let endpoint = endpoint();
        let mut seen = std::collections::BTreeSet::new();
        for port in &ports {
            assert!(seen.insert(port.peer(&endpoint, None, false).reuse_hash()));
            assert_eq!(
                port.peer(&endpoint, None, false).reuse_hash(),
                port.peer(&endpoint, None, false).reuse_hash()
            );
        }
    }

    #[test]
    fn what_cannot_be_read_does_not_count_and_does_not_panic() {
        let tls = UpstreamTls { authorities: vec![b"nonsense".to_vec()], ..UpstreamTls::default() };
        assert_eq!(authorities(&tls).len(), 0);
        assert_eq!(authorities(&UpstreamTls { unverified: true, ..tls }).len(), 1);
    }

    #[test]
    fn a_request_s_own_time_limits_every_wait() {
        let port = port(Scheme::Http);
        let left = Duration::from_millis(200);
        let peer = port.peer(&endpoint(), Some(left), false);
        assert_eq!((peer.options.read_timeout, peer.options.connection_timeout), (Some(left), Some(left)));
        assert_eq!(port.peer(&endpoint(), None, false).options.read_timeout, Some(SILENCE));
    }
}
