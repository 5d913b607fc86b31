//! The HTTP server: says who answered and what was asked, and misbehaves on demand. It ends at once on SIGTERM, in the middle
//! of whatever it does: the mesh must cope with backends that know no graceful stop.

mod account;
mod answer;
mod tls;
mod websocket;
mod wishes;

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::identity::Identity;
use crate::{Failure, stop};

pub(crate) use account::Account;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Ports to listen on.
    #[arg(long, value_delimiter = ',', default_value = "8080")]
    port: Vec<u16>,
    /// Ports to listen on with TLS.
    #[arg(long, value_delimiter = ',', requires_all = ["tls_cert", "tls_key"])]
    tls_port: Vec<u16>,
    /// File with the certificate and those that lead to its authority (PEM).
    #[arg(long)]
    tls_cert: Option<PathBuf>,
    /// File with the certificate's key (PEM).
    #[arg(long)]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    identity: Identity,
    /// Milliseconds for which /healthz says no.
    #[arg(long, default_value_t = 0)]
    ready_delay: u64,
}

/// What all requests share.
struct Server {
    identity: Identity,
    ready_at: Instant,
    /// How often each `?key=` was asked for.
    seen: Mutex<HashMap<String, u64>>,
}

/// What a request's connection tells.
#[derive(Debug, Clone)]
struct Origin {
    port: u16,
    peer: SocketAddr,
    /// The name the client asked for in its TLS handshake, empty when it named none; absent without TLS.
    tls_name: Option<String>,
}

/// Serves until SIGTERM.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let server = Arc::new(Server::new(args.identity.clone(), Duration::from_millis(args.ready_delay)));
    for &port in &args.port {
        tokio::spawn(accept(listen(port).await?, Arc::clone(&server)));
    }
    if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
        let acceptor = tls::acceptor(&std::fs::read(certificate)?, &std::fs::read(key)?)?;
        for &port in &args.tls_port {
            tokio::spawn(tls::accept(listen(port).await?, acceptor.clone(), Arc::clone(&server)));
        }
    }
    eprintln!("weft-lab: {} listens on {:?}, with TLS on {:?}", args.identity.app, args.port, args.tls_port);
    stop::terminated().await?;
    std::process::exit(0)
}

/// Dual-stack: IPv4 comes mapped.
pub(crate) async fn listen(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        tokio::spawn(Arc::clone(&server).converse(stream, Origin { port, peer, tls_name: None }));
    }
}

impl Server {
    fn new(identity: Identity, ready_delay: Duration) -> Self {
        Self { identity, ready_at: Instant::now() + ready_delay, seen: Mutex::default() }
    }

    /// All requests of one connection.
    async fn converse<S>(self: Arc<Self>, stream: S, origin: Origin)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(move |request| {
            let (server, origin) = (Arc::clone(&self), origin.clone());
            async move { server.answer(request, &origin).await }
        });
        // A client that goes away is its own affair.
        let _ = auto::Builder::new(TokioExecutor::new())
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .await;
    }
}

#[cfg(test)]
mod tests;
