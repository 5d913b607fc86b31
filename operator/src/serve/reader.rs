//! The keys with which this operator reads from a proxy's admin port what the proxy holds (`docs/decisions/0022`).
//!
//! Each node has its own, which follows from the CA's key: so every replica knows it and none has to be kept. A proxy is told
//! it over its config stream, where both ends have proven who they are.

use std::sync::{Arc, PoisonError, RwLock};

use ring::hmac;

use super::ca::Pair;

/// Set apart from whatever else may once follow from the CA's key.
const PURPOSE: &str = "weft: read the configuration of node ";

/// The keys of one CA; none before there is one. Cloning shares them.
#[derive(Clone, Default)]
pub struct ReaderKeys(Arc<RwLock<Option<hmac::Key>>>);

impl ReaderKeys {
    /// From now on those of `ca`.
    pub fn follow(&self, ca: &Pair) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, ca.key.as_bytes());
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }

    /// The key for the proxy of `node`.
    pub fn of(&self, node: &str) -> Option<String> {
        let key = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let tag = hmac::sign(key.as_ref()?, format!("{PURPOSE}{node}").as_bytes());
        Some(tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(of: &str) -> ReaderKeys {
        let keys = ReaderKeys::default();
        keys.follow(&Pair { certificate: String::new(), key: of.to_owned() });
        keys
    }

    #[test]
    fn replicas_agree_and_nodes_and_authorities_differ() {
        assert_eq!(ReaderKeys::default().of("node1"), None, "before there is a CA");
        let key = keys("a").of("node1").unwrap();
        assert_eq!(key.len(), 64);
        assert_eq!(keys("a").of("node1"), Some(key.clone()));
        assert_ne!(keys("a").of("node2"), Some(key.clone()));
        assert_ne!(keys("b").of("node1"), Some(key));
    }
}
