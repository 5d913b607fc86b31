//! The Secret with the CA of the config stream, as every replica sees it. What it held last is remembered: a Secret that
//! somebody deleted or damaged can be made again, and nobody has to learn to trust anew.

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use super::Index;
use super::watch::broken;
use crate::serve::ca::{CA_NAME, Stored};
use crate::watches;

/// The Secret, and what it held last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ca {
    /// How it is now.
    pub now: Stored,
    /// The last whole CA that was in it.
    pub last: Option<crate::serve::ca::Pair>,
}

impl Index {
    /// The CA, as it changes.
    pub fn ca(&self) -> tokio::sync::watch::Receiver<Ca> {
        self.ca.subscribe()
    }

    /// The Secret is like this now.
    pub fn note_ca(&self, now: Stored) {
        self.ca.send_if_modified(|ca| {
            if let Stored::Whole(pair) = &now {
                ca.last = Some(pair.clone());
            }
            let changed = ca.now != now;
            ca.now = now;
            changed
        });
    }
}

/// Follows the Secret for ever.
pub(super) async fn follow(index: Index, client: Client) {
    let api: Api<Secret> = Api::namespaced(client, &index.namespace);
    let named = watcher::Config::default().fields(&format!("metadata.name={CA_NAME}"));
    take_all(&index, watches::objects(api, named)).await;
}

async fn take_all(index: &Index, events: impl Stream<Item = Result<Event<Secret>, watcher::Error>> + Send) {
    let mut events = std::pin::pin!(events);
    let mut listed = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = None,
            Ok(Event::InitApply(secret)) => listed = Some(secret),
            Ok(Event::InitDone) => index.note_ca(Stored::of(listed.take().as_ref())),
            Ok(Event::Apply(secret)) => index.note_ca(Stored::of(Some(&secret))),
            Ok(Event::Delete(_)) => index.note_ca(Stored::Absent),
            Err(error) => broken("Secret", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::serve::ca::{self, Pair};

    fn secret(pair: Option<&Pair>) -> Secret {
        let mut secret: Secret =
            serde_json::from_value(json!({"metadata": {"name": CA_NAME, "resourceVersion": "7"}})).unwrap();
        secret.data = pair.map(ca::data);
        secret
    }

    #[tokio::test]
    async fn what_was_in_it_is_remembered_when_it_goes() {
        let (index, pair) = (Index::new("weft-system"), ca::make().unwrap());
        let mut ca = index.ca();
        assert_eq!(ca.borrow_and_update().now, Stored::Unread);
        let take = async |events: Vec<Event<Secret>>| {
            take_all(&index, futures::stream::iter(events.into_iter().map(Ok))).await;
        };
        take(vec![Event::Init, Event::InitApply(secret(None)), Event::InitDone]).await;
        assert_eq!(ca.borrow_and_update().now, Stored::Empty { version: Some("7".into()) });
        take(vec![Event::Apply(secret(Some(&pair)))]).await;
        assert_eq!(ca.borrow_and_update().now, Stored::Whole(pair.clone()));
        take(vec![Event::Delete(secret(Some(&pair)))]).await;
        assert_eq!(*ca.borrow_and_update(), Ca { now: Stored::Absent, last: Some(pair.clone()) });
        take(vec![Event::Init, Event::InitDone]).await;
        assert!(!ca.has_changed().unwrap(), "it is still not there");

        let other = ca::make().unwrap();
        let damaged = Pair { key: other.key, ..pair.clone() };
        take(vec![Event::Apply(secret(Some(&damaged)))]).await;
        let now = ca.borrow_and_update().clone();
        assert_eq!(now, Ca { now: Stored::Damaged { version: Some("7".into()) }, last: Some(pair) });
    }
}
