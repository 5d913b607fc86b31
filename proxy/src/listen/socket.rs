//! Binding a listen port. Pingora panics when its own bind fails, so the socket is bound here and handed over.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora::server::{Fds, ListenFds};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel queues while the accept loop is busy; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A bound, listening socket for `port` in pingora's table, and the address it stands under there. IPv6 and IPv4 where
/// the pod has both, IPv4 alone otherwise.
pub(super) fn bind(port: u16) -> io::Result<(String, ListenFds)> {
    let (address, listener) = match listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        Ok(listener) => (format!("[::]:{port}"), listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
        Err(_) => (format!("0.0.0.0:{port}"), listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?),
    };
    let mut sockets = Fds::new();
    sockets.add(address.clone(), listener.into_raw_fd());
    Ok((address, Arc::new(Mutex::new(sockets))))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
