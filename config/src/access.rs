//! Who may send what to whom: identities, and what was allowed between them. What nothing allows is denied.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::routes::HttpMatch;

/// A `ServiceAccount` of Kubernetes: as whom a pod runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// Shown as `namespace/name`.
impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A port through which nothing passes but what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restriction {
    /// The status a caller over HTTP is answered whose request is not allowed: 403 or 404.
    pub denied_status: u16,
}

/// The addresses of the pods that run as one account. An address is in one identity at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// In ascending order.
    pub addresses: Vec<IpAddr>,
}

/// What may be sent to the pods that run as one account.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Access {
    /// Each allows something; together they allow what one of them does.
    pub grants: Vec<Grant>,
}

/// What one `TrafficTarget` allows.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// `namespace/name` of the target, for people.
    pub name: String,
    /// To whom.
    pub sources: Vec<AccountId>,
    /// HTTP requests that one of these describes; `None`: any.
    pub http: Option<Vec<HttpMatch>>,
    /// Port numbers of Services, carried over TCP, HTTP among them; `None`: any.
    pub tcp: Option<Vec<u16>>,
    /// Port numbers of Services, carried over UDP; `None`: any.
    pub udp: Option<Vec<u16>>,
}
