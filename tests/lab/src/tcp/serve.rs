//! The TCP servers: one that speaks first and echoes, one that answers after its client's end, one that only reads and one
//! that only writes. They end at once on SIGTERM.

use std::io;
use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bulk::{Digest, pattern};
use crate::identity::Identity;
use crate::serve::listen;
use crate::{Failure, stop};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Ports on which the server says `hello from <name>` before anything else, and then echoes.
    #[arg(long, value_delimiter = ',')]
    port: Vec<u16>,
    /// Ports on which it reads to the end, then sends back how much that was, and a digest.
    #[arg(long, value_delimiter = ',', value_name = "PORT")]
    half_close: Vec<u16>,
    /// Ports on which it swallows everything and closes at its client's end.
    #[arg(long, value_delimiter = ',', value_name = "PORT")]
    sink: Vec<u16>,
    /// Ports on which it sends so many bytes and closes.
    #[arg(long, value_delimiter = ',', value_name = "PORT=BYTES", value_parser = parse_source)]
    source: Vec<(u16, u64)>,
    #[command(flatten)]
    identity: Identity,
}

fn parse_source(text: &str) -> Result<(u16, u64), Failure> {
    let (port, bytes) = text.split_once('=').ok_or("PORT=BYTES is wanted")?;
    Ok((port.parse()?, bytes.parse()?))
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Behaviour {
    Echo,
    HalfClose,
    Sink,
    Source(u64),
}

/// Serves until SIGTERM.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let name: Arc<str> = args.identity.name().into();
    let plain = [
        (&args.port, Behaviour::Echo),
        (&args.half_close, Behaviour::HalfClose),
        (&args.sink, Behaviour::Sink),
    ];
    let plain = plain.into_iter().flat_map(|(ports, how)| ports.iter().map(move |port| (*port, how)));
    let sources = args.source.iter().map(|(port, bytes)| (*port, Behaviour::Source(*bytes)));
    let all: Vec<_> = plain.chain(sources).collect();
    for &(port, behaviour) in &all {
        tokio::spawn(accept(listen(port).await?, behaviour, Arc::clone(&name)));
    }
    eprintln!("weft-lab: {name} listens on {all:?}");
    stop::terminated().await?;
    std::process::exit(0)
}

pub(super) async fn accept(listener: tokio::net::TcpListener, behaviour: Behaviour, name: Arc<str>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let name = Arc::clone(&name);
        tokio::spawn(async move {
            // A client that goes away is its own affair.
            let _ = match behaviour {
                Behaviour::Echo => echo(stream, &name).await,
                Behaviour::HalfClose => half_close(stream, &name).await,
                Behaviour::Sink => sink(stream).await,
                Behaviour::Source(bytes) => source(stream, bytes).await,
            };
        });
    }
}

/// Holds no buffer while nothing comes, so that tens of thousands of connections fit into a small pod.
async fn echo(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.write_all(format!("hello from {name}\n").as_bytes()).await?;
    loop {
        stream.readable().await?;
        let mut buffer = Vec::with_capacity(16 * 1024);
        match stream.try_read_buf(&mut buffer) {
            Ok(0) => return stream.shutdown().await,
            Ok(_) => stream.write_all(&buffer).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => return Err(error),
        }
    }
}

async fn half_close(mut stream: TcpStream, name: &str) -> io::Result<()> {
    let (mut digest, mut buffer) = (Digest::new(), vec![0; 64 * 1024]);
    while let length @ 1.. = stream.read(&mut buffer).await? {
        digest.update(&buffer[..length]);
    }
    let answer = json!({ "from": name, "bytes": digest.bytes(), "digest": digest.hex() });
    stream.write_all(answer.to_string().as_bytes()).await?;
    stream.shutdown().await
}

async fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    while stream.read(&mut buffer).await? > 0 {}
    stream.shutdown().await
}

async fn source(mut stream: TcpStream, bytes: u64) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes {
        let piece = pattern(sent, bytes - sent);
        stream.write_all(piece).await?;
        sent += piece.len() as u64;
    }
    stream.shutdown().await
}
