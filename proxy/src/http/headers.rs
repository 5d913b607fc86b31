//! Headers we add. They are set, not appended: whatever a client sent under the same name is gone.

use pingora::http::{RequestHeader, ResponseHeader};
use weft_config::contract::NODE_HEADER;

/// The header that names the node whose proxy carried a request.
#[derive(Debug, Clone)]
pub struct NodeHeader(http::HeaderValue);

/// The node's name cannot stand in a header.
#[derive(Debug, thiserror::Error)]
#[error("node name {0:?} cannot be used as a header value; set --node-name to the Kubernetes node's name")]
pub struct BadNode(String);

impl NodeHeader {
    /// For the proxy on `node`.
    pub fn new(node: &str) -> Result<Self, BadNode> {
        http::HeaderValue::from_str(node).map(Self).map_err(|_| BadNode(node.to_owned()))
    }

    /// Onto a request, for the backend.
    pub fn set_on_request(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        request.insert_header(NODE_HEADER, self.0.clone())
    }

    /// Onto an answer, for the client.
    pub fn set_on_response(&self, response: &mut ResponseHeader) -> pingora::Result<()> {
        response.insert_header(NODE_HEADER, self.0.clone())
    }
}
