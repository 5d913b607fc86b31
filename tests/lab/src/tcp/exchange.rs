//! What is said on one connection.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

use crate::Failure;
use crate::bulk::{Digest, Pace, pattern};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Mode {
    /// Read the banner, say nothing.
    Banner,
    /// Read the banner, then have bytes echoed.
    Echo,
    /// Read the banner, then wait until the other side closes.
    Idle,
    /// Send bytes, close our side, read what the server made of them.
    HalfClose,
    /// Send bytes to a server that only swallows them.
    Upload,
    /// Read what the server sends.
    Download,
}

impl Mode {
    pub(super) fn has_banner(self) -> bool {
        matches!(self, Self::Banner | Self::Echo | Self::Idle)
    }
}

/// What to say on each connection.
pub(super) struct Exchange {
    pub(super) mode: Mode,
    pub(super) bytes: u64,
    pub(super) rate: Option<u64>,
}

/// What came of it.
pub(super) struct Outcome {
    /// The server's name, where it tells.
    pub(super) by: String,
    /// Bytes that were carried, in the mode's main direction.
    pub(super) bytes: u64,
    pub(super) told: Value,
}

/// Reads `hello from <name>` and gives the name.
pub(super) async fn banner(stream: &mut TcpStream) -> Result<String, Failure> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) if line.len() < 1024 => line.push(byte),
            Ok(_) => return Err("no line within 1024 bytes".into()),
            Err(error) => return Err(format!("banner: {error}").into()),
        }
    }
    let line = String::from_utf8(line)?;
    let name = line.strip_prefix("hello from ");
    Ok(name.ok_or_else(|| format!("no banner but {line:?}"))?.to_owned())
}

impl Exchange {
    pub(super) async fn run(&self, stream: TcpStream, banner: String) -> Result<Outcome, Failure> {
        let done = |bytes, told| Outcome { by: banner.clone(), bytes, told };
        match self.mode {
            Mode::Banner => Ok(done(0, Value::Null)),
            Mode::Echo => self.echo(stream).await.map(|bytes| done(bytes, Value::Null)),
            Mode::Idle => idle(stream).await.map(|told| done(0, told)),
            Mode::HalfClose => self.half_close(stream).await,
            Mode::Upload => self.upload(stream).await.map(|bytes| done(bytes, Value::Null)),
            Mode::Download => self.download(stream).await.map(|bytes| done(bytes, Value::Null)),
        }
    }

    async fn send(&self, writer: &mut OwnedWriteHalf) -> Result<(), Failure> {
        let (mut sent, mut pace) = (0, Pace::new(self.rate));
        while sent < self.bytes {
            let piece = pattern(sent, (self.bytes - sent).min(pace.piece()));
            writer.write_all(piece).await.map_err(|error| format!("after {sent} bytes sent: {error}"))?;
            sent += piece.len() as u64;
            pace.pass(piece.len() as u64).await;
        }
        Ok(())
    }

    async fn echo(&self, stream: TcpStream) -> Result<u64, Failure> {
        let (mut reader, mut writer) = stream.into_split();
        let read = async {
            let (mut digest, mut buffer) = (Digest::new(), vec![0; 16 * 1024]);
            while digest.bytes() < self.bytes {
                match reader.read(&mut buffer).await {
                    Ok(length @ 1..) => digest.update(&buffer[..length]),
                    Ok(0) => return Err(format!("closed after {} bytes of echo", digest.bytes()).into()),
                    Err(error) => {
                        return Err(format!("after {} bytes of echo: {error}", digest.bytes()).into());
                    }
                }
            }
            self.verified(&digest)
        };
        let (sent, echoed) = tokio::join!(self.send(&mut writer), read);
        sent?;
        echoed
    }

    async fn half_close(&self, stream: TcpStream) -> Result<Outcome, Failure> {
        let (mut reader, mut writer) = stream.into_split();
        self.send(&mut writer).await?;
        writer.shutdown().await?;
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).await.map_err(|error| format!("answer after our end: {error}"))?;
        let told: Value = serde_json::from_slice(&answer)
            .map_err(|error| format!("{error}: {:?}", String::from_utf8_lossy(&answer)))?;
        if told["bytes"] != self.bytes || told["digest"] != Digest::of_pattern(self.bytes) {
            return Err(format!("{} bytes were sent, the server says {told}", self.bytes).into());
        }
        let by = told["from"].as_str().unwrap_or_default().to_owned();
        Ok(Outcome { by, bytes: self.bytes, told })
    }

    async fn upload(&self, stream: TcpStream) -> Result<u64, Failure> {
        let (mut reader, mut writer) = stream.into_split();
        self.send(&mut writer).await?;
        writer.shutdown().await?;
        // The server closes once it has all.
        let extra = reader.read_to_end(&mut Vec::new()).await?;
        if extra == 0 { Ok(self.bytes) } else { Err(format!("{extra} bytes came back").into()) }
    }

    async fn download(&self, mut stream: TcpStream) -> Result<u64, Failure> {
        let (mut digest, mut buffer) = (Digest::new(), vec![0; 64 * 1024]);
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return self.verified(&digest),
                Ok(length) => digest.update(&buffer[..length]),
                Err(error) => return Err(format!("after {} bytes: {error}", digest.bytes()).into()),
            }
        }
    }

    fn verified(&self, digest: &Digest) -> Result<u64, Failure> {
        if digest.bytes() != self.bytes {
            return Err(format!("{} bytes came instead of {}", digest.bytes(), self.bytes).into());
        }
        if digest.hex() != Digest::of_pattern(self.bytes) {
            return Err(format!("the {} bytes that came are others than those meant", self.bytes).into());
        }
        Ok(self.bytes)
    }
}

/// Waits until the other side closes, and tells when and how it did.
async fn idle(mut stream: TcpStream) -> Result<Value, Failure> {
    let began = Instant::now();
    let how = match stream.read(&mut [0; 64]).await {
        Ok(0) => "closed".to_owned(),
        Ok(length) => return Err(format!("{length} bytes came unasked").into()),
        Err(error) => error.to_string(),
    };
    Ok(json!({ "ended_after_ms": began.elapsed().as_millis(), "how": how }))
}
