//! HTTP/1.1 clients.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Counts;
use crate::Result;
use crate::backend::LARGE;

/// What is read of a message's head.
pub(crate) struct Head {
    /// Bytes of the body, if it tells.
    pub(crate) length: Option<usize>,
    /// Where in the buffer the body begins.
    pub(crate) end: usize,
    /// It begins with this: a method or `HTTP/1.1 200`.
    pub(crate) ok: bool,
}

/// Reads into `buffer` until it holds a whole head; nothing at the end of the connection.
pub(crate) async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Result<Option<Head>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let length = buffer[..end].split(|byte| *byte == b'\n').find_map(content_length);
            let ok = !buffer.starts_with(b"HTTP/") || buffer[8..].starts_with(b" 200");
            return Ok(Some(Head { length, end: end + 4, ok }));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn content_length(line: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let (name, value) = line.split_at_checked(NAME.len())?;
    if !name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// Reads one answer and returns the size of its body.
pub(crate) async fn read_answer(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    chunk: &mut [u8],
) -> Result<usize> {
    let head = read_head(stream, buffer).await?.ok_or("closed without an answer")?;
    if !head.ok {
        return Err(String::from_utf8_lossy(&buffer[..head.end]).into());
    }
    let length = head.length.ok_or("an answer without Content-Length")?;
    let mut left = length.saturating_sub(buffer.len() - head.end);
    buffer.clear();
    while left > 0 {
        let n = stream.read(chunk).await?;
        if n == 0 {
            return Err("closed within an answer".into());
        }
        left = left.saturating_sub(n);
    }
    Ok(length)
}

/// A GET as clients send it.
pub(crate) fn get(path: &str, host: &str, connection: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n{connection}\r\n")
        .into_bytes()
}

/// Asks again and again on one connection.
pub(crate) async fn keep_alive(address: SocketAddr, host: String, counts: Rc<Counts>) -> Result {
    let request = get("/", &host, "");
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut buffer, mut chunk) = (Vec::with_capacity(4096), [0; 4096]);
    loop {
        stream.write_all(&request).await?;
        let length = read_answer(&mut stream, &mut buffer, &mut chunk).await?;
        counts.done(length);
    }
}

/// Asks once, and leaves.
pub(crate) async fn connect_each(address: SocketAddr, host: String, counts: Rc<Counts>) -> Result {
    let request = get("/", &host, "Connection: close\r\n");
    let (mut buffer, mut chunk) = (Vec::with_capacity(4096), [0; 4096]);
    loop {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&request).await?;
        let length = read_answer(&mut stream, &mut buffer, &mut chunk).await?;
        counts.done(length);
    }
}

/// Large bodies, there and back in turn.
pub(crate) async fn large(address: SocketAddr, host: String, number: usize, counts: Rc<Counts>) -> Result {
    let download = get("/large", &host, "");
    let head =
        format!("POST / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nContent-Length: {LARGE}\r\n\r\n");
    let upload = [head.into_bytes(), vec![b'x'; LARGE]].concat();
    let mut stream = TcpStream::connect(address).await?;
    let (mut buffer, mut chunk) = (Vec::with_capacity(4096), vec![0; 1 << 18]);
    for turn in number.. {
        stream.write_all(if turn % 2 == 0 { &download } else { &upload }).await?;
        read_answer(&mut stream, &mut buffer, &mut chunk).await?;
        counts.done(LARGE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn heads_are_read_whatever_the_pieces() {
        let mut whole: &[u8] = b"HTTP/1.1 200 OK\r\nX: y\r\nCONTENT-length: 5\r\n\r\nhello";
        let mut buffer = Vec::new();
        let head = read_head(&mut whole, &mut buffer).await.unwrap().unwrap();
        assert_eq!((head.length, head.ok, &buffer[head.end..]), (Some(5), true, &b"hello"[..]));
        let mut refused: &[u8] = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
        let answer = read_answer(&mut refused, &mut Vec::new(), &mut [0; 16]).await;
        assert!(answer.unwrap_err().to_string().contains("503"));
    }
}
