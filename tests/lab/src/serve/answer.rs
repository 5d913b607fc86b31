//! One request, one answer.

use std::io;
use std::sync::PoisonError;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRAILER};
use hyper::{Request, Response, StatusCode};
use serde_json::json;

use super::account::Account;
use super::wishes::Wishes;
use super::{Origin, Server, websocket};
use crate::http::body::{self, Body, Bulk, Received};

/// Names the server on answers whose body does not.
const POD: HeaderName = HeaderName::from_static("x-lab-pod");

impl Server {
    /// The answer, or an error, for which the connection is closed without one.
    pub(super) async fn answer(
        &self,
        mut request: Request<Incoming>,
        origin: &Origin,
    ) -> Result<Response<Body>, io::Error> {
        if request.uri().path() == "/healthz" {
            let ready = Instant::now() >= self.ready_at;
            return Ok(text(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, ""));
        }
        let wishes = match Wishes::parse(request.uri().query().unwrap_or_default()) {
            Ok(wishes) => wishes,
            Err(what) => return Ok(text(StatusCode::BAD_REQUEST, what)),
        };
        if request.uri().path() == "/seen" {
            return json(&json!({ "pod": self.identity.pod, "seen": self.seen(&wishes, 0) }));
        }
        let seen = self.seen(&wishes, 1);
        let mut response = if websocket::is_asked_for(&request) {
            websocket::upgrade(&mut request, wishes.end)
        } else {
            self.plain(request, &wishes, seen, origin).await?
        };
        response.headers_mut().extend(wishes.headers);
        let name = HeaderValue::from_str(self.identity.name()).map_err(io::Error::other)?;
        response.headers_mut().insert(POD, name);
        Ok(response)
    }

    async fn plain(
        &self,
        request: Request<Incoming>,
        wishes: &Wishes,
        seen: u64,
        origin: &Origin,
    ) -> Result<Response<Body>, io::Error> {
        let (head, incoming) = request.into_parts();
        let request = Request::from_parts(head, ());
        let received =
            if wishes.unread { Received::nothing() } else { body::read(incoming, wishes.read_rate).await };
        if let Some(broken) = received.broken {
            return Ok(text(StatusCode::BAD_REQUEST, broken));
        }
        tokio::time::sleep(wishes.delay).await;
        let fails = wishes.fails(seen);
        if fails && wishes.close {
            return Err(io::Error::other("closed, as asked"));
        }
        let mut response = match wishes.size {
            Some(size) => bulk(size, wishes),
            None => json(&self.account(&request, &received, origin, seen))?,
        };
        if fails {
            *response.status_mut() = wishes.status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        }
        Ok(response)
    }

    fn account(&self, request: &Request<()>, received: &Received, origin: &Origin, seen: u64) -> Account {
        Account::of(request, received, origin, &self.identity, seen)
    }

    /// How often the wished key was asked for, `more` now included; without a key 0.
    fn seen(&self, wishes: &Wishes, more: u64) -> u64 {
        let Some(key) = &wishes.key else { return 0 };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let times = seen.entry(key.clone()).or_default();
        *times += more;
        *times
    }
}

fn bulk(size: u64, wishes: &Wishes) -> Response<Body> {
    let trailers = Some(wishes.trailers.clone()).filter(|trailers| !trailers.is_empty());
    let chunked = wishes.chunked || trailers.is_some();
    let names: Vec<_> = trailers.iter().flat_map(hyper::HeaderMap::keys).cloned().collect();
    let bulk = Bulk { size, rate: wishes.rate, trailers, cut: wishes.cut };
    let mut response = Response::new(body::stream(bulk, std::future::ready(())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if !chunked {
        headers.insert(CONTENT_LENGTH, size.into());
    }
    for name in names {
        headers.append(TRAILER, name.into());
    }
    response
}

fn json(value: &impl serde::Serialize) -> Result<Response<Body>, io::Error> {
    let mut response = Response::new(body::full(serde_json::to_vec(value)?));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(body::full(body.into()));
    *response.status_mut() = status;
    response
}
