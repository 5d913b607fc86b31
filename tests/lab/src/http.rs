//! A plain HTTP client: one connection, one request at a time, no retries. It does what any sane client does: it honours
//! `Connection: close` and never uses a connection again that the server has closed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::Failure;

/// Where to, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

impl Target {
    /// Of `http://host[:port][/path]`.
    pub(crate) fn parse(url: &str) -> Result<Self, Failure> {
        let uri: Uri = url.parse()?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("{url}: only http:// is spoken here").into());
        }
        let host = uri.host().ok_or_else(|| format!("{url} has no host"))?.to_owned();
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Ok(Self { host, port: uri.port_u16().unwrap_or(80), path })
    }

    /// What goes into the Host header.
    pub(crate) fn authority(&self) -> String {
        if self.port == 80 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// How a request looks.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The Host header or `:authority`; `None`: none is sent.
    pub(crate) host: Option<String>,
    pub(crate) http10: bool,
    pub(crate) h2c: bool,
}

impl Shape {
    fn request(&self) -> Result<Request<Empty<Bytes>>, Failure> {
        let uri = match &self.host {
            Some(host) if self.h2c => format!("http://{host}{}", self.path),
            _ => self.path.clone(),
        };
        let mut request = Request::builder().method(&self.method).uri(uri).body(Empty::new())?;
        if !self.h2c {
            *request.version_mut() = if self.http10 { Version::HTTP_10 } else { Version::HTTP_11 };
            if let Some(host) = &self.host {
                request.headers_mut().insert(HOST, HeaderValue::from_str(host)?);
            }
        }
        Ok(request)
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// One connection.
pub(crate) enum Connection {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Connection {
    /// Connects within `patience`.
    pub(crate) async fn open(
        address: IpAddr,
        port: u16,
        h2c: bool,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let connected = tokio::time::timeout(patience, TcpStream::connect(SocketAddr::new(address, port)));
        let stream = connected
            .await
            .map_err(|_| format!("connect to {address}: not within {} ms", patience.as_millis()))?
            .map_err(|error| format!("connect to {address}: {error}"))?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        // What ends a connection shows in the request that needed it, so the drivers' own results tell nothing more.
        if h2c {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(driver);
            Ok(Self::Http2(sender))
        } else {
            let (sender, driver) = http1::handshake(io).await?;
            tokio::spawn(driver);
            Ok(Self::Http1(sender))
        }
    }

    /// The connection, if another request may be sent on it.
    pub(crate) async fn if_usable(mut self) -> Option<Self> {
        let ready = match &mut self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        };
        ready.ok().map(|()| self)
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&mut self, shape: &Shape) -> Result<Answer, Failure> {
        let request = shape.request()?;
        let response = match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
        .map_err(|error| explain("request", &error))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| explain("body", &error))?.to_bytes();
        Ok(Answer { status: head.status, version: head.version, headers: head.headers, body })
    }
}

/// The error with its cause, which hyper hides from `Display`.
fn explain(what: &str, error: &hyper::Error) -> Failure {
    use std::error::Error;
    match error.source() {
        Some(cause) => format!("{what}: {error}: {cause}").into(),
        None => format!("{what}: {error}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("http://whoami.demo.weft.mesh:8080/a?b=c").unwrap();
        assert_eq!(target.authority(), "whoami.demo.weft.mesh:8080");
        assert_eq!(target.path, "/a?b=c");
        assert_eq!(Target::parse("http://whoami").unwrap().authority(), "whoami");
        assert!(Target::parse("https://whoami").is_err());
        assert!(Target::parse("whoami").is_err());
    }

    #[test]
    fn a_request_without_host_has_none() {
        let shape = Shape { method: Method::GET, path: "/".to_owned(), host: None, http10: true, h2c: false };
        let request = shape.request().unwrap();
        assert_eq!(request.version(), Version::HTTP_10);
        assert!(request.headers().is_empty());
    }
}
