//! splice(2): bytes go from socket to socket through a pipe and never leave the kernel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What the pipe may hold; the system gives less to a user who has many.
const SIZE: usize = 1 << 20;
/// A filling of less than this is not bulk.
const LITTLE: usize = 16 * 1024;
/// Little fillings one after the other after which the direction is quiet.
const QUIET: u32 = 16;

/// A pipe and how much is in it.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    little: u32,
}

impl Pipe {
    /// An empty pipe.
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // It works as well with less.
        let _ = fcntl_setpipe_size(&write, SIZE);
        Ok(Self { read, write, held: 0, little: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Whether what goes through it is not worth a pipe.
    pub(super) fn is_quiet(&self) -> bool {
        self.little >= QUIET
    }

    /// Takes what `from` has; 0: `from` has ended. For an empty pipe: a full one could not be told from an empty socket.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || step(from, &self.write, SIZE)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(n) => {
                    self.held = n;
                    self.little = if n < LITTLE { self.little + 1 } else { 0 };
                    return Poll::Ready(Ok(n));
                }
            }
        }
    }

    /// Gives `to` what it takes. For a pipe that holds something: an empty one could not be told from a full socket.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || step(&self.read, to, self.held)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.held -= n;
                    return Poll::Ready(Ok(n));
                }
            }
        }
    }
}

fn step(from: impl AsFd, to: impl AsFd, length: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        match splice(&from, None, &to, None, length, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
