//! The life of a request, phase by phase, in the order in which pingora calls them. Each phase asks one policy module; no
//! policy lives here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use pingora::{Error, ErrorType, Result};

use super::errors;
use super::headers::NodeHeader;
use super::retry::{Budget, LAST_TRY_AFTER, MOST_SENT, MOST_TRIES, is_idempotent};
use crate::balance::Outstanding;
use crate::tables::{PortEntry, Tables};

/// How long a connection to an endpoint may take: an endpoint whose node is gone must not hold a request up for long.
const CONNECT: Duration = Duration::from_secs(1);
/// How long an endpoint may be silent, before its answer or within it. Long polls live below this.
const SILENCE: Duration = Duration::from_secs(300);
/// How long an endpoint may refuse to take more of a request.
const WRITE: Duration = Duration::from_secs(60);
/// How long an idle connection to an endpoint is kept. Short: the endpoint's own limit is unknown, and a request sent
/// while it closes the connection is lost when it may not be repeated.
const UPSTREAM_IDLE: Duration = Duration::from_secs(30);

/// Our side of the engine.
pub struct Phases {
    tables: Arc<Tables>,
    node: NodeHeader,
    options: PeerOptions,
    budget: Budget,
}

/// What one request carries along.
pub struct Request {
    began: Instant,
    port: Option<Arc<PortEntry>>,
    /// The endpoint in use, counted as outstanding.
    endpoint: Option<Outstanding>,
    /// Endpoints tried, the one in use included.
    tried: [Option<SocketAddr>; MOST_TRIES],
    /// How often it was sent to an endpoint that then broke the connection.
    sent: u8,
    /// Filled when there was nothing to send the request to.
    unavailable: Option<String>,
}

impl Request {
    fn tries(&self) -> usize {
        self.tried.iter().flatten().count()
    }

    fn may_try_again(&self) -> bool {
        self.tries() < MOST_TRIES && self.began.elapsed() < LAST_TRY_AFTER
    }
}

impl Phases {
    /// Phases over `tables`.
    pub fn new(tables: Arc<Tables>, node: NodeHeader) -> Self {
        let mut options = PeerOptions::new();
        options.connection_timeout = Some(CONNECT);
        options.total_connection_timeout = Some(CONNECT);
        options.read_timeout = Some(SILENCE);
        options.write_timeout = Some(WRITE);
        options.idle_timeout = Some(UPSTREAM_IDLE);
        Self { tables, node, options, budget: Budget::default() }
    }
}

#[async_trait]
impl ProxyHttp for Phases {
    type CTX = Request;

    fn new_ctx(&self) -> Request {
        let (port, endpoint, tried, sent, unavailable) = Default::default();
        Request { began: Instant::now(), port, endpoint, tried, sent, unavailable }
    }

    /// None of pingora's modules: bodies pass as they are.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// The local port names the Service.
    async fn early_request_filter(&self, session: &mut Session, request: &mut Request) -> Result<()> {
        let local = session.as_downstream().server_addr().and_then(|address| address.as_inet());
        let listen_port = local.map_or(0, SocketAddr::port);
        request.port.clone_from(&self.tables.port(listen_port));
        self.budget.request();
        Ok(())
    }

    /// The endpoint; called again for each retry.
    async fn upstream_peer(&self, _session: &mut Session, request: &mut Request) -> Result<Box<HttpPeer>> {
        let Some(port) = &request.port else {
            request.unavailable = Some("no Service is behind it any more".to_owned());
            return Error::err(ErrorType::HTTPStatus(503));
        };
        let list = port.backend.endpoints.load();
        let tries = request.tries();
        let mut tried = [SocketAddr::from(([0, 0, 0, 0], 0)); MOST_TRIES];
        for (slot, address) in tried.iter_mut().zip(request.tried.iter().flatten()) {
            *slot = *address;
        }
        // The one that failed is no longer outstanding when the next is chosen.
        request.endpoint = None;
        let Some(endpoint) = list.pick(&tried[..tries]) else {
            request.unavailable = Some(format!("no ready endpoint: {}", list.why_empty()));
            return Error::err(ErrorType::HTTPStatus(503));
        };
        let address = endpoint.endpoint().address;
        if let Some(slot) = request.tried.get_mut(tries) {
            *slot = Some(address);
        }
        if tries > 0 {
            port.metrics.retries.inc();
        }
        request.endpoint = Some(endpoint);
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.options.clone_from(&self.options);
        Ok(Box::new(peer))
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
        _request: &mut Request,
    ) -> Result<()> {
        self.node.set_on_request(upstream)
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        _request: &mut Request,
    ) -> Result<()> {
        self.node.set_on_response(response)
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
        if let Some(port) = &request.port {
            port.metrics.connect_failures.inc();
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
        let repeatable = session.as_downstream().response_written().is_none()
            && *error.esource() != pingora::ErrorSource::Downstream
            && is_idempotent(&session.req_header().method)
            && !session.as_downstream().retry_buffer_truncated()
            && !matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout);
        request.sent += 1;
        let again = repeatable && request.sent < MOST_SENT && request.may_try_again();
        error.set_retry(again && self.budget.take());
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
        if session.as_downstream().response_written().is_none() {
            let reason = request.unavailable.as_deref().unwrap_or(reason);
            let sent = errors::respond(session, status, request.port.as_deref(), reason, &self.node).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "the client did not take our answer");
            }
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, request: &mut Request) {
        let status =
            session.as_downstream().response_written().map_or(0, |response| response.status.as_u16());
        let Some(port) = &request.port else { return };
        port.metrics.answered(status, request.began.elapsed().as_secs_f64());
        if let Some(error) = error {
            tracing::debug!(service = %port.service, status, %error, "request failed");
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
