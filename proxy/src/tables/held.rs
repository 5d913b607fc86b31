//! What this proxy holds, encoded as it was sent: a fifth of what the decoded form takes, and what the snapshot is made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use weft_config::{Entry, ResourceKey, wire};

/// Shared by the task that applies updates, which alone changes it, and those who read.
pub type Shared = Arc<Mutex<Held>>;

/// All resources held.
#[derive(Debug, Default)]
pub struct Held {
    entries: BTreeMap<ResourceKey, Encoded>,
    digest: u64,
}

#[derive(Debug)]
struct Encoded {
    hash: u64,
    /// By [`wire::to_bytes`].
    bytes: Arc<[u8]>,
}

impl Held {
    /// Inserts or replaces.
    pub fn insert(&mut self, entry: &Entry) {
        let bytes = wire::to_bytes(entry).into();
        let before = self.entries.insert(entry.resource.key(), Encoded { hash: entry.hash, bytes });
        let before = before.map_or(0, |before| before.hash);
        self.digest = self.digest.wrapping_sub(before).wrapping_add(entry.hash);
    }

    /// Removes.
    pub fn remove(&mut self, key: &ResourceKey) {
        if let Some(before) = self.entries.remove(key) {
            self.digest = self.digest.wrapping_sub(before.hash);
        }
    }

    /// The resource `key`.
    pub fn get(&self, key: &ResourceKey) -> Option<Entry> {
        wire::from_bytes(&self.entries.get(key)?.bytes)
    }

    /// Those whose keys are as `wanted`, in the order of their keys.
    pub fn filtered(&self, wanted: impl Fn(&ResourceKey) -> bool) -> impl Iterator<Item = Entry> {
        let wanted = self.entries.iter().filter(move |(key, _)| wanted(key));
        wanted.filter_map(|(_, encoded)| wire::from_bytes(&encoded.bytes))
    }

    /// All in their encoded form.
    pub fn encoded(&self) -> Vec<Arc<[u8]>> {
        self.entries.values().map(|encoded| Arc::clone(&encoded.bytes)).collect()
    }

    /// Keys and hashes of all.
    pub fn hashes(&self) -> impl Iterator<Item = (&ResourceKey, u64)> {
        self.entries.iter().map(|(key, encoded)| (key, encoded.hash))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Digest of the whole set; zero when it is empty.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

#[cfg(test)]
mod tests {
    use weft_config::{Endpoints, EndpointsId, Resource, ResourceSet, ServiceId};

    use super::*;

    #[test]
    fn it_holds_what_the_operator_s_set_holds() {
        let entry = |name: &str, ready: u8| {
            let id = EndpointsId { service: ServiceId::new("shop", name), port: 80 };
            let ready = (0..ready).map(|i| ([10, 0, 0, i], 80).into()).collect();
            Entry::new(Resource::Endpoints(id, Endpoints { ready, ..Endpoints::default() }))
        };
        let (mut held, mut set) = (Held::default(), ResourceSet::default());
        for one in [entry("a", 1), entry("b", 2), entry("a", 3), entry("c", 0)] {
            held.insert(&one);
            set.insert(one);
        }
        let gone = entry("c", 0).resource.key();
        held.remove(&gone);
        held.remove(&gone);
        set.remove(&gone);
        assert_eq!((held.digest(), held.len()), (set.digest(), set.len()));
        assert!(held.hashes().eq(set.hashes()));
        assert!(held.filtered(|_| true).eq(set.iter().cloned()));
        assert_eq!(held.get(&entry("a", 0).resource.key()), Some(entry("a", 3)));
    }
}
