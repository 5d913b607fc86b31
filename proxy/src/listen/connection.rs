//! One accepted connection, from its first bytes to its end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pingora::apps::{HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::Carriers;
use super::stream::ClientStream;
use super::workers::Busy;
use crate::balance::{now_ms, now_ms_and};
use crate::http::Engine;
use crate::tables::PortTraffic;
use crate::tcp;

/// How long a client may take to send its first bytes.
const FIRST_BYTES: Duration = Duration::from_secs(60);
/// How long the whole header of a request may take, from its first byte on.
const HEADER: Duration = Duration::from_secs(20);
/// How often that is looked at: one timer for each connection, none for each request.
const LOOK: Duration = Duration::from_secs(5);
/// How long an h2 connection that came during a drain is used before it is told to leave.
const LATE_GOAWAY: Duration = Duration::from_millis(500);
/// How long an idle HTTP/1.1 connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// By when the header that is being read must be there, in [`crate::balance::now_ms`]; 0: none is.
    static HEADER_DUE: Arc<AtomicU64>;
}

/// The request's header is there. Without effect where no deadline was set, as on h2 streams.
pub fn header_arrived() {
    let _ = HEADER_DUE.try_with(|due| due.store(0, Relaxed));
}

fn header_due_in(wait: Duration) {
    let at = now_ms_and(wait);
    let _ = HEADER_DUE.try_with(|due| due.store(at, Relaxed));
}

/// Returns when a header is overdue.
async fn header_overdue(due: &AtomicU64) {
    loop {
        tokio::time::sleep(LOOK).await;
        let due = due.load(Relaxed);
        if due != 0 && now_ms() > due {
            return;
        }
    }
}

/// The open connections of one listener.
#[derive(Debug)]
pub struct Connections {
    count: AtomicUsize,
    /// Of all listeners together.
    total: Arc<AtomicUsize>,
    gauge: Gauge,
    /// `true`: answers say `Connection: close`, h2 gets GOAWAY. Made with the first HTTP connection, or with the order: of
    /// thousands of ports a node talks to few.
    leave: OnceLock<watch::Sender<bool>>,
    /// Dropped where they are.
    cut: Signal,
}

/// Is given once. A tenth of the size of a channel: every listener has one.
#[derive(Debug, Default)]
struct Signal {
    given: AtomicBool,
    waiting: Notify,
}

impl Signal {
    fn give(&self) {
        self.given.store(true, SeqCst);
        self.waiting.notify_waiters();
    }

    /// Returns when it is given, or was.
    async fn given(&self) {
        let mut notified = std::pin::pin!(self.waiting.notified());
        // In this order, so that one that is given meanwhile is not missed.
        notified.as_mut().enable();
        if !self.given.load(SeqCst) {
            notified.await;
        }
    }
}

impl Connections {
    pub(super) fn new(total: Arc<AtomicUsize>, gauge: Gauge) -> Self {
        let (leave, cut) = Default::default();
        Self { count: AtomicUsize::new(0), total, gauge, leave, cut }
    }

    /// Tells every client to leave with its next answer.
    pub fn tell_to_leave(&self) {
        self.leaving().send_replace(true);
    }

    fn leaving(&self) -> &watch::Sender<bool> {
        self.leave.get_or_init(|| watch::Sender::new(false))
    }

    /// Drops every connection.
    pub fn cut(&self) {
        self.cut.give();
    }

    /// Returns when they are dropped where they are.
    pub(super) async fn until_cut(&self) {
        self.cut.given().await;
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.count.load(SeqCst)
    }
}

/// Counts a connection until dropped.
pub(super) struct Open(Arc<Connections>);

impl Open {
    pub(super) fn new(connections: &Arc<Connections>) -> Self {
        connections.count.fetch_add(1, SeqCst);
        connections.total.fetch_add(1, SeqCst);
        connections.gauge.inc();
        Self(Arc::clone(connections))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, SeqCst);
        self.0.total.fetch_sub(1, SeqCst);
        self.0.gauge.dec();
    }
}

/// Carries the connection `socket` of `client`, which came to `port`, until its end. To be run by the worker that is `busy`
/// with it.
pub(super) async fn serve(
    socket: TcpStream,
    client: SocketAddr,
    port: u16,
    busy: Busy,
    carriers: Arc<Carriers>,
    open: Open,
) {
    let connections = &open.0;
    let entry = carriers.tables.port(port).clone().filter(|entry| matches!(entry.traffic, PortTraffic::Tcp));
    // In a box of its own: what waits for the end is as large as the larger of the two.
    let carried: Pin<Box<dyn Future<Output = ()> + Send>> = if let Some(entry) = entry {
        Box::pin(async move { tcp::carry(socket, client, &entry, &carriers).await })
    } else {
        // When there is no Service behind the port any more, or not yet, each request is told so.
        let http = Http { engine: Arc::clone(&busy.0.engine), leave: connections.leaving().subscribe() };
        Box::pin(async move {
            let _ = http.serve(socket, client).await;
        })
    };
    tokio::select! {
        // Also before it is looked at for the first time: by now the port may be another Service's.
        biased;
        () = connections.until_cut() => {}
        () = carried => {}
    }
}

/// One HTTP connection.
struct Http {
    engine: Arc<Engine>,
    /// Instead of pingora's own shutdown: that one drops idle connections under a request that is on its way, while this
    /// one lets it in and says `Connection: close` with the answer.
    leave: ShutdownWatch,
}

impl Http {
    async fn serve(self, socket: TcpStream, client: SocketAddr) -> io::Result<()> {
        let mut stream = ClientStream::new(socket, client);
        if timeout(FIRST_BYTES, stream.begins_with_h2()).await?? {
            self.serve_h2(Box::new(stream)).await;
            return Ok(());
        }
        let due = Arc::new(AtomicU64::new(0));
        tokio::select! {
            ended = HEADER_DUE.scope(Arc::clone(&due), self.serve_h1(Box::new(stream))) => ended,
            () = header_overdue(&due) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn serve_h1(&self, stream: Stream) -> io::Result<()> {
        header_due_in(HEADER);
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(KEEP_ALIVE.as_secs()));
        let mut next = self.engine.process_new_http(session, &self.leave).await;
        while let Some((stream, settings)) = next.map(ReusedHttpStream::consume) {
            header_due_in(KEEP_ALIVE);
            // All that a request needs is made only when the request is there.
            if let Some(stream) = stream.as_any().downcast_ref::<ClientStream>() {
                stream.readable().await?;
            }
            header_due_in(HEADER);
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            next = self.engine.process_new_http(session, &self.leave).await;
        }
        Ok(())
    }

    /// The engine sends GOAWAY when `leave` changes. On a connection that came after that, GOAWAY waits a moment: sent at once
    /// it would meet the request the connection was made for, and the client would have to begin again.
    async fn serve_h2(&self, stream: Stream) {
        if !*self.leave.borrow() {
            self.engine.process_new(stream, &self.leave).await;
            return;
        }
        let (tell, told) = watch::channel(false);
        let goaway = async {
            tokio::time::sleep(LATE_GOAWAY).await;
            tell.send_replace(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = self.engine.process_new(stream, &told) => {}
            () = goaway => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_reaches_those_who_wait_and_those_who_come_later() {
        let signal = Signal::default();
        let mut waiting = Box::pin(signal.given());
        assert!(pending(&mut waiting).await);
        signal.give();
        waiting.await;
        signal.given().await;
    }

    /// Whether `future` is not done at its first poll.
    async fn pending<F: Future<Output = ()> + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(Pin::new(&mut *future).poll(cx).is_pending())).await
    }
}
