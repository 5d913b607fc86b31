//! What the server tells of itself and of the request.

use std::collections::BTreeMap;

use hyper::Request;
use serde::{Deserialize, Serialize};

use super::Origin;
use crate::get::texts;
use crate::http::body::Received;
use crate::identity::Identity;

/// Who answered, and what was asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) app: String,
    pub(crate) pod: String,
    pub(crate) node: String,
    pub(crate) port: u16,
    /// Where the connection came from.
    #[serde(default)]
    pub(crate) peer: String,
    /// The server name of the TLS handshake, empty when none was sent; absent without TLS.
    #[serde(default)]
    pub(crate) tls_name: Option<String>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) version: String,
    /// The request's headers as received; values of one name joined by ", ".
    pub(crate) headers: BTreeMap<String, String>,
    /// Bytes of the request's body, and their digest.
    #[serde(default)]
    pub(crate) received_bytes: u64,
    #[serde(default)]
    pub(crate) received_digest: String,
    #[serde(default)]
    pub(crate) received_trailers: BTreeMap<String, String>,
    /// How often this server was asked with this `?key=`, this time included.
    #[serde(default)]
    pub(crate) seen: u64,
}

impl Account {
    pub(super) fn of<B>(
        request: &Request<B>,
        body: &Received,
        origin: &Origin,
        who: &Identity,
        seen: u64,
    ) -> Self {
        Self {
            app: who.app.clone(),
            pod: who.pod.clone(),
            node: who.node.clone(),
            port: origin.port,
            peer: origin.peer.ip().to_canonical().to_string(),
            tls_name: origin.tls_name.clone(),
            method: request.method().to_string(),
            path: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
            version: format!("{:?}", request.version()),
            headers: texts(request.headers()),
            received_bytes: body.bytes,
            received_digest: body.digest.clone(),
            received_trailers: texts(&body.trailers),
            seen,
        }
    }
}
