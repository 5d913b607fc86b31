//! What a proxy tells of the configuration it holds, to whoever asks its admin port.
//!
//! The leader asks all proxies, whichever replica serves their stream: before it gives a freed listen port to another
//! Service, and to count the proxies in sync for the MeshConfig's status.

use serde::{Deserialize, Serialize};

/// The answer to `GET` [`crate::contract::STATUS_PATH`]. Fields are only added, and what a proxy of another version does not
/// say has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyStatus {
    /// Digest of the resources held, 16 hexadecimal digits.
    pub digest: String,
    /// Every listen port the proxy holds, ascending: in its configuration or still with open connections.
    pub listen_ports: Vec<u16>,
    /// Resources it refused in their latest form.
    pub rejections: Vec<Rejection>,
    /// Whether its stream to an operator is up.
    pub connected: bool,
    /// HTTP requests and TCP connections so far.
    pub requests: u64,
    /// How many of them failed by this proxy's own account: no endpoint could be connected to, the endpoint or the proxy
    /// broke off. What a policy refuses is not among them, nor is what an endpoint answers.
    pub failures: u64,
}

/// One refused resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The resource, as shown to people.
    pub resource: String,
    /// A sentence for people.
    pub reason: String,
}
