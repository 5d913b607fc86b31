//! One connection of the client.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::body::{self, Body};
use super::{Answer, Shape, explain};
use crate::Failure;

/// The server has closed the connection, and nothing of the request was sent, or it says that it has not looked at it.
#[derive(Debug)]
pub(crate) struct Unsent(Failure);

impl std::fmt::Display for Unsent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not sent, or not looked at: {}", self.0)
    }
}

impl std::error::Error for Unsent {}

/// Whether the server said goodbye before it looked at the request: GOAWAY without an error, with a last stream before this one
/// (RFC 9113, section 6.8). What was on its way before it fails otherwise when the connection ends.
fn is_farewell(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR)
    })
}

/// One connection.
pub(crate) enum Connection {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// Connects to `address` within `patience`.
pub(crate) async fn dial(address: IpAddr, port: u16, patience: Duration) -> Result<TcpStream, Failure> {
    let connected = tokio::time::timeout(patience, TcpStream::connect(SocketAddr::new(address, port)));
    let stream = connected
        .await
        .map_err(|_| format!("connect to {address}: not within {} ms", patience.as_millis()))?
        .map_err(|error| format!("connect to {address}: {error}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Connection {
    /// Connects within `patience`.
    pub(crate) async fn open(
        address: IpAddr,
        port: u16,
        h2c: bool,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let io = TokioIo::new(dial(address, port, patience).await?);
        // What ends a connection shows in the request that needed it, so the drivers' own results tell nothing more.
        if h2c {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(driver);
            Ok(Self::Http2(sender))
        } else {
            let (sender, driver) = http1::handshake(io).await?;
            tokio::spawn(driver);
            Ok(Self::Http1(sender))
        }
    }

    /// The connection, if another request may be sent on it.
    pub(crate) async fn if_usable(mut self) -> Option<Self> {
        let ready = match &mut self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        };
        ready.ok().map(|()| self)
    }

    /// Sends a request and reads the whole answer. Fails with [`Unsent`] when the server said goodbye before it looked at it.
    pub(crate) async fn ask(&mut self, shape: &Shape) -> Result<Answer, Failure> {
        let (leave, informational) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Vec::new())));
        let wait = shape.upload.as_ref().and_then(|upload| upload.expect_continue);
        let given = Arc::clone(&leave);
        let mut request = shape.request(async move {
            if let Some(wait) = wait {
                // Leave or not: whoever waits in vain sends it all the same (RFC 9110, section 10.1.1).
                let _ = tokio::time::timeout(wait, given.notified()).await;
            }
        })?;
        let seen = Arc::clone(&informational);
        hyper::ext::on_informational(&mut request, move |answer| {
            let status = answer.status().as_u16();
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(status);
            if status == 100 {
                leave.notify_one();
            }
        });
        let response = match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
        .map_err(|mut error| {
            let unsent = error.take_message().is_some();
            let error = error.into_error();
            let unsent = unsent || is_farewell(&error);
            let error = explain("request", &error);
            if unsent { Unsent(error).into() } else { error }
        })?;
        let (head, body) = response.into_parts();
        let body = body::read(body, shape.read_rate).await;
        let informational =
            std::mem::take(&mut *informational.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Answer { status: head.status, version: head.version, headers: head.headers, informational, body })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::Target;
    use super::*;

    /// Frames: SETTINGS, empty; GOAWAY without an error, the last stream to follow.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 9] = [0, 0, 8, 7, 0, 0, 0, 0, 0];

    /// Whether a request, of stream 1, is taken for unsent when the server says that `last` is the last it has looked at.
    async fn is_unsent(last: u32) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&SETTINGS).await.unwrap();
            // HEADERS of stream 1, with or without a body to follow.
            let is_request =
                |bytes: &[u8]| bytes[0] == 1 && matches!(bytes[1], 4 | 5) && bytes[2..] == [0, 0, 0, 1];
            let mut seen = Vec::new();
            while !seen.windows(6).any(is_request) {
                assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
            }
            let farewell = [&GOAWAY[..], &last.to_be_bytes(), &[0; 4]].concat();
            stream.write_all(&farewell).await.unwrap();
        });
        let patience = Duration::from_secs(5);
        let mut connection = Connection::open(address.ip(), address.port(), true, patience).await.unwrap();
        let shape = Shape { h2c: true, ..Shape::get(&Target::parse(&format!("http://{address}/")).unwrap()) };
        connection.ask(&shape).await.unwrap_err().is::<Unsent>()
    }

    #[tokio::test]
    async fn only_what_the_server_has_not_looked_at_is_unsent() {
        assert!(is_unsent(0).await);
        assert!(!is_unsent(1).await, "it may have been carried out");
    }
}
