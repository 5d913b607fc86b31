//! An endpoint that takes every request apart and notes what could be understood in two ways.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What was asked, and what was wrong with it.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// First line of each request.
    pub requests: Vec<String>,
    /// Whole heads.
    pub heads: Vec<String>,
    /// Bodies.
    pub bodies: Vec<Vec<u8>>,
    pub violations: Vec<String>,
}

pub struct Strict {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Strict {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let noted = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&noted)));
            }
        });
        Self { address, seen }
    }

    /// What came since the last call.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// How long a body is.
enum Framing {
    Length(usize),
    Chunked,
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Seen>>) {
    let mut buffer = Vec::new();
    while let Some(end) = head(&mut stream, &mut buffer).await {
        let head: Vec<_> = buffer.drain(..end).collect();
        let (framing, violations) = judge(&head);
        let head = String::from_utf8_lossy(&head).into_owned();
        let first = head.lines().next().unwrap_or_default().to_owned();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let is_bad = !violations.is_empty();
        {
            let mut seen = seen.lock().unwrap();
            seen.violations.extend(violations.into_iter().map(|what| format!("{what} in {head:?}")));
            seen.requests.push(first.clone());
            seen.heads.push(head);
        }
        if is_bad {
            return;
        }
        let body = match framing {
            Framing::Length(length) => exactly(&mut stream, &mut buffer, length).await,
            Framing::Chunked => chunks(&mut stream, &mut buffer).await,
        };
        match body {
            Ok(body) => seen.lock().unwrap().bodies.push(body),
            // The proxy gave up in the middle, as it may.
            Err(None) => return,
            Err(Some(what)) => return seen.lock().unwrap().violations.push(what),
        }
        let body = if first.starts_with("HEAD ") { String::new() } else { format!("answer to {path}") };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    stream.read_buf(buffer).await.ok().filter(|n| *n > 0).map(drop)
}

/// Where the head ends.
async fn head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<usize> {
    loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            return Some(at + 4);
        }
        more(stream, buffer).await?;
    }
}

fn judge(head: &[u8]) -> (Framing, Vec<String>) {
    let mut wrong = Vec::new();
    let mut note = |what: &str| wrong.push(what.to_owned());
    let text: Vec<_> = head[..head.len() - 4].split(|byte| *byte == b'\n').collect();
    let mut lines = Vec::new();
    for (number, line) in text.iter().enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or_else(|| {
            if number + 1 < text.len() {
                note("a line without CR");
            }
            line
        });
        if line.iter().any(|byte| *byte == b'\r' || *byte == 0) {
            note("CR or NUL in a line");
        }
        lines.push(line);
    }
    let request = String::from_utf8_lossy(lines[0]).into_owned();
    let parts: Vec<_> = request.split(' ').collect();
    if parts.len() != 3 || parts[2] != "HTTP/1.1" || !parts[1].starts_with('/') && parts[0] != "OPTIONS" {
        note("an odd request line");
    }
    let (mut hosts, mut lengths, mut encodings) = (0, Vec::new(), Vec::new());
    for line in &lines[1..] {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            note("a line without a colon");
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(token) {
            note("a name that is no token");
        }
        match name.to_ascii_lowercase().as_slice() {
            b"host" => hosts += 1,
            b"content-length" => lengths.push(value),
            b"transfer-encoding" => encodings.push(value),
            _ => {}
        }
    }
    if hosts != 1 {
        note("not one Host");
    }
    if lengths.len() + encodings.len() > 1 {
        note("more than one framing");
    }
    if encodings.iter().any(|encoding| *encoding != b"chunked") {
        note("an encoding other than chunked");
    }
    let length = lengths.first().map_or(Some(0), |length| {
        let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
        digits.then(|| std::str::from_utf8(length).ok()?.parse().ok()).flatten()
    });
    if length.is_none() {
        note("a length that is no number");
    }
    let framing = if encodings.is_empty() { Framing::Length(length.unwrap_or(0)) } else { Framing::Chunked };
    (framing, wrong)
}

type Body = Result<Vec<u8>, Option<String>>;

async fn exactly(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> Body {
    while buffer.len() < length {
        more(stream, buffer).await.ok_or(None)?;
    }
    Ok(buffer.drain(..length).collect())
}

async fn line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Vec<u8>, Option<String>> {
    loop {
        if let Some(at) = buffer.windows(2).position(|two| two == b"\r\n") {
            let line = buffer.drain(..at + 2).take(at).collect();
            return Ok(line);
        }
        more(stream, buffer).await.ok_or(None)?;
    }
}

async fn chunks(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Body {
    let mut body = Vec::new();
    loop {
        let size = line(stream, buffer).await?;
        let text = String::from_utf8_lossy(&size).into_owned();
        if text.is_empty() || text.len() > 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Some(format!("chunk size {text:?}")));
        }
        let size = usize::from_str_radix(&text, 16).unwrap();
        if size == 0 {
            return match line(stream, buffer).await?.as_slice() {
                b"" => Ok(body),
                trailer => Err(Some(format!("a trailer {:?}", String::from_utf8_lossy(trailer)))),
            };
        }
        body.extend(exactly(stream, buffer, size).await?);
        let end = exactly(stream, buffer, 2).await?;
        if end != b"\r\n" {
            return Err(Some(format!("a chunk that ends with {end:?}")));
        }
    }
}
