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
        write!(f, "not sent: {}", self.0)
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

    /// Sends a request and reads the whole answer. Fails with [`Unsent`] when the server closed the connection before.
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
