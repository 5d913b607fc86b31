//! Unary calls as gRPC makes them, over HTTP/2 in the clear.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{Method, Request};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::Counts;
use crate::Result;
use crate::backend::MESSAGE;

/// Calls on one connection, `at_once` at a time.
pub(crate) async fn calls(address: SocketAddr, host: String, at_once: usize, counts: Rc<Counts>) -> Result {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (send, connection) = client::handshake(stream).await?;
    for _ in 0..at_once {
        let (send, host, counts) = (send.clone(), host.clone(), Rc::clone(&counts));
        spawn_local(async move {
            if let Err(error) = caller(send, &host, &counts).await {
                counts.failure.set(Some(error.to_string()));
                counts.failed.set(counts.failed.get() + 1);
            }
        });
    }
    drop(send);
    // The connection is driven here: when this client is dropped it closes, and its callers end.
    Ok(connection.await?)
}

async fn caller(mut send: SendRequest<Bytes>, host: &str, counts: &Counts) -> Result {
    loop {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{host}/bench.Echo/Unary"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        send = send.ready().await?;
        let (answer, mut body) = send.send_request(request, false)?;
        body.send_data(Bytes::from_static(MESSAGE), true)?;
        let mut answer = answer.await?;
        if answer.status() != 200 {
            return Err(format!("{answer:?}").into());
        }
        let mut length = 0;
        while let Some(data) = answer.body_mut().data().await {
            let data = data?;
            length += data.len();
            answer.body_mut().flow_control().release_capacity(data.len())?;
        }
        let trailers = answer.body_mut().trailers().await?.ok_or("no trailers")?;
        if trailers.get("grpc-status").is_none_or(|status| status != "0") {
            return Err(format!("trailers {trailers:?}").into());
        }
        counts.done(length);
    }
}
