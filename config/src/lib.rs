//! The contract between operator and proxy, and the only thing they know of each other.
//!
//! - [`access`]: who may send what to whom.
//! - [`edges`]: what a proxy tells of who called whom.
//! - [`expression`]: the language of circuit breakers.
//! - [`model`]: the resources as plain Rust types, validated.
//! - [`policy`]: what may be asked for the traffic of a port.
//! - [`routes`]: which requests are meant, and where a part of the traffic goes instead.
//! - [`wire`]: the protobuf schema's generated types and the conversions from and to the model.
//! - [`show`]: how resources are shown to people, in JSON.
//! - [`set`]: a set of resources with hashes and a digest, and how an update changes it.
//! - [`snapshot`]: the file a proxy keeps its last-known-good configuration in.
//! - [`status`]: what a proxy tells of the configuration it holds.
//! - [`contract`]: names, ports and paths both sides must agree on.
//!
//! Nothing here knows HTTP, Kubernetes objects or sockets.

pub mod access;
pub mod contract;
pub mod edges;
pub mod expression;
pub mod model;
pub mod policy;
pub mod routes;
pub mod set;
pub mod show;
pub mod snapshot;
pub mod status;
pub mod wire;

pub use access::{Access, AccountId, Grant, Identity, Restriction};
pub use model::{Endpoint, Endpoints, EndpointsId, Port, Resource, ResourceKey, Service, ServiceId};
pub use policy::{HttpPolicy, RateLimit, Scheme, Timeouts, Traffic, UpstreamTls};
pub use routes::{HttpMatch, Pattern, Split, SplitBackend};
pub use set::{Entry, ResourceSet, Update};
