//! Bodies of both directions: bulk at a pace, with trailers, broken off on demand; and how they are read.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::HeaderMap;
use hyper::body::Frame;

use crate::bulk::{Digest, Pace, pattern_bytes};

/// The body of any request and answer of ours.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// So much of a body that is read is kept; of the rest only how much it was, and its digest.
const KEPT: usize = 256 * 1024;

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body made of the pattern.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bulk {
    pub(crate) size: u64,
    /// Bytes a second.
    pub(crate) rate: Option<u64>,
    pub(crate) trailers: Option<HeaderMap>,
    /// After so many bytes it fails, and with it its connection.
    pub(crate) cut: Option<u64>,
}

/// Time for what was written to be flushed.
const FLUSH: Duration = Duration::from_millis(50);

enum Step {
    Data { sent: u64, pace: Pace },
    End,
}

/// `bulk`, beginning when `go` completes.
pub(crate) fn stream(bulk: Bulk, go: impl Future<Output = ()> + Send + 'static) -> Body {
    let first = Step::Data { sent: 0, pace: Pace::new(bulk.rate) };
    let frames = stream::unfold((first, bulk, Some(Box::pin(go))), |(step, bulk, go)| async move {
        if let Some(go) = go {
            go.await;
        }
        let (frame, next) = match step {
            Step::Data { sent, .. } if bulk.cut.is_some_and(|cut| sent >= cut) => {
                // What was sent leaves first: it would be thrown away with the connection.
                tokio::time::sleep(FLUSH).await;
                (Err(io::Error::other("broken off, as asked")), Step::End)
            }
            Step::Data { sent, mut pace } if sent < bulk.size => {
                let end = bulk.cut.unwrap_or(bulk.size).min(bulk.size);
                let piece = pattern_bytes(sent, (end - sent).min(pace.piece()));
                pace.pass(piece.len() as u64).await;
                let sent = sent + piece.len() as u64;
                (Ok(Frame::data(piece)), Step::Data { sent, pace })
            }
            Step::Data { .. } => (Ok(Frame::trailers(bulk.trailers.clone()?)), Step::End),
            Step::End => return None,
        };
        Some((frame, (next, bulk, None)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A body that was read.
#[derive(Debug)]
pub(crate) struct Received {
    /// Its beginning: all of it, unless it is long.
    pub(crate) kept: Bytes,
    pub(crate) bytes: u64,
    pub(crate) digest: String,
    pub(crate) trailers: HeaderMap,
    /// Why there is no more of it, when it broke off.
    pub(crate) broken: Option<String>,
}

impl Received {
    /// An empty body, or one that nobody read.
    pub(crate) fn nothing() -> Self {
        let (kept, trailers) = Default::default();
        Self { kept, bytes: 0, digest: Digest::new().hex(), trailers, broken: None }
    }
}

/// Reads `body` to its end, `rate` bytes a second.
pub(crate) async fn read<B>(mut body: B, rate: Option<u64>) -> Received
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
{
    let (mut kept, mut digest, mut pace) = (Vec::new(), Digest::new(), Pace::new(rate));
    let (mut trailers, mut broken) = (HeaderMap::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                digest.update(&data);
                kept.extend_from_slice(&data[..data.len().min(KEPT - kept.len())]);
                pace.pass(data.len() as u64).await;
            }
            Ok(Err(other)) => trailers.extend(other.into_trailers().unwrap_or_default()),
            Err(error) => {
                broken = Some(super::explain("body", &error).to_string());
                break;
            }
        }
    }
    Received { kept: kept.into(), bytes: digest.bytes(), digest: digest.hex(), trailers, broken }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bulk_body_has_its_size_and_its_trailers_and_breaks_where_told() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "yes".parse().unwrap());
        let bulk = Bulk { size: 1_000_000, trailers: Some(trailers), ..Bulk::default() };
        let body = stream(bulk.clone(), async {});
        let received = read(body, None).await;
        assert_eq!((received.bytes, received.broken), (1_000_000, None));
        assert_eq!(received.digest, Digest::of_pattern(1_000_000));
        assert_eq!(received.trailers["x-end"], "yes");

        let body = stream(Bulk { cut: Some(10), ..bulk }, async {});
        let received = read(body, None).await;
        assert_eq!(received.bytes, 10);
        assert!(received.broken.unwrap().contains("as asked"));
    }
}
