//! The connection to an endpoint for a request that asks for an upgrade (WebSocket and others).
//!
//! Pingora 0.9.1 ends an upgraded connection at once when the endpoint's 101 can be read before it has taken note that the
//! request had no body: it then takes the end of that body for the end of the upgraded stream. A near and quick endpoint is
//! fast enough for that. These connections are read a little later, so that the body always comes first.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::ALPN;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::PeerOptions;
use pingora::{Error, ErrorType};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How often reading waits for another turn after something was written. In the first turn pingora's two halves run one
/// after the other, in the second each has seen what the other sent.
const TURNS: u8 = 3;
/// The connection is not kept when the upgrade is refused: pingora's pool tells connections apart by their descriptor, which
/// it does not see here.
const UNUSED: Duration = Duration::from_millis(1);

/// Numbers the groups: a connection of this kind is nobody else's.
static GROUPS: AtomicU64 = AtomicU64::new(0);

/// Makes `options` those of a connection for an upgrade, and returns the group it is in.
pub(super) fn prepare(options: &mut PeerOptions, connect: Duration) -> u64 {
    // Only there is a connection upgraded; an endpoint that may choose would choose h2.
    options.alpn = ALPN::H1;
    options.custom_l4 = Some(Arc::new(Connector { connect }));
    options.idle_timeout = Some(UNUSED);
    // Far from the groups that policies have: 0, 1 and hashes.
    GROUPS.fetch_add(1, Relaxed) | 1 << 63
}

#[derive(Debug)]
struct Connector {
    /// How long it may take.
    connect: Duration,
}

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Error::e_explain(ErrorType::InternalError, "an endpoint without an IP address");
        };
        let failed = |error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                    ErrorType::ConnectNoRoute
                }
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, format!("connecting to {address}"), error)
        };
        let connected = timeout(self.connect, TcpStream::connect(address)).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
        Ok(VirtualSocketStream::new(Box::new(Upgradable { stream, turns: 0 })).into())
    }
}

/// A connection that is read later.
#[derive(Debug)]
struct Upgradable {
    stream: TcpStream,
    /// Turns to wait before the next read.
    turns: u8,
}

impl VirtualSocket for Upgradable {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.set_nodelay(true),
            VirtualSockOpt::KeepAlive(wanted) => {
                let socket = SockRef::from(&self.stream);
                let probes = TcpKeepalive::new()
                    .with_time(wanted.idle)
                    .with_interval(wanted.interval)
                    .with_retries(u32::try_from(wanted.count).unwrap_or(u32::MAX));
                socket.set_tcp_keepalive(&probes)?;
                socket.set_tcp_user_timeout(Some(wanted.user_timeout))
            }
            _ => Ok(()),
        }
    }
}

impl AsyncRead for Upgradable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turns > 0 {
            self.turns -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Upgradable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.turns = TURNS;
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
