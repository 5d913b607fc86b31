//! A plain HTTP client: one connection, one request at a time, no retries. It does what any sane client does: it honours
//! `Connection: close` and never uses a connection again that the server has closed.

pub(crate) mod body;
pub(crate) mod connection;

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TRAILER, TRANSFER_ENCODING};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, Version};

use crate::Failure;
use body::{Body, Bulk, Received};

pub(crate) use connection::{Connection, Unsent};

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
        if !matches!(uri.scheme_str(), Some("http" | "ws")) {
            return Err(format!("{url}: only http:// and ws:// are spoken here").into());
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
    /// Further headers, in this order.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) upload: Option<Upload>,
    /// Bytes of the answer's body that are read in a second.
    pub(crate) read_rate: Option<u64>,
}

/// A request's body.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) bulk: Bulk,
    /// Its length is not told beforehand.
    pub(crate) chunked: bool,
    /// Say `Expect: 100-continue` and wait so long for leave to send it.
    pub(crate) expect_continue: Option<Duration>,
}

impl Shape {
    /// A GET as anybody would send it.
    pub(crate) fn get(target: &Target) -> Self {
        Self {
            method: Method::GET,
            path: target.path.clone(),
            host: Some(target.authority()),
            http10: false,
            h2c: false,
            headers: Vec::new(),
            upload: None,
            read_rate: None,
        }
    }

    /// The request, whose body, if it has one, begins when `go` completes.
    fn request(&self, go: impl Future<Output = ()> + Send + 'static) -> Result<Request<Body>, Failure> {
        let uri = match &self.host {
            Some(host) if self.h2c => format!("http://{host}{}", self.path),
            _ => self.path.clone(),
        };
        let mut request = Request::builder().method(&self.method).uri(uri).body(body::empty())?;
        if !self.h2c {
            *request.version_mut() = if self.http10 { Version::HTTP_10 } else { Version::HTTP_11 };
            if let Some(host) = &self.host {
                request.headers_mut().insert(HOST, HeaderValue::from_str(host)?);
            }
        }
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        if let Some(upload) = &self.upload {
            upload.announce(request.headers_mut(), self.h2c);
            *request.body_mut() = body::stream(upload.bulk.clone(), go);
        }
        Ok(request)
    }
}

impl Upload {
    fn announce(&self, headers: &mut HeaderMap, h2c: bool) {
        if !self.chunked {
            headers.insert(CONTENT_LENGTH, self.bulk.size.into());
        } else if !h2c {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        for name in self.bulk.trailers.iter().flat_map(HeaderMap::keys) {
            headers.append(TRAILER, HeaderValue::from(name.clone()));
        }
        if self.expect_continue.is_some() {
            headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    /// Statuses of the 1xx answers before it.
    pub(crate) informational: Vec<u16>,
    pub(crate) body: Received,
}

impl Answer {
    /// What came of the body; all of it, unless it was long.
    pub(crate) fn text(&self) -> &Bytes {
        &self.body.kept
    }
}

/// The error with its cause, which hyper hides from `Display`.
pub(crate) fn explain(what: &str, error: &dyn std::error::Error) -> Failure {
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
        let target = Target::parse("http://whoami/").unwrap();
        let shape = Shape { host: None, http10: true, ..Shape::get(&target) };
        let request = shape.request(async {}).unwrap();
        assert_eq!(request.version(), Version::HTTP_10);
        assert!(request.headers().is_empty());
    }
}
