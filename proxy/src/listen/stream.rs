//! A client's connection as HTTP sessions read and write it: no read buffer, and a write buffer only while it holds
//! something, so that a connection that rests costs next to nothing. What is spoken on it is decided elsewhere.
//!
//! Pingora's own stream has a read buffer of 64 KiB for each connection.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// What is written in pieces up to this is sent in one go: the header of an answer and a small body.
const TOGETHER: usize = 1460;
/// The first bytes of h2 with prior knowledge. No HTTP/1 method begins with them, and even the shortest HTTP/1 request is
/// longer: waiting for more than these could wait for ever.
const H2_BEGINS: &[u8; 3] = b"PRI";
/// What is read at once of a new connection: the header of most requests.
const FIRST: usize = 2048;
/// Pieces of one write that are handed to the kernel at once, besides what was kept.
const PIECES: usize = 16;

/// A client's connection.
#[derive(Debug)]
pub(super) struct ClientStream {
    socket: TcpStream,
    digest: Arc<SocketDigest>,
    /// What came first and was not read yet.
    first: Vec<u8>,
    /// Written and not yet sent.
    kept: Vec<u8>,
}

impl ClientStream {
    /// For the connection `socket` of `client`.
    pub(super) fn new(socket: TcpStream, client: SocketAddr) -> Self {
        let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
        // It is new: nothing is in it yet.
        let _ = digest.peer_addr.set(Some(client.into()));
        Self { socket, digest: Arc::new(digest), first: Vec::new(), kept: Vec::new() }
    }

    /// Whether it begins with h2. Returns when that is clear; nothing is lost of what it begins with. To be asked first.
    pub(super) async fn begins_with_h2(&mut self) -> io::Result<bool> {
        self.first.reserve_exact(FIRST);
        loop {
            if self.socket.read_buf(&mut self.first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let n = self.first.len().min(H2_BEGINS.len());
            if self.first[..n] != H2_BEGINS[..n] || n == H2_BEGINS.len() {
                return Ok(self.first.starts_with(H2_BEGINS));
            }
        }
    }

    /// Returns when there is something to read, the end included.
    pub(super) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.socket.poll_read_ready(cx)).await
    }

    /// Sends what was kept.
    fn poll_send_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.kept.capacity() == 0 {
            return Poll::Ready(Ok(()));
        }
        while !self.kept.is_empty() {
            let n = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.kept))?;
            self.sent(n)?;
        }
        // Not kept for the next answer, which may be a long time off.
        self.kept = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Takes the first `n` of the kept bytes away.
    fn sent(&mut self, n: usize) -> io::Result<()> {
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.kept.drain(..n.min(self.kept.len()));
        Ok(())
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Whoever looks for what the client says has nothing more to write for now. Without this the header of an answer
        // whose body takes its time would wait for the body.
        if let Poll::Ready(sent) = self.poll_send_kept(cx) {
            sent?;
        }
        if !self.first.is_empty() {
            let n = buffer.remaining().min(self.first.len());
            buffer.put_slice(&self.first[..n]);
            self.first.drain(..n);
            if self.first.is_empty() {
                self.first = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if this.kept.len() + length <= TOGETHER {
            if this.kept.capacity() == 0 {
                this.kept.reserve_exact(TOGETHER);
            }
            for piece in pieces {
                this.kept.extend_from_slice(piece);
            }
            return Poll::Ready(Ok(length));
        }
        loop {
            if this.kept.is_empty() {
                return Pin::new(&mut this.socket).poll_write_vectored(cx, pieces);
            }
            let mut all = [IoSlice::new(&[]); PIECES + 1];
            all[0] = IoSlice::new(&this.kept);
            let given = pieces.len().min(PIECES);
            all[1..=given].copy_from_slice(&pieces[..given]);
            let kept = this.kept.len();
            let n = ready!(Pin::new(&mut this.socket).poll_write_vectored(cx, &all[..=given]))?;
            this.sent(n)?;
            if n > kept {
                return Poll::Ready(Ok(n - kept));
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send_kept(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_kept(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        // It may be gone already.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        self.socket.as_raw_fd()
    }
}

impl Ssl for ClientStream {}

impl Peek for ClientStream {}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn pair() -> (ClientStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, from) = listener.accept().await.unwrap();
        (ClientStream::new(socket, from), client)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn small_pieces_are_kept_until_flushed() {
        let (mut stream, mut client) = pair().await;
        stream.write_all(b"header ").await.unwrap();
        stream.write_all(b"body").await.unwrap();
        assert_eq!(client.try_read(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.flush().await.unwrap();
        let mut got = [0; 11];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"header body");
        assert_eq!(stream.kept.capacity(), 0, "it rests now");
    }

    #[tokio::test]
    async fn nothing_is_kept_from_a_client_that_is_waited_for() {
        let (mut stream, mut client) = pair().await;
        stream.write_all(b"header").await.unwrap();
        let reading = tokio::spawn(async move {
            stream.read_u8().await.unwrap();
        });
        client.read_exact(&mut [0; 6]).await.unwrap();
        client.write_all(b"x").await.unwrap();
        reading.await.unwrap();
    }

    /// Every mixture of sizes arrives whole and in order, also when the kernel takes only parts.
    #[tokio::test]
    async fn whatever_is_written_arrives_in_order() {
        let (mut stream, mut client) = pair().await;
        socket2::SockRef::from(&client).set_recv_buffer_size(64 * 1024).unwrap();
        let sizes = [1, 1459, 2, 1460, 1461, 5, 700, 700, 700, 1_000_000, 9, 64 * 1024, 0, 1];
        let whole = pattern(sizes.iter().sum());
        let expected = whole.clone();
        let writing = tokio::spawn(async move {
            let mut rest = &*whole;
            for size in sizes {
                let (now, later) = rest.split_at(size);
                stream.write_all(now).await.unwrap();
                rest = later;
            }
            let pieces: Vec<_> = expected[..40_000].chunks(1000).map(IoSlice::new).collect();
            let mut pieces = &mut pieces.clone()[..];
            while !pieces.is_empty() {
                let n = stream.write_vectored(pieces).await.unwrap();
                IoSlice::advance_slices(&mut pieces, n);
            }
            Shutdown::shutdown(&mut stream).await;
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        writing.await.unwrap();
        let expected = pattern(sizes.iter().sum());
        assert!(got == [&*expected, &expected[..40_000]].concat(), "{} bytes came", got.len());
    }

    #[tokio::test]
    async fn h2_is_told_from_http1_and_nothing_is_lost() {
        let says = async |pieces: &[&[u8]]| {
            let (mut stream, mut client) = pair().await;
            let pieces: Vec<_> = pieces.iter().map(|piece| piece.to_vec()).collect();
            let whole = pieces.concat();
            let writing = tokio::spawn(async move {
                client.set_nodelay(true).unwrap();
                for piece in pieces {
                    client.write_all(&piece).await.unwrap();
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            });
            let said = stream.begins_with_h2().await;
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.unwrap();
            assert_eq!((read, stream.first.capacity()), (whole, 0));
            writing.await.unwrap();
            said.ok()
        };
        assert_eq!(says(&[b"PRI * HTTP/2.0\r\n", b"more"]).await, Some(true));
        assert_eq!(says(&[b"P", b"R", b"I"]).await, Some(true));
        assert_eq!(says(&[b"G", b"ET"]).await, Some(false));
        assert_eq!(says(&[b"PR", b"OPFIND / HTTP/1.1"]).await, Some(false));
        assert_eq!(says(&[b"PATCH /", &[b'x'; 10_000]]).await, Some(false));
        let (mut stream, _) = pair().await;
        assert!(stream.begins_with_h2().await.is_err(), "it said nothing");
    }
}
