//! One source and its endpoint.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::access_log::Line;
use crate::balance::Outstanding;
use crate::listen::Carriers;
use crate::tables::{Backend, PortEntry};

/// Datagrams taken in one go before others get their turn.
const TURN: usize = 64;
/// The largest datagram there is.
const LARGEST: usize = 65_535;

thread_local! {
    /// Where answers are taken in: a session holds no buffer.
    static SHARED: std::cell::RefCell<Box<[u8]>> = std::cell::RefCell::new(vec![0; LARGEST].into_boxed_slice());
}

/// One source and its endpoint. Ends when dropped.
pub(super) struct Session {
    shared: Arc<Shared>,
    answers: JoinHandle<()>,
}

struct Shared {
    backend: Arc<Backend>,
    endpoint: Outstanding,
    source: SocketAddr,
    entry: Arc<PortEntry>,
    carriers: Arc<Carriers>,
    /// Connected to the endpoint.
    upstream: UdpSocket,
    began: Instant,
    /// Milliseconds after `began`.
    last: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Session {
    /// A session of `source` with an endpoint of a backend; answers go out over `listener`.
    pub(super) fn begin(
        (backend, endpoint): (Arc<Backend>, Outstanding),
        source: SocketAddr,
        entry: Arc<PortEntry>,
        listener: Arc<UdpSocket>,
        carriers: Arc<Carriers>,
    ) -> io::Result<Self> {
        let address = endpoint.endpoint().address;
        let any: SocketAddr = if address.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = std::net::UdpSocket::bind(any)?;
        // Of a connected socket only the endpoint's datagrams are taken, and it is told when nobody listens there.
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        entry.metrics.udp_sessions.inc();
        entry.metrics.udp_open.inc();
        let shared = Arc::new(Shared {
            backend,
            endpoint,
            source,
            entry,
            carriers,
            upstream: UdpSocket::from_std(socket)?,
            began: Instant::now(),
            last: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        let answers = tokio::spawn(take_answers(Arc::clone(&shared), listener));
        Ok(Self { shared, answers })
    }

    /// The backend its endpoint belongs to.
    pub(super) fn backend(&self) -> &Backend {
        &self.shared.backend
    }

    /// The endpoint.
    pub(super) fn endpoint(&self) -> &Outstanding {
        &self.shared.endpoint
    }

    /// Sends a datagram of the source on.
    pub(super) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.shared.note(&self.shared.received, datagram.len());
        // Past tokio: it believes a fresh socket not writable until its driver has looked, and the first datagram of a
        // session would be lost.
        SockRef::from(&self.shared.upstream).send(datagram).map(|_| ())
    }

    /// Whether it was silent for `idle`, or its endpoint has told that nobody listens.
    pub(super) fn is_over(&self, now: Instant, idle: Duration) -> bool {
        let last = self.shared.began + Duration::from_millis(self.shared.last.load(Relaxed));
        self.answers.is_finished() || now.saturating_duration_since(last) >= idle
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

impl Shared {
    fn note(&self, count: &AtomicU64, bytes: usize) {
        count.fetch_add(bytes as u64, Relaxed);
        self.last.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Takes in what has arrived and sends it to the source.
    fn answer(&self, listener: &UdpSocket) -> io::Result<()> {
        SHARED.with_borrow_mut(|buffer| {
            for _ in 0..TURN {
                let n = match self.upstream.try_recv(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    received => received?,
                };
                self.note(&self.sent, n);
                self.endpoint.endpoint().datagram_came();
                match listener.try_send_to(&buffer[..n], self.source) {
                    Ok(_) => self.entry.metrics.sent.add(n as u64),
                    // Its queue is full, or it is gone: a datagram may be lost.
                    Err(_) => self.entry.metrics.udp_dropped.inc(),
                }
            }
            Ok(())
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.entry.metrics.udp_open.dec();
        if self.carriers.access_log.is_on() {
            self.carriers.access_log.write(&Line {
                client: Some(self.source),
                endpoint: Some(self.endpoint.endpoint().address),
                received: self.received.load(Relaxed),
                sent: self.sent.load(Relaxed),
                ..Line::new("udp", &self.entry, self.began.elapsed())
            });
        }
    }
}

/// Until the endpoint tells that nobody listens.
async fn take_answers(session: Arc<Shared>, listener: Arc<UdpSocket>) {
    loop {
        let ready = session.upstream.readable().await;
        if let Err(error) = ready.and_then(|()| session.answer(&listener)) {
            session.endpoint.endpoint().connect_failed();
            session.entry.metrics.connect_failures.inc();
            session.entry.metrics.ejections.inc();
            tracing::debug!(service = %session.entry.service, %error, "UDP session");
            return;
        }
    }
}
