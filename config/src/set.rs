//! A set of resources with a digest, and how an update changes it.
//!
//! Operator and proxy each keep one. Every resource has a hash over its encoded form; the digest is the wrapping
//! sum of all hashes, so one change costs one hash whatever the size of the set.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use crate::model::{Resource, ResourceKey};
use crate::wire;

/// A resource with its hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// xxh3-64 over the operator's protobuf encoding of the resource, its name included. The schema has no maps, so
    /// prost encodes equal resources to equal bytes.
    pub hash: u64,
    /// The resource.
    pub resource: Arc<Resource>,
}

impl Entry {
    /// Hashes `resource`. The operator's way; a proxy takes the hash it was sent.
    pub fn new(resource: Resource) -> Self {
        let hash = xxh3_64(&wire::encode(&resource).encode_to_vec());
        Self { hash, resource: Arc::new(resource) }
    }
}

/// A change, as the proxy applies it: all of it or, resource by resource, what can be applied.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// New or changed resources.
    pub upserts: Vec<Entry>,
    /// Resources that are gone.
    pub removals: Vec<ResourceKey>,
}

impl Update {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }
}

/// All resources of a mesh (operator) or all a proxy holds (proxy).
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    entries: BTreeMap<ResourceKey, Entry>,
    digest: u64,
}

impl ResourceSet {
    /// Inserts or replaces. Returns whether anything changed.
    pub fn insert(&mut self, entry: Entry) -> bool {
        let key = entry.resource.key();
        let old = self.entries.get(&key).map(|entry| entry.hash);
        if old == Some(entry.hash) {
            return false;
        }
        self.digest = self.digest.wrapping_sub(old.unwrap_or(0)).wrapping_add(entry.hash);
        self.entries.insert(key, entry);
        true
    }

    /// Removes. Returns whether it was there.
    pub fn remove(&mut self, key: &ResourceKey) -> bool {
        let Some(entry) = self.entries.remove(key) else { return false };
        self.digest = self.digest.wrapping_sub(entry.hash);
        true
    }

    /// Applies an update, removals first.
    pub fn apply(&mut self, update: &Update) {
        for key in &update.removals {
            self.remove(key);
        }
        for entry in &update.upserts {
            self.insert(entry.clone());
        }
    }

    /// The resource stored under `key`.
    pub fn get(&self, key: &ResourceKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All resources, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Keys and hashes of all resources: what a proxy says it holds.
    pub fn hashes(&self) -> impl Iterator<Item = (&ResourceKey, u64)> {
        self.entries.iter().map(|(key, entry)| (key, entry.hash))
    }

    /// The number of resources.
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

    /// What a peer that holds `held` (keys and hashes) lacks, to hold this set.
    pub fn missing_from(&self, held: &BTreeMap<ResourceKey, u64>) -> Update {
        let upserts = self
            .entries
            .iter()
            .filter(|(key, entry)| held.get(key) != Some(&entry.hash))
            .map(|(_, entry)| entry.clone())
            .collect();
        let removals = held.keys().filter(|key| !self.entries.contains_key(key)).cloned().collect();
        Update { upserts, removals }
    }
}

impl FromIterator<Entry> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut set = Self::default();
        for entry in entries {
            set.insert(entry);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Endpoints, EndpointsId, ServiceId};

    fn resource(name: u8, ready: u8) -> Entry {
        let service = ServiceId::new("ns", format!("s{name}"));
        let ready = (0..ready).map(|i| ([10, 0, 0, i], 80).into()).collect();
        let id = EndpointsId { service, port: 80 };
        Entry::new(Resource::Endpoints(id, Endpoints { ready, ..Endpoints::default() }))
    }

    fn sets() -> impl Strategy<Value = ResourceSet> {
        prop::collection::vec((0..20u8, 0..4u8), 0..30)
            .prop_map(|list| list.into_iter().map(|(name, ready)| resource(name, ready)).collect())
    }

    proptest! {
        /// Whatever a peer holds, the difference brings it to the same set and the same digest.
        #[test]
        fn the_difference_completes(ours in sets(), theirs in sets()) {
            let held = theirs.hashes().map(|(key, hash)| (key.clone(), hash)).collect();
            let update = ours.missing_from(&held);
            let mut theirs = theirs;
            theirs.apply(&update);
            prop_assert_eq!(theirs.digest(), ours.digest());
            prop_assert!(theirs.hashes().eq(ours.hashes()));
        }

        /// The digest depends on what is in the set, not on how it came there.
        #[test]
        fn the_digest_has_no_history(set in sets(), name in 0..20u8, ready in 0..4u8) {
            let mut changed = set.clone();
            let before = changed.get(&resource(name, 0).resource.key()).cloned();
            changed.insert(resource(name, ready));
            match before {
                Some(entry) => changed.insert(entry),
                None => changed.remove(&resource(name, ready).resource.key()),
            };
            prop_assert_eq!(changed.digest(), set.digest());
        }
    }

    #[test]
    fn inserting_the_same_again_changes_nothing() {
        let mut set = ResourceSet::default();
        assert!(set.insert(resource(1, 1)));
        assert!(!set.insert(resource(1, 1)));
        assert!(set.insert(resource(1, 2)));
        assert_eq!(set.len(), 1);
    }
}
