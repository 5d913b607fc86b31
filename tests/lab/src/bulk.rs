//! Bytes in bulk: a pattern in which nothing can be lost, repeated or moved unseen, its digest, and a pace to pass it on.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// A prime, so that no buffer's size divides it: a buffer lost or repeated moves all that follows.
const PERIOD: usize = 65_521;
/// The most that is passed on at once.
const PIECE: usize = 32 * 1024;

static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(1);
    // Twice, so that a piece from anywhere in the first is at hand without copying.
    let once: Vec<_> = (0..PERIOD).map(|_| random.u8(..)).collect();
    [&*once, &*once].concat()
});

/// The pattern from `offset` on: `length` bytes, or fewer when more are not to be had at once; never none.
pub(crate) fn pattern(offset: u64, length: u64) -> &'static [u8] {
    let start = usize::try_from(offset % PERIOD as u64).unwrap_or(0);
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(PIECE);
    &BLOCK[start..start + length]
}

/// The first `length` bytes of the pattern in one piece.
pub(crate) fn whole(length: usize) -> Vec<u8> {
    let mut whole = Vec::with_capacity(length);
    while whole.len() < length {
        whole.extend_from_slice(pattern(whole.len() as u64, (length - whole.len()) as u64));
    }
    whole
}

/// [`pattern`] for those who must own it.
pub(crate) fn pattern_bytes(offset: u64, length: u64) -> Bytes {
    Bytes::from_static(pattern(offset, length))
}

/// What went by: how much, and a hash of it.
pub(crate) struct Digest {
    state: Box<Xxh3>,
    bytes: u64,
}

impl Digest {
    pub(crate) fn new() -> Self {
        Self { state: Box::new(Xxh3::new()), bytes: 0 }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn hex(&self) -> String {
        format!("{:016x}", self.state.digest())
    }

    /// That of the first `bytes` of the pattern.
    pub(crate) fn of_pattern(bytes: u64) -> String {
        let mut digest = Self::new();
        while digest.bytes < bytes {
            digest.update(pattern(digest.bytes, bytes - digest.bytes));
        }
        digest.hex()
    }
}

/// Holds a flow of bytes to a rate.
pub(crate) struct Pace {
    rate: Option<u64>,
    began: Option<Instant>,
    passed: u64,
}

impl Pace {
    /// `rate` bytes a second, or as fast as it goes.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.map(|rate| rate.max(1)), began: None, passed: 0 }
    }

    /// How much to pass on at once, so that it flows rather than gushes.
    pub(crate) fn piece(&self) -> u64 {
        self.rate.map_or(PIECE as u64, |rate| (rate / 20).clamp(1, PIECE as u64))
    }

    /// Waits until `bytes` more may pass.
    pub(crate) async fn pass(&mut self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let began = *self.began.get_or_insert_with(Instant::now);
        self.passed += bytes;
        tokio::time::sleep_until(began + Duration::from_millis(self.passed.saturating_mul(1000) / rate))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(pieces: &[&[u8]]) -> String {
        let mut digest = Digest::new();
        for piece in pieces {
            digest.update(piece);
        }
        digest.hex()
    }

    #[test]
    fn the_pattern_is_the_same_in_any_pieces_and_shows_what_was_moved() {
        let whole = Digest::of_pattern(200_000);
        let mut pieces = Vec::new();
        let mut offset = 0;
        while offset < 200_000 {
            let piece = pattern(offset, (200_000 - offset).min(777));
            pieces.push(piece);
            offset += piece.len() as u64;
        }
        assert_eq!(digest_of(&pieces), whole);
        pieces.swap(3, 4);
        assert_ne!(digest_of(&pieces), whole);
        pieces.swap(3, 4);
        pieces.remove(10);
        assert_ne!(digest_of(&pieces), whole);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_kept() {
        let began = Instant::now();
        let mut pace = Pace::new(Some(1000));
        assert_eq!(pace.piece(), 50);
        for _ in 0..20 {
            pace.pass(50).await;
        }
        assert_eq!(began.elapsed().as_millis(), 1000);
        Pace::new(None).pass(1 << 40).await;
        assert_eq!(began.elapsed().as_millis(), 1000);
    }
}
