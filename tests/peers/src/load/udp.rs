//! UDP clients: each a source of its own.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Counts;
use crate::Result;
use crate::ports::local;

/// Sends a datagram and waits for it to come back.
pub(crate) async fn echo(address: SocketAddr, counts: Rc<Counts>) -> Result {
    let socket = UdpSocket::bind(local(0)).await?;
    socket.connect(address).await?;
    let (sent, mut back) = ([b'x'; 64], [0; 128]);
    loop {
        socket.send(&sent).await?;
        match timeout(Duration::from_millis(500), socket.recv(&mut back)).await {
            Ok(received) => counts.done(received?),
            Err(_) => counts.failed.set(counts.failed.get() + 1),
        }
    }
}
