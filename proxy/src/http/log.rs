//! The access log's line for a request.

use std::time::Duration;

use pingora::proxy::Session;

use super::request::Request;
use crate::access_log::{AccessLog, Http, Line};
use crate::tables::PortEntry;

/// Writes the line for a request that ended with `status` after `took`.
pub(super) fn write(
    log: &AccessLog,
    session: &Session,
    port: &PortEntry,
    request: &Request,
    status: u16,
    took: Duration,
) {
    let header = session.req_header();
    let host = header.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let downstream = session.as_downstream();
    log.write(&Line {
        client: request.source,
        endpoint: request.endpoint.as_ref().map(|endpoint| endpoint.endpoint().address),
        received: downstream.body_bytes_read() as u64,
        sent: downstream.body_bytes_sent() as u64,
        http: Some(Http {
            method: header.method.as_str(),
            path: header.uri.path_and_query().map_or("/", |path| path.as_str()),
            version: format!("{:?}", header.version),
            host: host
                .or_else(|| header.uri.authority().map(http::uri::Authority::as_str))
                .unwrap_or_default(),
            status,
            tries: request.tries(),
        }),
        reason: request.reason.as_deref(),
        ..Line::new("http", port, took)
    });
}
