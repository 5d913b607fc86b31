//! Moving bytes both ways between two TCP connections.
//!
//! Each direction begins with plain copies through a buffer that belongs to the thread, not to the connection: what the
//! receiver does not take at once is kept aside, and nothing more is read until it is gone. A direction that keeps filling
//! the buffer is bulk and goes on with splice(2); when it turns quiet it comes back.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::splice::Pipe;
use crate::metrics::{Count, PortMetrics};

/// The shared buffer: large enough that a full one tells of bulk, small enough for a core's cache.
const BUFFER: usize = 32 * 1024;
/// Full buffers one after the other after which a direction is bulk.
const FULL_UNTIL_BULK: u32 = 4;
/// What a direction may move in one go before others get their turn.
const TURN: usize = 4 << 20;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// Bytes a connection carried.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ended {
    /// From the client.
    pub(super) received: u64,
    /// To the client.
    pub(super) sent: u64,
}

/// Moves bytes both ways until both directions have ended. An error ends both; so does silence of both for `idle`.
pub(super) async fn both_ways(
    client: &mut TcpStream,
    endpoint: &mut TcpStream,
    idle: Option<Duration>,
    metrics: &PortMetrics,
) -> io::Result<Ended> {
    let (from_client, to_client) = client.split();
    let (from_endpoint, to_endpoint) = endpoint.split();
    let mut up = Direction::new(from_client, to_endpoint, &metrics.received);
    let mut down = Direction::new(from_endpoint, to_client, &metrics.sent);
    let mut silence = idle.map(Silence::new);
    poll_fn(|cx| {
        let (done_up, done_down) = (up.poll(cx)?.is_ready(), down.poll(cx)?.is_ready());
        if done_up && done_down {
            return Poll::Ready(Ok(()));
        }
        match &mut silence {
            Some(silence) => silence.poll(cx, up.moved + down.moved),
            None => Poll::Pending,
        }
    })
    .await?;
    Ok(Ended { received: up.moved, sent: down.moved })
}

/// Notices that nothing was moved for too long.
struct Silence {
    idle: Duration,
    moved: u64,
    since: Instant,
    look: Pin<Box<tokio::time::Sleep>>,
}

impl Silence {
    fn new(idle: Duration) -> Self {
        Self { idle, moved: 0, since: Instant::now(), look: Box::pin(tokio::time::sleep(idle)) }
    }

    /// Ready, with an error, when it has been silent for too long.
    fn poll(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<io::Result<()>> {
        if moved != self.moved {
            (self.moved, self.since) = (moved, Instant::now());
        }
        while self.look.as_mut().poll(cx).is_ready() {
            let until = self.since + self.idle;
            if until <= Instant::now() {
                let why = "both sides were silent for too long";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            self.look.as_mut().reset(until);
        }
        Poll::Pending
    }
}

/// One direction: from one connection to the other.
struct Direction<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    /// Read and not yet written.
    kept: Vec<u8>,
    written: usize,
    /// Full buffers one after the other.
    full: u32,
    pipe: Option<Pipe>,
    state: State,
    moved: u64,
    count: &'a Count,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The sender is done; the receiver is to be told.
    Ending,
    Ended,
}

impl<'a> Direction<'a> {
    fn new(from: ReadHalf<'a>, to: WriteHalf<'a>, count: &'a Count) -> Self {
        Self {
            from,
            to,
            kept: Vec::new(),
            written: 0,
            full: 0,
            pipe: None,
            state: State::Open,
            moved: 0,
            count,
        }
    }

    /// Moves what can be moved. Ready when the direction has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut turn = 0;
        loop {
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut self.to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Open => {
                    ready!(self.flush(cx))?;
                    if turn >= TURN {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    let n = match self.pipe {
                        Some(_) => ready!(self.splice(cx))?,
                        None => ready!(self.copy(cx))?,
                    };
                    turn += n;
                }
            }
        }
    }

    fn moved(&mut self, n: usize) {
        self.moved += n as u64;
        self.count.add(n as u64);
    }

    /// Writes what was kept.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.kept.len() {
            let n = ready!(Pin::new(&mut self.to).poll_write(cx, &self.kept[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.moved(n);
        }
        if !self.kept.is_empty() {
            // Given back: the next time may be long after.
            (self.kept, self.written) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once into the thread's buffer and writes what the receiver takes; the rest is kept.
    fn copy(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SHARED.with_borrow_mut(|shared| {
            let mut buffer = ReadBuf::new(shared);
            ready!(Pin::new(&mut self.from).poll_read(cx, &mut buffer))?;
            let bytes = buffer.filled();
            let read = bytes.len();
            if read == 0 {
                self.state = State::Ending;
                return Poll::Ready(Ok(0));
            }
            self.full = if read == BUFFER { self.full + 1 } else { 0 };
            if self.full >= FULL_UNTIL_BULK {
                // Without a pipe, which the system may refuse, it stays as it is.
                self.pipe = Pipe::new().ok();
                self.full = 0;
            }
            let mut written = 0;
            while written < read {
                match Pin::new(&mut self.to).poll_write(cx, &bytes[written..])? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(n) => written += n,
                    Poll::Pending => break,
                }
            }
            if written < read {
                self.kept = bytes[written..].to_vec();
            }
            self.moved(written);
            Poll::Ready(Ok(read))
        })
    }

    /// Fills the pipe once and empties it as far as the receiver takes it.
    fn splice(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (from, to) = (self.from.as_ref(), self.to.as_ref());
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(0)) };
        if pipe.is_empty() && ready!(pipe.poll_fill(cx, from))? == 0 {
            self.state = State::Ending;
            return Poll::Ready(Ok(0));
        }
        let n = ready!(pipe.poll_drain(cx, to))?;
        if pipe.is_empty() && pipe.is_quiet() {
            self.pipe = None;
        }
        self.moved(n);
        Poll::Ready(Ok(n))
    }
}
