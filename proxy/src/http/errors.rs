//! The answers we give ourselves when there is none of a backend: which status, and the sentence in the body.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use super::headers::NodeHeader;
use crate::tables::PortEntry;

/// What to answer for an error of the engine: status and reason. `None`: the client is gone, nobody listens.
pub fn explain(error: &Error) -> Option<(u16, Cow<'static, str>)> {
    use ErrorType as E;
    let (status, reason) = match (error.esource(), error.etype()) {
        (_, E::HTTPStatus(code)) => (*code, "the request cannot be served"),
        (ErrorSource::Downstream, E::WriteError | E::ReadError | E::ConnectionClosed) => return None,
        (ErrorSource::Downstream, E::ReadTimedout | E::WriteTimedout) => (408, "the request came too slowly"),
        (ErrorSource::Downstream, _) => (400, "the request is not valid HTTP"),
        (_, E::TLSHandshakeFailure | E::InvalidCert | E::TLSHandshakeTimedout | E::TLSWantX509Lookup) => {
            return Some((502, format!("no TLS connection to an endpoint: {}", cause(error)).into()));
        }
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
        (_, E::H2Error | E::H2Downgrade | E::InvalidH2) => {
            (502, "the endpoint does not speak HTTP/2 as expected")
        }
        (ErrorSource::Upstream, _) => (502, "the endpoint failed"),
        _ => (500, "the proxy failed"),
    };
    Some((status, reason.into()))
}

/// What an error says of itself, or what is at the bottom of it. In this order: below a failed handshake lies nothing
/// but the local address.
fn cause(error: &Error) -> String {
    match (&error.context, &error.cause) {
        (Some(context), _) => context.as_str().to_owned(),
        (None, Some(cause)) => cause.to_string(),
        (None, None) => error.etype().as_str().to_owned(),
    }
}

fn header(status: u16, body: &Bytes, node: &NodeHeader) -> pingora::Result<ResponseHeader> {
    let mut header = ResponseHeader::build(status, Some(5))?;
    header.insert_header("content-type", "text/plain; charset=utf-8")?;
    header.insert_header("content-length", body.len())?;
    node.set_on_response(&mut header)?;
    Ok(header)
}

fn body(port: Option<&PortEntry>, reason: &str) -> Bytes {
    let what = port.map_or("this port", |port| &port.description);
    Bytes::from(format!("weft: {what}: {reason}\n"))
}

/// Sends `status` with a body that names what was called and why it failed. The connection ends with it.
pub async fn respond(
    session: &mut Session,
    status: u16,
    port: Option<&PortEntry>,
    reason: &str,
    node: &NodeHeader,
) -> pingora::Result<()> {
    let body = body(port, reason);
    let header = header(status, &body, node)?;
    session.as_downstream_mut().write_error_response(header, body).await
}

/// The same for a request that is refused before anything was tried: the connection goes on if the request has no body.
pub async fn refuse(
    session: &mut Session,
    status: u16,
    retry_after: Option<Duration>,
    port: Option<&PortEntry>,
    reason: &str,
    node: &NodeHeader,
) -> pingora::Result<()> {
    let body = body(port, reason);
    let mut header = header(status, &body, node)?;
    if let Some(wait) = retry_after {
        // Whole seconds (RFC 9110, section 10.2.3), rounded up: sooner would be refused again.
        header.insert_header("retry-after", wait.as_secs() + u64::from(wait.subsec_nanos() > 0))?;
    }
    if !session.as_downstream_mut().is_body_empty() {
        return session.as_downstream_mut().write_error_response(header, body).await;
    }
    session.as_downstream_mut().write_response_header(Box::new(header)).await?;
    session.as_downstream_mut().write_response_body(body, true).await
}
