//! Bytes written to a connection just as they are, and what comes back: for requests no decent client would send.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;
use crate::bulk::Pace;
use crate::http::{Target, connection::dial};
use crate::resolve::Resolver;

/// Of what comes back so much is told.
const TOLD: usize = 64 * 1024;

#[derive(clap::Args)]
pub(crate) struct RawArgs {
    /// Write the bytes of this file, or of standard input (`-`), to a connection and print what comes back; the URL only says
    /// where to.
    #[arg(long, value_name = "FILE")]
    raw: Option<String>,
    /// The same with bytes given here; `\r`, `\n`, `\t`, `\0`, `\\` and `\x41` stand for what they do in Rust.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    raw_text: Option<String>,
    /// Bytes to write in a second.
    #[arg(long, value_name = "RATE")]
    raw_rate: Option<u64>,
    /// Close our side once all is written.
    #[arg(long)]
    raw_close: bool,
    /// It is over when so many milliseconds after the last byte nothing more came.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    raw_quiet: u64,
}

impl RawArgs {
    /// What to write, if that is what is asked for.
    pub(crate) async fn bytes(&self) -> Result<Option<Vec<u8>>, Failure> {
        if let Some(text) = &self.raw_text {
            return Ok(Some(unescape(text)?));
        }
        Ok(match self.raw.as_deref() {
            Some("-") => {
                let mut bytes = Vec::new();
                tokio::io::stdin().read_to_end(&mut bytes).await?;
                Some(bytes)
            }
            Some(file) => Some(std::fs::read(file)?),
            None => None,
        })
    }
}

/// Writes `bytes` and tells what came back and how it ended.
pub(crate) async fn exchange(
    resolver: &Resolver,
    target: &Target,
    bytes: &[u8],
    args: &RawArgs,
    patience: Duration,
) -> Value {
    let began = Instant::now();
    let connected = async {
        let address: IpAddr = resolver.address(&target.host).await?;
        dial(address, target.port, patience).await
    };
    let mut answer = match connected.await {
        Ok(stream) => converse(stream, bytes, args, patience).await,
        Err(error) => json!({ "error": error.to_string() }),
    };
    answer["ms"] = json!(began.elapsed().as_secs_f64() * 1000.0);
    answer
}

async fn converse(stream: TcpStream, bytes: &[u8], args: &RawArgs, patience: Duration) -> Value {
    let (mut reader, mut writer) = stream.into_split();
    // The other side may well answer, or hang up, before it has all.
    let write = async {
        let mut pace = Pace::new(args.raw_rate);
        let piece = usize::try_from(pace.piece()).unwrap_or(usize::MAX);
        for piece in bytes.chunks(piece) {
            writer.write_all(piece).await?;
            pace.pass(piece.len() as u64).await;
        }
        if args.raw_close {
            writer.shutdown().await?;
        }
        // Kept open otherwise: a server that sees the end of its client may treat it unlike one that waits.
        Ok::<_, std::io::Error>(writer)
    };
    let read = async {
        let (mut received, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let quiet = tokio::time::Instant::now() + Duration::from_millis(args.raw_quiet);
            let until = if received.is_empty() { deadline } else { deadline.min(quiet) };
            match tokio::time::timeout_at(until, reader.read(&mut buffer)).await {
                Ok(Ok(0)) => break (received, "closed".to_owned()),
                Ok(Ok(length)) => received.extend_from_slice(&buffer[..length]),
                Ok(Err(error)) => break (received, format!("broken: {error}")),
                Err(_) if received.is_empty() => break (received, "nothing came".to_owned()),
                Err(_) => break (received, "quiet".to_owned()),
            }
        }
    };
    tokio::pin!(write);
    tokio::pin!(read);
    let (mut written, mut kept) = (None, None);
    let (received, ended) = loop {
        tokio::select! {
            read = &mut read => break read,
            outcome = &mut write, if written.is_none() => match outcome {
                Ok(writer) => {
                    kept = Some(writer);
                    written = Some(Value::Null);
                }
                Err(error) => written = Some(json!(error.to_string())),
            },
        }
    };
    drop(kept);
    json!({
        "raw": String::from_utf8_lossy(&received[..received.len().min(TOLD)]),
        "bytes": received.len(),
        "ended": ended,
        "all_written": written == Some(Value::Null),
        "write_error": written,
    })
}

/// Escapes as in Rust's byte strings.
fn unescape(text: &str) -> Result<Vec<u8>, Failure> {
    let (mut bytes, mut chars) = (Vec::new(), text.chars());
    while let Some(char) = chars.next() {
        if char != '\\' {
            bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        bytes.push(match chars.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let hex: String = chars.by_ref().take(2).collect();
                u8::from_str_radix(&hex, 16).map_err(|_| format!("\\x{hex}: two hexadecimal digits"))?
            }
            other => return Err(format!("there is no escape \\{}", other.unwrap_or(' ')).into()),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_those_of_rust() {
        assert_eq!(unescape(r"GET / HTTP/1.1\r\n\x00\\").unwrap(), b"GET / HTTP/1.1\r\n\0\\");
        assert!(unescape(r"\xg0").is_err());
        assert!(unescape(r"\q").is_err());
        assert!(unescape("\\").is_err());
    }
}
