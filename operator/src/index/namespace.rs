//! Our namespace: whether it is being deleted. Kubernetes waits five seconds before it deletes what lies within, our rights
//! among it, so that this is the time in which something can still be done.

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;

use super::Index;
use super::watch::broken;
use crate::watches;

impl Index {
    /// Whether our namespace is being deleted, as it changes.
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// Whether our namespace is being deleted.
    pub fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }
}

/// Follows our namespace for ever.
pub(super) async fn follow(index: Index, client: Client) {
    let named = watcher::Config::default().fields(&format!("metadata.name={}", index.namespace));
    take_all(&index, watches::objects(Api::<Namespace>::all(client), named)).await;
}

async fn take_all(
    index: &Index,
    events: impl Stream<Item = Result<Event<Namespace>, watcher::Error>> + Send,
) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(namespace) | Event::Apply(namespace)) => {
                let ending = namespace.metadata.deletion_timestamp.is_some();
                index.ending.send_if_modified(|now| std::mem::replace(now, ending) != ending);
            }
            // What follows it has another life.
            Ok(Event::Init | Event::InitDone | Event::Delete(_)) => {}
            Err(error) => broken("Namespace", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn it_ends_when_its_deletion_begins() {
        let index = Index::new("weft-system");
        let namespace = |deleted: Option<&str>| -> Namespace {
            let metadata = json!({"name": "weft-system", "deletionTimestamp": deleted});
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let take = async |event| take_all(&index, futures::stream::iter([Ok(event)])).await;
        take(Event::InitApply(namespace(None))).await;
        assert!(!index.is_ending());
        take(Event::Apply(namespace(Some("2026-01-01T00:00:00Z")))).await;
        assert!(index.is_ending());
    }
}
