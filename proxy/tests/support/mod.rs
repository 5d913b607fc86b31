//! A proxy without an operator, and backends that behave as told.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use weft_config::{
    Endpoints, EndpointsId, Entry, Port, Resource, ResourceKey, Service, ServiceId, Timeouts, Traffic, Update,
};
use weft_proxy::access_log::{AccessLog, Format};
use weft_proxy::listen::{Carriers, Listeners, start_worker};
use weft_proxy::metrics::Metrics;
use weft_proxy::tables::Tables;
use weft_proxy::tables::apply::Applier;

/// The parts of a proxy that carry traffic.
pub struct Proxy {
    pub applier: Applier,
    pub listeners: Arc<Listeners>,
    pub metrics: Arc<Metrics>,
    /// What carries the traffic: a port is listened on by the one of its number, modulo two.
    pub workers: [Handle; 2],
}

impl Proxy {
    pub fn start() -> Self {
        Self::with_files(1 << 20)
    }

    /// One that may have so many files open, as far as it knows.
    pub fn with_files(files: u64) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (tables, metrics) = (Arc::new(Tables::default()), Arc::new(Metrics::default()));
        let access_log = AccessLog::new(Format::Off).unwrap();
        let workers = [0, 1].map(|number| start_worker(number).unwrap());
        let carriers = Carriers::new(Arc::clone(&tables), "node1", &workers, access_log).unwrap();
        let listeners = Arc::new(Listeners::new(carriers, Arc::clone(&metrics)).with_files(files));
        let applier = Applier::new(tables, Arc::clone(&listeners), Arc::clone(&metrics));
        Self { applier, listeners, metrics, workers }
    }

    /// Adds Service `shop/<name>` and returns the port it listens on.
    pub fn service(&mut self, name: &str, ready: &[SocketAddr]) -> u16 {
        let port = free_port();
        self.service_on(name, port, ready);
        assert!(self.applier.rejections().is_empty(), "{:?}", self.applier.rejections());
        port
    }

    /// The same, with what its annotations ask for.
    pub fn service_with(
        &mut self,
        name: &str,
        ready: &[SocketAddr],
        traffic: Traffic,
        timeouts: Timeouts,
    ) -> u16 {
        let port = free_port();
        self.put(name, port, ready, traffic, timeouts);
        assert!(self.applier.rejections().is_empty(), "{:?}", self.applier.rejections());
        port
    }

    pub fn service_on(&mut self, name: &str, listen_port: u16, ready: &[SocketAddr]) {
        self.put(name, listen_port, ready, Traffic::default(), Timeouts::default());
    }

    pub fn put(
        &mut self,
        name: &str,
        listen_port: u16,
        ready: &[SocketAddr],
        traffic: Traffic,
        timeouts: Timeouts,
    ) {
        self.endpoints(name, ready);
        self.apply(at(name, listen_port, traffic, timeouts));
    }

    /// The Services of these names, and with each the listen port that it moves to, all in one update.
    pub fn move_to(&mut self, moves: &[(&str, u16)]) {
        let at = |(name, listen_port): &(&str, u16)| {
            at(name, *listen_port, Traffic::default(), Timeouts::default())
        };
        self.apply_all(moves.iter().map(at));
    }

    pub fn endpoints(&mut self, name: &str, ready: &[SocketAddr]) {
        let endpoints = Endpoints { ready: ready.to_vec(), ..Endpoints::default() };
        self.apply(Resource::Endpoints(endpoints_id(name), endpoints));
    }

    pub fn unready(&mut self, name: &str, unready: u32) {
        self.apply(Resource::Endpoints(endpoints_id(name), Endpoints { unready, ..Endpoints::default() }));
    }

    pub fn remove(&mut self, name: &str) {
        let removals = vec![ResourceKey::Service(id(name)), ResourceKey::Endpoints(endpoints_id(name))];
        self.applier.apply(&Update { upserts: Vec::new(), removals });
    }

    pub fn apply(&mut self, resource: Resource) {
        self.apply_all([resource]);
    }

    /// In one update.
    pub fn apply_all(&mut self, resources: impl IntoIterator<Item = Resource>) {
        let upserts = resources.into_iter().map(Entry::new).collect();
        self.applier.apply(&Update { upserts, removals: Vec::new() });
    }
}

/// Keeps a worker from whatever else it has to do; until dropped.
pub struct Blocked(Arc<Barrier>);

impl Blocked {
    pub fn new(worker: &Handle) -> Self {
        let barrier = Arc::new(Barrier::new(2));
        let theirs = Arc::clone(&barrier);
        worker.spawn(async move {
            theirs.wait();
            theirs.wait();
        });
        barrier.wait();
        Self(barrier)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.0.wait();
    }
}

/// Service `shop/<name>` at this listen port.
fn at(name: &str, listen_port: u16, traffic: Traffic, timeouts: Timeouts) -> Resource {
    let port = Port {
        port: 80,
        name: "http".into(),
        listen_port,
        traffic,
        timeouts,
        endpoints: endpoints_id(name),
        split: None,
        restriction: None,
    };
    Resource::Service(Service { id: id(name), ports: vec![port] })
}

pub fn id(name: &str) -> ServiceId {
    ServiceId::new("shop", name)
}

pub fn endpoints_id(name: &str) -> EndpointsId {
    EndpointsId { service: id(name), port: 80 }
}

/// A port that nobody has, neither for connections nor for datagrams, and that the kernel gives to nobody who does not ask for it:
/// below its ephemeral range.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another process begins elsewhere.
    let first = u16::try_from(std::process::id() % 200).unwrap() * 100;
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Relaxed)) % 22_000;
        let free = std::net::TcpListener::bind(("::", port)).is_ok()
            && std::net::UdpSocket::bind(("::", port)).is_ok();
        if free {
            return port;
        }
    }
}

/// A backend that notes what it is sent.
pub struct Backend {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy)]
enum Manner {
    Answer(&'static str),
    /// Reads the request and closes without an answer.
    Rude,
    Echo,
    /// Answers with this status, after this many milliseconds.
    Status(u16, u64),
    /// Takes every upgrade and echoes what follows.
    Upgrade,
}

impl Backend {
    pub async fn start(body: &'static str) -> Self {
        Self::with(Manner::Answer(body)).await
    }

    pub async fn start_rude() -> Self {
        Self::with(Manner::Rude).await
    }

    pub async fn start_echo() -> Self {
        Self::with(Manner::Echo).await
    }

    pub async fn start_status(status: u16, delay_ms: u64) -> Self {
        Self::with(Manner::Status(status, delay_ms)).await
    }

    pub async fn start_upgrade() -> Self {
        Self::with(Manner::Upgrade).await
    }

    async fn with(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, manner, Arc::clone(&noted)));
            }
        });
        Self { address, seen }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, manner: Manner, seen: Arc<Mutex<Vec<String>>>) {
    let mut buffer = Vec::new();
    while let Some((head, body)) = read_message(&mut stream, &mut buffer).await {
        seen.lock().unwrap().push(head);
        let mut status = 200;
        let body = match manner {
            Manner::Rude => return,
            Manner::Answer(text) => text.as_bytes().to_vec(),
            Manner::Echo => body,
            Manner::Status(code, delay) => {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                status = code;
                Vec::new()
            }
            Manner::Upgrade => {
                let head =
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
                stream.write_all(head).await.unwrap();
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                return;
            }
        };
        let head = format!("HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
            return;
        }
    }
}

/// Head and body of the next message, by its Content-Length; `None` at the end of the connection.
async fn read_message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let mut chunk = vec![0; 65536];
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = head
                .to_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let whole = end + 4 + length.unwrap_or(0);
            if buffer.len() >= whole {
                let body = buffer[end + 4..whole].to_vec();
                buffer.drain(..whole);
                return Some((head, body));
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(length) => buffer.extend_from_slice(&chunk[..length]),
        }
    }
}

/// Sends `request` on a connection of its own and reads to its end.
pub async fn exchange(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.expect("an answer within 10 s").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A client that uses its connection again.
pub struct KeepAlive {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl KeepAlive {
    pub async fn connect(port: u16) -> Self {
        Self { stream: TcpStream::connect(("127.0.0.1", port)).await.unwrap(), buffer: Vec::new() }
    }

    pub async fn get(&mut self) -> String {
        self.stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let (head, _) = read_message(&mut self.stream, &mut self.buffer).await.expect("an answer");
        format!("{head}\r\n")
    }
}

/// A client that speaks h2 with prior knowledge, and its connection, which runs until it ends.
pub async fn h2_client(port: u16) -> (SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (client, tokio::spawn(connection))
}

/// Waits until `condition` holds; fails after 10 s.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
