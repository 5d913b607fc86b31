//! What a proxy tells of the configuration it holds, to whoever asks its admin port.
//!
//! The leader asks all proxies, whichever replica serves their stream: before it gives a freed listen port to another
//! Service, for whom they hold one that two claim, and to count the proxies in sync for the MeshConfig's status.

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
    /// For whom it holds those of them that were asked for. One that is missing is no longer in its configuration and has connections
    /// left, or its version does not tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
    /// Resources it refused in their latest form.
    pub rejections: Vec<Rejection>,
    /// Whether its stream to an operator is up.
    pub connected: bool,
    /// HTTP requests and TCP connections so far.
    #[serde(default)]
    pub requests: u64,
    /// How many of them failed by this proxy's own account: no endpoint could be connected to, the endpoint or the proxy
    /// broke off. What a policy refuses is not among them, nor is what an endpoint answers.
    #[serde(default)]
    pub failures: u64,
    /// The operator's pod at the other end of that stream, as far as it tells its name.
    #[serde(default)]
    pub operator: String,
    /// When the configuration last changed, in seconds since the epoch; 0: not since this process began.
    #[serde(default)]
    pub changed: u64,
    /// The number of resources held.
    #[serde(default)]
    pub resources: usize,
    /// Version of the proxy.
    #[serde(default)]
    pub version: String,
}

/// What arrives on a listen port is for this port of this Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The port the proxy listens on.
    pub listen_port: u16,
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its port's number.
    pub port: u16,
}

/// One refused resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The resource, as shown to people.
    pub resource: String,
    /// A sentence for people.
    pub reason: String,
}
