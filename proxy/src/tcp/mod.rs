//! Carrying a TCP connection: any protocol, whoever speaks first, each direction closed for itself.
//!
//! The endpoint is connected to at once, since the server may be the one to speak. Bytes go through a buffer that all
//! connections of a thread share, and through a pipe in the kernel once a connection proves to be bulk ([`relay`]): an idle
//! connection holds no buffer.

mod relay;
mod splice;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::access::{Allowed, What, admit};
use crate::access_log::Line;
use crate::balance::Outstanding;
use crate::http::retry::{LAST_TRY_AFTER, MOST_TRIES};
use crate::http::upstream::CONNECT;
use crate::listen::{Carriers, prepare};
use crate::tables::{Backend, PortEntry};

/// How long an endpoint may leave bytes unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// Changes of access within this time are looked at once: thousands of connections may be concerned by each.
const GATHER: Duration = Duration::from_millis(200);

/// Carries the connection `stream` of `client` to an endpoint of `port`, until both ends are done or what they do is no
/// longer allowed.
pub async fn carry(mut stream: TcpStream, client: SocketAddr, port: &PortEntry, carriers: &Carriers) {
    let began = Instant::now();
    let _open = Open::new(port);
    let (endpoint, ended) = match connect(client, port, carriers).await {
        Ok((mut upstream, endpoint)) => {
            let relay = relay::both_ways(&mut stream, &mut upstream, port.timeouts.idle, &port.metrics);
            let ended = tokio::select! {
                biased;
                ended = relay => ended,
                () = denied(client, endpoint.endpoint().address, port, carriers) => {
                    port.metrics.denied.inc();
                    Err(io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        "access denied: it is no longer allowed",
                    ))
                }
            };
            if ended.is_err() {
                // What was cut must not look complete to either end.
                reset(&stream);
                reset(&upstream);
            }
            (Some(endpoint.endpoint().address), ended)
        }
        Err(error) => {
            reset(&stream);
            if error.kind() != io::ErrorKind::PermissionDenied {
                port.metrics.failures.inc();
            }
            tracing::debug!(service = %port.service, %error, "no endpoint");
            (None, Err(error))
        }
    };
    if carriers.access_log.is_on() {
        let bytes = ended.as_ref().copied().unwrap_or_default();
        let reason = ended.as_ref().err().map(ToString::to_string);
        carriers.access_log.write(&Line {
            client: Some(client),
            endpoint,
            received: bytes.received,
            sent: bytes.sent,
            reason: reason.as_deref(),
            ..Line::new("tcp", port, began.elapsed())
        });
    }
}

/// Counts a connection until dropped.
struct Open<'a>(&'a PortEntry);

impl<'a> Open<'a> {
    fn new(port: &'a PortEntry) -> Self {
        port.metrics.tcp_connections.inc();
        port.metrics.tcp_open.inc();
        Self(port)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.metrics.tcp_open.dec();
    }
}

/// Returns when what `client` and `endpoint` do is not allowed, or no longer: the port may have been restricted after they began.
async fn denied(client: SocketAddr, endpoint: SocketAddr, port: &PortEntry, carriers: &Carriers) {
    let accounts = &carriers.tables.accounts;
    let mut changes = accounts.changes();
    loop {
        // As the port is now. When it is another Service's, or nobody's, those who are connected leave by themselves.
        let now = carriers.tables.port(port.listen_port).clone();
        let restricted = now.is_some_and(|now| now.service == port.service && now.restriction.is_some());
        if restricted && !admit::still(accounts, port, client.ip(), endpoint.ip(), What::Tcp) {
            return;
        }
        // The sender lives as long as the tables do.
        let _ = changes.changed().await;
        tokio::time::sleep(GATHER).await;
        changes.mark_unchanged();
    }
}

/// Connects to where the connection may go.
async fn connect(
    client: SocketAddr,
    port: &PortEntry,
    carriers: &Carriers,
) -> io::Result<(TcpStream, Outstanding)> {
    let (accounts, route) = (&carriers.tables.accounts, port.route(None));
    let allowed = if port.restriction.is_some() {
        let admitted = admit::soon(accounts, port, route, Some(client.ip()), What::Tcp).await;
        Some(admitted.map_err(|denied| io::Error::new(io::ErrorKind::PermissionDenied, denied.to_string()))?)
    } else {
        None
    };
    connect_to(route.backend, allowed.as_ref(), port, carriers).await
}

/// Connects to one endpoint after the other: nothing was sent, so another may always be tried.
async fn connect_to(
    backend: &Backend,
    allowed: Option<&Allowed>,
    port: &PortEntry,
    carriers: &Carriers,
) -> io::Result<(TcpStream, Outstanding)> {
    let began = Instant::now();
    let mut tried = Vec::new();
    loop {
        let list = backend.endpoints.load_full();
        let Some(endpoint) = admit::pick(&carriers.tables.accounts, &list, allowed, &tried) else {
            return Err(io::Error::other(format!("no ready endpoint: {}", list.why_empty())));
        };
        let address = endpoint.endpoint().address;
        if !tried.is_empty() {
            port.metrics.retries.inc();
        }
        tried.push(address);
        let limit = port.timeouts.connect.unwrap_or(CONNECT);
        let error = match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                endpoint.endpoint().connected();
                prepare(&SockRef::from(&stream))?;
                SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
                return Ok((stream, endpoint));
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        endpoint.endpoint().connect_failed();
        port.metrics.connect_failures.inc();
        port.metrics.ejections.inc();
        if tried.len() >= MOST_TRIES || began.elapsed() >= LAST_TRY_AFTER {
            return Err(io::Error::new(
                error.kind(),
                format!("no connection to an endpoint could be made: {error}"),
            ));
        }
    }
}

/// Makes the end of `stream` a reset.
fn reset(stream: &TcpStream) {
    // It is about to be dropped: there is nothing to do when this fails.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
