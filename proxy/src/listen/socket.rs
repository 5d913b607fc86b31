//! Binding listen ports: IPv6 and IPv4 where the pod has both, IPv4 alone otherwise.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections the kernel queues while the accept loop is busy; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Bytes of datagrams the kernel queues while the receive loop is busy; the kernel caps it at `net.core.rmem_max`.
const DATAGRAM_QUEUE: usize = 4 << 20;

/// A connection whose other end is gone without a word is noticed by probes.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// A listening socket. What is set on it, its connections inherit.
pub(super) fn bind(port: u16) -> io::Result<TcpListener> {
    let socket = bound(port, Type::STREAM, Protocol::TCP)?;
    prepare(&SockRef::from(&socket))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket that receives datagrams.
pub(super) fn bind_udp(port: u16) -> io::Result<UdpSocket> {
    let socket = bound(port, Type::DGRAM, Protocol::UDP)?;
    // A smaller queue will do.
    let _ = socket.set_recv_buffer_size(DATAGRAM_QUEUE);
    Ok(socket.into())
}

/// Ends the listening `socket`: whoever holds it still, its port can be bound again at once, and nobody waits in its queue.
pub(super) fn stop(socket: &tokio::net::TcpListener) {
    // It can fail only where nothing listens any more.
    let _ = SockRef::from(socket).shutdown(Shutdown::Both);
}

/// Small writes go at once, and a peer that is gone is noticed.
pub fn prepare(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
    socket.set_tcp_keepalive(&probes)
}

fn bound(port: u16, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    match at(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), kind, protocol) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), kind, protocol)
        }
        bound => bound,
    }
}

fn at(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // For datagrams, too: the socket before may take a moment to go.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
