//! The answers we give ourselves when there is none of a backend: which status, and the sentence in the body.

use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use super::headers::NodeHeader;
use crate::tables::PortEntry;

/// What to answer for an error of the engine: status and reason. `None`: the client is gone, nobody listens.
pub fn explain(error: &Error) -> Option<(u16, &'static str)> {
    use ErrorType as E;
    Some(match (error.esource(), error.etype()) {
        (_, E::HTTPStatus(code)) => (*code, "the request cannot be served"),
        (ErrorSource::Downstream, E::WriteError | E::ReadError | E::ConnectionClosed) => return None,
        (ErrorSource::Downstream, _) => (400, "the request is not valid HTTP"),
        (_, E::ConnectTimedout) => (504, "no connection to an endpoint could be made in time"),
        (_, E::ConnectRefused) => (502, "the endpoint refused the connection"),
        (_, E::ConnectNoRoute) => (502, "there is no route to the endpoint"),
        (_, E::ConnectError | E::SocketError | E::BindError) => {
            (502, "no connection to an endpoint could be made")
        }
        (_, E::ReadTimedout) => (504, "the endpoint did not answer in time"),
        (_, E::WriteTimedout) => (504, "the endpoint did not take the request in time"),
        (_, E::ConnectionClosed | E::ReadError | E::WriteError) => {
            (502, "the endpoint closed the connection before it answered")
        }
        (_, E::InvalidHTTPHeader) => (502, "the endpoint's answer is not valid HTTP"),
        (ErrorSource::Upstream, _) => (502, "the endpoint failed"),
        _ => (500, "the proxy failed"),
    })
}

/// Sends `status` with a body that names what was called and why it failed. The connection ends with it.
pub async fn respond(
    session: &mut Session,
    status: u16,
    port: Option<&PortEntry>,
    reason: &str,
    node: &NodeHeader,
) -> pingora::Result<()> {
    let what = port.map_or("this port", |port| &port.description);
    let body = Bytes::from(format!("weft: {what}: {reason}\n"));
    let mut header = ResponseHeader::build(status, Some(4))?;
    header.insert_header("content-type", "text/plain; charset=utf-8")?;
    header.insert_header("content-length", body.len())?;
    node.set_on_response(&mut header)?;
    session.as_downstream_mut().write_error_response(header, body).await
}
