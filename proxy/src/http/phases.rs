//! The life of a request, phase by phase, in the order in which pingora calls them. Each phase asks one policy module; no
//! policy lives here. The order of what may refuse a request: its form, access control, rate limit, circuit breaker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use weft_config::{HttpPolicy, Timeouts};

use super::breaker::Admission;
use super::errors::{self, Answer};
use super::headers::{self, NodeHeader};
use super::log;
use super::matching::{self, Form};
use super::request::{Request, Target, ends};
use super::retry;
use super::screen;
use super::upstream::{HttpPort, Rules};
use crate::access::{Denied, What, admit};
use crate::access_log::AccessLog;
use crate::edges::Ended;
use crate::listen::header_arrived;
use crate::tables::{PortEntry, PortTraffic, Tables};

/// Our side of the engine.
pub struct Phases {
    tables: Arc<Tables>,
    node: NodeHeader,
    access_log: Arc<AccessLog>,
    /// For the last requests on ports that are HTTP no more.
    left_over: Arc<HttpPort>,
}

impl Phases {
    /// Phases over `tables`.
    pub fn new(tables: Arc<Tables>, node: NodeHeader, access_log: Arc<AccessLog>) -> Self {
        let left_over = Rules::new(&HttpPolicy::default(), Timeouts::default());
        Self { tables, node, access_log, left_over: Arc::new(HttpPort::new(Arc::new(left_over))) }
    }

    /// By what policy a request at `port` is carried. On one that has become TCP there may be connections from before.
    fn http<'a>(&'a self, port: &'a PortEntry) -> Option<&'a Arc<HttpPort>> {
        match &port.traffic {
            PortTraffic::Http(http) => Some(http),
            PortTraffic::Tcp => Some(&self.left_over),
            PortTraffic::Udp => None,
        }
    }

    /// Decides where the request goes and whether it may. `Err`: with which status it is refused, and why.
    async fn route(&self, session: &Session, request: &mut Request) -> Result<(), (u16, Denied)> {
        let Some(target) = &request.target else { return Ok(()) };
        let (port, accounts) = (&target.port, &self.tables.accounts);
        if port.split.is_none() && port.restriction.is_none() {
            return Ok(());
        }
        let form = Form::of(session.req_header());
        let route = port.route(Some(form));
        let allowed = match port.restriction {
            None => None,
            Some(restriction) => {
                let address = request.source_ip();
                let reading = matching::reading(form.path);
                let what = What::Http { form, reading: &reading };
                let admitted = admit::soon(accounts, port, route, address, what).await;
                Some(admitted.map_err(|denied| (restriction.denied_status, denied))?)
            }
        };
        let elsewhere = route.split.is_some().then(|| Arc::clone(route.backend));
        (request.backend, request.allowed) = (elsewhere, allowed);
        Ok(())
    }

    /// Answers `status` ourselves and notes why. The connection may go on.
    async fn refuse(
        &self,
        session: &mut Session,
        request: &mut Request,
        status: u16,
        retry_after: Option<Duration>,
        reason: String,
    ) -> Result<bool> {
        let answer = Answer { status, reason: &reason, port: request.port(), retry_after };
        answer.send(session, &self.node).await?;
        request.answered = Some(status);
        request.reason = Some(reason);
        Ok(true)
    }

    /// Answers what is not allowed. As 404 it looks as if there were no such Service: only the log is told more.
    async fn deny(
        &self,
        session: &mut Session,
        request: &mut Request,
        status: u16,
        reason: String,
    ) -> Result<bool> {
        if status != 404 {
            return self.refuse(session, request, status, None, reason).await;
        }
        let answer = Answer { status, reason: "not found", port: None, retry_after: None };
        answer.send(session, &self.node).await?;
        request.answered = Some(status);
        request.reason = Some(reason);
        Ok(true)
    }
}

#[async_trait]
impl ProxyHttp for Phases {
    type CTX = Request;

    fn new_ctx(&self) -> Request {
        Request::default()
    }

    /// None of pingora's modules: bodies pass as they are.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// The local port names the Service.
    async fn early_request_filter(&self, session: &mut Session, request: &mut Request) -> Result<()> {
        header_arrived();
        request.began = Instant::now();
        let (source, listen_port) = ends(session);
        request.source = source;
        if let Some(port) = &*self.tables.port(listen_port)
            && let Some(http) = self.http(port)
        {
            let deadline = http.deadline(request.began);
            request.target = Some(Target { port: Arc::clone(port), http: Arc::clone(http), deadline });
            http.budget.request();
        }
        Ok(())
    }

    /// True: we have answered.
    async fn request_filter(&self, session: &mut Session, request: &mut Request) -> Result<bool> {
        let service = request.port().map(|port| &port.service);
        if let Some(fault) = screen::request(session.req_header_mut(), service)? {
            request.reason = Some(format!("the request is not valid HTTP: {fault}"));
            return Error::err(ErrorType::HTTPStatus(400));
        }
        if let Err((status, denied)) = self.route(session, request).await {
            return self.deny(session, request, status, denied.to_string()).await;
        }
        let Some(target) = &request.target else { return Ok(false) };
        if let (Some(limiter), Some(source)) = (&target.http.rate_limiter, request.source_ip())
            && let Err(wait) = limiter.admit(source, request.began)
        {
            target.port.metrics.rate_limited.inc();
            let reason = "this caller sends more requests than its rate limit allows".to_owned();
            return self.refuse(session, request, 429, Some(wait), reason).await;
        }
        if let Some(breaker) = &target.http.breaker {
            if breaker.admit(request.began) == Admission::Refused {
                target.port.metrics.breaker_refused.inc();
                let reason = "its circuit breaker is open".to_owned();
                return self.refuse(session, request, 503, None, reason).await;
            }
            request.watched = true;
        }
        Ok(false)
    }

    /// The endpoint; called again for each retry.
    async fn upstream_peer(&self, session: &mut Session, request: &mut Request) -> Result<Box<HttpPeer>> {
        // The one that failed is no longer outstanding when the next is chosen.
        request.endpoint = None;
        let Some(target) = &request.target else {
            request.reason = Some("no HTTP Service is behind it any more".to_owned());
            return Error::err(ErrorType::HTTPStatus(503));
        };
        let endpoints = &request.backend().unwrap_or(&target.port.backend).endpoints;
        let (accounts, allowed) = (&self.tables.accounts, request.allowed.as_ref());
        let pick = || admit::pick(accounts, &endpoints.load(), allowed, request.tried());
        let mut picked = pick();
        while let Some(endpoint) = &picked
            && target.http.settled(endpoint.endpoint(), request.began, request.left()).await
        {
            // Meanwhile it may have shown to be gone.
            picked = pick();
        }
        let Some(endpoint) = picked else {
            request.reason = Some(format!("no ready endpoint: {}", endpoints.load().why_empty()));
            return Error::err(ErrorType::HTTPStatus(503));
        };
        let left = request.left();
        if left.is_some_and(|left| left.is_zero()) {
            return Error::err(ErrorType::ReadTimedout);
        }
        if request.tries() > 0 {
            target.port.metrics.retries.inc();
        }
        let upgrade = headers::asks_for_upgrade(session.req_header());
        let peer = target.http.peer(endpoint.endpoint(), left, upgrade);
        request.trying(endpoint);
        Ok(peer)
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        #[cfg(unix)] _fd: std::os::unix::io::RawFd,
        _digest: Option<&Digest>,
        request: &mut Request,
    ) -> Result<()> {
        if let (false, Some(endpoint)) = (reused, &request.endpoint) {
            endpoint.endpoint().connected();
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        upstream: &mut RequestHeader,
        request: &mut Request,
    ) -> Result<()> {
        headers::tame_upgrade(upstream)?;
        let port = request.port().map_or(0, |port| port.port);
        self.node.set_on_request(upstream, request.source_ip(), port)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end: bool,
        request: &mut Request,
    ) -> Result<()> {
        if let (Some(body), Some(port)) = (body, request.port()) {
            port.metrics.received.add(body.len() as u64);
        }
        if request.is_overdue() { Err(overdue()) } else { Ok(()) }
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        _request: &mut Request,
    ) -> Result<()> {
        if screen::answer(response) { Ok(()) } else { Err(Error::new_up(ErrorType::InvalidHTTPHeader)) }
    }

    /// The answer's header came.
    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        request: &mut Request,
    ) -> Result<()> {
        request.answered_after = Some(request.began.elapsed());
        // 502 to 504 are what servers answer when they cannot; anything else is their word.
        if matches!(response.status.as_u16(), 502..=504) {
            request.endpoint_failed();
        } else if let Some(endpoint) = &request.endpoint {
            endpoint.endpoint().answered();
        }
        self.node.set_on_response(response)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        request: &mut Request,
    ) -> Result<Option<Duration>> {
        if let (Some(body), Some(port)) = (body, request.port()) {
            port.metrics.sent.add(body.len() as u64);
        }
        if !end && request.is_overdue() { Err(overdue()) } else { Ok(None) }
    }

    /// No connection was made: nothing was sent, so another endpoint may always be tried.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        request: &mut Request,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Some(endpoint) = &request.endpoint {
            endpoint.endpoint().connect_failed();
        }
        if let Some(port) = request.port() {
            port.metrics.connect_failures.inc();
            port.metrics.ejections.inc();
        }
        error.set_retry(request.may_try_again());
        error
    }

    /// The connection broke under the request.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        request: &mut Request,
        _client_reused: bool,
    ) -> Box<Error> {
        if *error.esource() == ErrorSource::Unset && *error.etype() == ErrorType::InvalidHTTPHeader {
            // Where a request becomes one of h2 pingora looks at its Host once more, and tells nobody whose it was.
            error.as_down();
        }
        let again = retry::after_it_broke(&error, session, request);
        error.set_retry(again);
        error
    }

    /// All tries are spent: say what was called and why it failed.
    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        request: &mut Request,
    ) -> FailToProxy {
        let Some((status, reason)) = errors::explain(error) else {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        };
        if let (500.., Some(port)) = (status, request.port()) {
            port.metrics.failures.inc();
        }
        if session.as_downstream().response_written().is_none() {
            request.answered = Some(status);
            let reason = request.reason.get_or_insert_with(|| reason.into_owned());
            let port = request.target.as_ref().map(|target| &*target.port);
            let answer = Answer { status, reason, port, retry_after: None };
            if let Err(error) = answer.send_and_close(session, &self.node).await {
                tracing::debug!(%error, "the client did not take our answer");
            }
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, request: &mut Request) {
        let Some(target) = &request.target else { return };
        let written = || session.as_downstream().response_written().map(|response| response.status.as_u16());
        let status = request.answered.or_else(written).unwrap_or(0);
        let (now, method) = (Instant::now(), &session.req_header().method);
        let took = now - request.began;
        if let Some(source) = request.source_ip() {
            target.port.edges.count(Ended {
                source,
                port: &target.port,
                backend: request.backend.as_deref(),
                endpoint: request.endpoint.as_ref().map(|endpoint| endpoint.endpoint().address),
                status,
                took,
            });
        }
        target.port.metrics.answered(method, status, took);
        if request.watched
            && let Some(breaker) = &target.http.breaker
        {
            breaker.record(now, status, request.answered_after.unwrap_or(took));
        }
        if self.access_log.is_on() {
            log::write(&self.access_log, session, &target.port, request, status, took);
        }
        if let Some(error) = error {
            tracing::debug!(service = %target.port.service, status, %error, "request failed");
        }
    }

    // Pingora's own lines go to no log; ours above have the Service in them.
    fn suppress_error_log(&self, _session: &Session, _request: &Request, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _request: &Request,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// The request's time is over.
#[allow(clippy::unnecessary_box_returns, reason = "pingora's errors come in boxes")]
fn overdue() -> Box<Error> {
    Error::new_up(ErrorType::ReadTimedout)
}
