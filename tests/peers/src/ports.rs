//! Who listens where; all on 127.0.0.1. Below the ports that outgoing connections get.

use std::net::SocketAddr;

/// The backend, HTTP/1.1.
pub(crate) const BACKEND_HTTP: u16 = 18080;
/// The backend, HTTP/2 in the clear.
pub(crate) const BACKEND_H2C: u16 = 18081;
/// The backend: TCP that echoes.
pub(crate) const BACKEND_ECHO: u16 = 18082;
/// The backend: TCP that sends without end.
pub(crate) const BACKEND_BULK: u16 = 18083;
/// The backend: UDP that echoes.
pub(crate) const BACKEND_UDP: u16 = 18084;

/// What lies between a backend's port and the proxy's port for it.
const FRONT: u16 = 1000;
/// The proxies' own port, for metrics.
pub(crate) const ADMIN: u16 = 19090;
/// Weft has a port for each Service; the first of many.
pub(crate) const MANY: u16 = 20000;

/// The proxy's port for one of the backend's.
pub(crate) const fn front(backend: u16) -> u16 {
    backend + FRONT
}

/// An address of this machine.
pub(crate) fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}
