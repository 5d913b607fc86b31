//! The resources that travel, as plain Rust types.
//!
//! What lives here is already valid: ports are not zero, addresses are addresses. The conversions in
//! [`crate::wire`] are the only way in from bytes. What may be asked for the traffic of a port is in [`crate::policy`].

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::access::{Access, AccountId, Identity, Restriction};
use crate::policy::{Timeouts, Traffic};
use crate::routes::Split;

/// Namespace and name of a Service of the user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// The Service's namespace.
    pub namespace: Arc<str>,
    /// The Service's name.
    pub name: Arc<str>,
}

impl ServiceId {
    /// The Service `name` in `namespace`.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// Shown as `namespace/name`.
impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Names one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKey {
    /// How a Service is carried.
    Service(ServiceId),
    /// The endpoints behind one port of a Service.
    Endpoints(EndpointsId),
    /// Who runs as an account.
    Identity(AccountId),
    /// What may be sent to those who do.
    Access(AccountId),
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(id) => write!(f, "Service {id}"),
            Self::Endpoints(id) => write!(f, "Endpoints {id}"),
            Self::Identity(id) => write!(f, "Identity {id}"),
            Self::Access(id) => write!(f, "Access {id}"),
        }
    }
}

/// Names the endpoints behind one port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointsId {
    /// The Service.
    pub service: ServiceId,
    /// The port number of the Service (not of the pods: those may differ per pod).
    pub port: u16,
}

/// Shown as `namespace/name:port`.
impl fmt::Display for EndpointsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

/// One resource: the unit that is sent, acknowledged, refused and kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// How a Service is carried.
    Service(Service),
    /// The endpoints behind one port of a Service.
    Endpoints(EndpointsId, Endpoints),
    /// Who runs as an account.
    Identity(AccountId, Identity),
    /// What may be sent to those who do.
    Access(AccountId, Access),
}

impl Resource {
    /// The key this resource is stored under.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Service(service) => ResourceKey::Service(service.id.clone()),
            Self::Endpoints(id, _) => ResourceKey::Endpoints(id.clone()),
            Self::Identity(id, _) => ResourceKey::Identity(id.clone()),
            Self::Access(id, _) => ResourceKey::Access(id.clone()),
        }
    }
}

/// How one Service of the user is carried.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Which Service.
    pub id: ServiceId,
    /// Its ports, each with a listen port of its own.
    pub ports: Vec<Port>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// The port number of the Service.
    pub port: u16,
    /// The port's name; empty when the Service does not name it.
    pub name: String,
    /// The local port proxies listen on for it.
    pub listen_port: u16,
    /// What is spoken on it, and what was asked for it.
    pub traffic: Traffic,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// The endpoints it leads to.
    pub endpoints: EndpointsId,
    /// How its traffic is divided; `None`: all goes to `endpoints`.
    pub split: Option<Split>,
    /// Nothing passes but what an [`Access`] allows; `None`: everything does.
    pub restriction: Option<Restriction>,
}

/// The endpoints behind one port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoints {
    /// Ready to take requests.
    pub ready: Vec<Endpoint>,
    /// Terminating but still serving: used only when nothing is ready.
    pub draining: Vec<Endpoint>,
    /// How many more exist that can take nothing; told to people in error texts.
    pub unready: u32,
}

/// One pod's address and port.
pub type Endpoint = SocketAddr;
