//! Chance, from a seed. Each decision has a name, and the name alone decides with the seed: in which order decisions are taken
//! has no part in it, so that a schedule stays the same where tokio does not promise an order.

use std::hash::{DefaultHasher, Hash, Hasher};

/// All chance of one schedule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The throw about `what`.
    pub(crate) fn on(self, what: impl Hash) -> Throw {
        Throw(hash_of((self.0, what)))
    }
}

/// The same on every machine with this version of Rust.
pub(crate) fn hash_of(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// One decision; it may have several parts.
#[derive(Debug, Clone)]
pub(crate) struct Throw(u64);

impl Throw {
    /// Splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    pub(crate) fn in_a_thousand(&mut self, chances: u64) -> bool {
        self.below(1000) < chances
    }

    pub(crate) fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let at = self.below(all.len() as u64);
        all.get(usize::try_from(at).unwrap_or(0))
    }
}
