//! The answers we give ourselves when there is none of a backend: which status, and the sentence in the body.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use super::headers::NodeHeader;
use crate::tables::PortEntry;

const GRPC: &str = "application/grpc";
/// What is percent-encoded in `grpc-message`, besides all that is not ASCII.
const NOT_IN_A_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

/// What to answer for an error of the engine: status and reason. `None`: the client is gone, nobody listens.
pub fn explain(error: &Error) -> Option<(u16, Cow<'static, str>)> {
    use ErrorType as E;
    let (status, reason) = match (error.esource(), error.etype()) {
        (_, E::HTTPStatus(code)) => (*code, "the request cannot be served"),
        (ErrorSource::Downstream, E::WriteError | E::ReadError | E::ConnectionClosed) => return None,
        (ErrorSource::Downstream, E::ReadTimedout | E::WriteTimedout) => (408, "the request came too slowly"),
        (ErrorSource::Downstream, _) => (400, "the request is not valid HTTP"),
        (_, E::InvalidCert) if cause(error).contains("CA list is empty") => {
            (502, "the endpoint's certificate cannot be checked: there is no authority to check it against")
        }
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

/// An answer of our own.
pub struct Answer<'a> {
    /// The status of HTTP. A caller that speaks gRPC is told its counterpart there.
    pub status: u16,
    /// Why, as a part of a sentence.
    pub reason: &'a str,
    /// What was called.
    pub port: Option<&'a PortEntry>,
    /// After what time it may go better.
    pub retry_after: Option<Duration>,
}

impl Answer<'_> {
    /// Sends it. The connection ends with it.
    pub async fn send_and_close(&self, session: &mut Session, node: &NodeHeader) -> pingora::Result<()> {
        if self.as_header(session, node)? {
            return Ok(());
        }
        let body = self.body();
        let header = self.header(&body, node)?;
        session.as_downstream_mut().write_error_response(header, body).await
    }

    /// Sends it to a request of which nothing was passed on yet: the connection goes on if the request has no body.
    pub async fn send(&self, session: &mut Session, node: &NodeHeader) -> pingora::Result<()> {
        if !session.as_downstream_mut().is_body_empty() {
            return self.send_and_close(session, node).await;
        }
        if self.as_header(session, node)? {
            return Ok(());
        }
        let body = self.body();
        let header = self.header(&body, node)?;
        session.as_downstream_mut().write_response_header(Box::new(header)).await?;
        session.as_downstream_mut().write_response_body(body, true).await
    }

    fn text(&self) -> String {
        let what = self.port.map_or_else(|| "this port".to_owned(), ToString::to_string);
        format!("weft: {what}: {}", self.reason)
    }

    fn body(&self) -> Bytes {
        Bytes::from(self.text() + "\n")
    }

    fn header(&self, body: &Bytes, node: &NodeHeader) -> pingora::Result<ResponseHeader> {
        let mut header = ResponseHeader::build(self.status, Some(5))?;
        header.insert_header("content-type", "text/plain; charset=utf-8")?;
        header.insert_header("content-length", body.len())?;
        self.set_retry_after(&mut header)?;
        node.set_on_response(&mut header)?;
        Ok(header)
    }

    fn set_retry_after(&self, header: &mut ResponseHeader) -> pingora::Result<()> {
        // Whole seconds (RFC 9110, section 10.2.3), rounded up: sooner would be refused again.
        let Some(wait) = self.retry_after else { return Ok(()) };
        header.insert_header("retry-after", wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }

    /// Over h2, to callers who take a header and no body: those who speak gRPC, and those who asked with HEAD, for whom pingora keeps no
    /// body back there. False: it is to neither.
    fn as_header(&self, session: &mut Session, node: &NodeHeader) -> pingora::Result<bool> {
        let (grpc, head) = (is_grpc(session.req_header()), session.req_header().method == Method::HEAD);
        let ServerSession::H2(stream) = session.as_downstream_mut() else { return Ok(false) };
        if !grpc && !head {
            return Ok(false);
        }
        if stream.response_written().is_none() {
            let header = if grpc { self.grpc_header(node)? } else { self.header(&self.body(), node)? };
            stream.write_response_header(Box::new(header), true)?;
        }
        Ok(true)
    }

    /// A status without messages ("Trailers-Only" in gRPC over HTTP/2).
    fn grpc_header(&self, node: &NodeHeader) -> pingora::Result<ResponseHeader> {
        let mut header = ResponseHeader::build(200, Some(5))?;
        header.insert_header(CONTENT_TYPE, HeaderValue::from_static(GRPC))?;
        header.insert_header("grpc-status", grpc_status(self.status))?;
        let message = utf8_percent_encode(&self.text(), NOT_IN_A_MESSAGE).to_string();
        header.insert_header("grpc-message", message)?;
        self.set_retry_after(&mut header)?;
        node.set_on_response(&mut header)?;
        Ok(header)
    }
}

/// Its content type is `application/grpc`, perhaps with a format (`+proto`) or a parameter behind it.
fn is_grpc(request: &RequestHeader) -> bool {
    let kind =
        request.headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().split_at_checked(GRPC.len()));
    kind.is_some_and(|(kind, rest)| {
        kind.eq_ignore_ascii_case(GRPC.as_bytes()) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
    })
}

/// The mapping that gRPC's clients use themselves ("HTTP to gRPC Status Code Mapping").
fn grpc_status(status: u16) -> u16 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_grpc_is_known_by_the_content_type() {
        let speaks = |kind: &str| {
            let mut request = RequestHeader::build("POST", b"/", None).unwrap();
            request.insert_header(CONTENT_TYPE, kind).unwrap();
            is_grpc(&request)
        };
        for kind in ["application/grpc", "application/grpc+proto", "Application/GRPC;x=1"] {
            assert!(speaks(kind), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpcx", "application/json", "", "application/grp"] {
            assert!(!speaks(kind), "{kind}");
        }
    }
}
