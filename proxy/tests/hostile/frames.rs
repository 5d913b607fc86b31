//! A client of HTTP/2 that sends any frame, in any order, with any header: no library would.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::QUIET;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The first byte of a header block that begins with `:status: 200` (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

/// One frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block: every field literal, nothing compressed.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn length(bytes: &mut Vec<u8>, mut length: usize) {
    if length < 127 {
        return bytes.push(u8::try_from(length).unwrap());
    }
    bytes.push(127);
    length -= 127;
    while length >= 128 {
        bytes.push(u8::try_from(length % 128).unwrap() | 128);
        length /= 128;
    }
    bytes.push(u8::try_from(length).unwrap());
}

/// The fields of an ordinary request.
pub fn ordinary(path: &str) -> [(&'static str, &str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path)]
}

pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// A connection on which the settings are exchanged.
    pub async fn connect(port: u16) -> Self {
        let mut client =
            Self { stream: TcpStream::connect(("127.0.0.1", port)).await.unwrap(), buffer: Vec::new() };
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        client.send(&frame(SETTINGS, 0, 0, &[])).await;
        client.send(&frame(SETTINGS, 1, 0, &[])).await;
        client
    }

    /// False: the proxy takes no more.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(Duration::from_secs(5), self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// The next frame; `None`: the connection is closed or quiet.
    pub async fn next(&mut self, patience: Duration) -> Option<Frame> {
        loop {
            if let Some(&[a, b, c, kind, flags, s1, s2, s3, s4]) = self.buffer.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if self.buffer.len() >= 9 + length {
                    let payload = self.buffer[9..9 + length].to_vec();
                    self.buffer.drain(..9 + length);
                    return Some(Frame {
                        kind,
                        flags,
                        stream: u32::from_be_bytes([s1, s2, s3, s4]),
                        payload,
                    });
                }
            }
            let read = timeout(patience, self.stream.read_buf(&mut self.buffer)).await;
            read.ok()?.ok().filter(|read| *read > 0)?;
        }
    }

    /// Everything that comes until the connection is closed or quiet.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        while let Some(frame) = self.next(QUIET).await {
            all.push(frame);
        }
        all
    }

    /// Whether the proxy ends the connection within ten seconds.
    pub async fn is_ended(&mut self) -> bool {
        let patience = Duration::from_secs(10);
        while let Some(frame) = self.next(patience).await {
            if frame.kind == GOAWAY {
                return true;
            }
        }
        // A quiet connection is not an ended one.
        matches!(timeout(QUIET, self.stream.read(&mut [0])).await, Ok(Ok(0) | Err(_)))
    }

    /// One ordinary request on `stream` is answered with what is its own.
    pub async fn is_served(&mut self, stream: u32, path: &str) -> bool {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&ordinary(path)));
        if !self.send(&request).await {
            return false;
        }
        let mut body: Vec<u8> = Vec::new();
        while let Some(frame) = self.next(Duration::from_secs(5)).await {
            if frame.stream == stream && frame.kind == DATA {
                body.extend(&frame.payload);
            }
            if frame.stream == stream && frame.flags & END_STREAM != 0 {
                break;
            }
        }
        body == format!("answer to {path}").into_bytes()
    }
}

/// Whether a request on `stream` was answered 200.
pub fn is_success(frames: &[Frame], stream: u32) -> bool {
    frames.iter().any(|frame| {
        frame.kind == HEADERS && frame.stream == stream && frame.payload.first() == Some(&STATUS_200)
    })
}
