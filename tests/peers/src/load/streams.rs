//! TCP clients.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Counts;
use crate::Result;

/// Sends a little and waits for it to come back.
pub(crate) async fn small(address: SocketAddr, counts: Rc<Counts>) -> Result {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sent, mut back) = ([b'x'; 64], [0; 64]);
    loop {
        stream.write_all(&sent).await?;
        stream.read_exact(&mut back).await?;
        counts.done(sent.len());
    }
}

/// Takes whatever comes. An exchange is one read.
pub(crate) async fn bulk(address: SocketAddr, counts: Rc<Counts>) -> Result {
    let mut stream = TcpStream::connect(address).await?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Err("the stream ended".into()),
            n => counts.done(n),
        }
    }
}
