//! What may be asked for the traffic of one port: its type, and for HTTP the policies on each request.
//!
//! A field that is `None` was not asked for: the proxy's default holds. How annotations become these is the operator's
//! business, what a proxy makes of them the proxy's.

use std::time::Duration;

use crate::expression::Expression;

/// What is spoken on a port.
#[derive(Debug, Clone, PartialEq)]
pub enum Traffic {
    /// HTTP/1.0, HTTP/1.1 and h2c with prior knowledge.
    Http(HttpPolicy),
    /// Any protocol over TCP.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Default for Traffic {
    fn default() -> Self {
        Self::Http(HttpPolicy::default())
    }
}

impl Traffic {
    /// In one word, as in the annotation.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Whether it arrives in datagrams, not over connections.
    pub const fn is_udp(&self) -> bool {
        matches!(self, Self::Udp)
    }
}

/// What was asked for the HTTP requests of a port.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HttpPolicy {
    /// What is spoken to the endpoints.
    pub scheme: Scheme,
    /// Tries in all, the first included; at least 1.
    pub retry_attempts: Option<u8>,
    /// When it holds, requests are refused for a while.
    pub circuit_breaker: Option<Expression>,
    /// Requests above it are refused.
    pub rate_limit: Option<RateLimit>,
}

/// What is spoken to endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1 in the clear.
    #[default]
    Http,
    /// HTTP/2 in the clear, with prior knowledge.
    H2c,
    /// HTTP/1.1 or HTTP/2 over TLS.
    Https(UpstreamTls),
}

/// How the endpoints prove themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Certificates (DER) of the authorities whose signature counts.
    pub authorities: Vec<Vec<u8>>,
    /// The name their certificate must have.
    pub server_name: String,
    /// Any certificate will do.
    pub unverified: bool,
}

/// A token bucket for each source address, in each proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a second; not zero.
    pub average: u32,
    /// Requests at once; not zero.
    pub burst: u32,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request to the end of its answer. HTTP only.
    pub request: Option<Duration>,
    /// HTTP: silence of the endpoint. TCP: silence of both sides. UDP: life of a session without a datagram.
    pub idle: Option<Duration>,
    /// For a connection to an endpoint.
    pub connect: Option<Duration>,
}
