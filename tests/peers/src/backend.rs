//! What the proxies lead to, in a process of its own: as little work as can be for each answer.

use std::process::Stdio;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::{HeaderMap, HeaderValue, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::process::{Child, Command};
use tokio::task::spawn_local;

use crate::Result;
use crate::load::http1::{Head, read_head};
use crate::ports::{BACKEND_BULK, BACKEND_ECHO, BACKEND_H2C, BACKEND_HTTP, BACKEND_UDP, local};

/// The body of a small answer.
const SMALL: &[u8] = b"hello from the backend of the benchmark\n";
/// The size of a large body.
pub(crate) const LARGE: usize = 1 << 20;
/// What a unary call carries: a gRPC message of some bytes, with its prefix.
pub(crate) const MESSAGE: &[u8] = b"\0\0\0\0\x14twenty bytes of call";

/// Starts it and waits until it listens. It ends when dropped.
pub(crate) async fn start() -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    let child = command.arg("backend").stdin(Stdio::null()).kill_on_drop(true).spawn()?;
    for _ in 0..200 {
        if TcpStream::connect(local(BACKEND_BULK)).await.is_ok() {
            return Ok(child);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Err("the backend does not listen".into())
}

/// Serves until killed.
pub(crate) async fn serve() -> Result {
    let udp = UdpSocket::bind(local(BACKEND_UDP)).await?;
    spawn_local(async move {
        let mut datagram = [0; 2048];
        while let Ok((n, from)) = udp.recv_from(&mut datagram).await {
            let _ = udp.send_to(&datagram[..n], from).await;
        }
    });
    listen(BACKEND_HTTP, http1).await?;
    listen(BACKEND_H2C, h2c).await?;
    listen(BACKEND_ECHO, echo).await?;
    // The last: whoever waits for it waits for all.
    listen(BACKEND_BULK, bulk).await?;
    std::future::pending().await
}

async fn listen<F: Future<Output = Result> + 'static>(port: u16, serve: fn(TcpStream) -> F) -> Result {
    let listener = TcpListener::bind(local(port)).await?;
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            // Whoever goes away early is none of its business.
            spawn_local(async move { drop(serve(stream).await) });
        }
    });
    Ok(())
}

async fn http1(mut stream: TcpStream) -> Result {
    let answer = |body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let (small, large) = (answer(SMALL), answer(&vec![b'x'; LARGE]));
    let mut buffer = Vec::with_capacity(1 << 16);
    let mut chunk = vec![0; 1 << 18];
    loop {
        let Some(Head { length, end, .. }) = read_head(&mut stream, &mut buffer).await? else {
            return Ok(());
        };
        let is_large = buffer[..end].starts_with(b"GET /large");
        let mut left = length.unwrap_or(0).saturating_sub(buffer.len() - end);
        buffer.drain(..buffer.len().min(end + length.unwrap_or(0)));
        while left > 0 {
            let n = stream.read(&mut chunk).await?;
            if n == 0 {
                return Ok(());
            }
            left = left.saturating_sub(n);
        }
        stream.write_all(if is_large { &large } else { &small }).await?;
    }
}

async fn h2c(stream: TcpStream) -> Result {
    let mut connection = server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        spawn_local(async move { drop(answer(request.into_body(), respond).await) });
    }
    Ok(())
}

/// Answers a call once it is whole.
async fn answer(mut body: RecvStream, mut respond: SendResponse<Bytes>) -> Result {
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let head = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut send = respond.send_response(head, false)?;
    send.send_data(Bytes::from_static(MESSAGE), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Ok(send.send_trailers(trailers)?)
}

async fn echo(mut stream: TcpStream) -> Result {
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..n]).await?;
    }
}

async fn bulk(mut stream: TcpStream) -> Result {
    let chunk = vec![b'x'; 1 << 18];
    loop {
        stream.write_all(&chunk).await?;
    }
}
