//! What watches show of single objects, so that whoever keeps them need not ask for them each time. An object that nobody
//! follows is not known here, and is asked for.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use super::WriteError;

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    kind: String,
    namespace: String,
    name: String,
}

impl Key {
    pub(super) fn of<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Self {
        Self { kind: K::kind(&()).into_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Shared by all tasks; cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    objects: Arc<Mutex<HashMap<Key, Followed>>>,
    changes: watch::Sender<u64>,
}

/// An object that is followed.
#[derive(Debug, Default)]
struct Followed {
    /// `None`: the watch has not told yet. `Some(None)`: it is not there.
    live: Option<Option<Arc<Value>>>,
    /// Our own last write, until the watch has told of it or of something later.
    ahead: Option<Arc<Value>>,
}

/// Ends the following of an object when it is dropped.
struct Following<'a>(&'a Seen, Key);

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

impl Seen {
    /// Follows the one object `name` of `namespace` (empty: it lies in none) through `api` until dropped.
    pub async fn follow<K>(&self, api: Api<K>, namespace: &str, name: &str)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + 'static,
    {
        let key = Key::of::<K>(namespace, name);
        self.lock().insert(key.clone(), Followed::default());
        let following = Following(self, key);
        let named = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut events = std::pin::pin!(watcher(api, named).default_backoff());
        let mut listed = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = None,
                Ok(Event::InitApply(object)) => listed = Some(object),
                Ok(Event::InitDone) => self.told::<K>(&following.1, listed.take().as_ref()),
                Ok(Event::Apply(object)) => self.told(&following.1, Some(&object)),
                Ok(Event::Delete(_)) => self.told::<K>(&following.1, None),
                Err(error) => {
                    let kind = &following.1.kind;
                    tracing::warn!(kind, namespace, name, %error, "watch broken; it starts again");
                }
            }
        }
    }

    /// Told of each change of an object that is followed, but for those that we made ourselves.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The object as it is; `Some(None)`: it is not there. `None`: that is not known.
    pub(super) fn get(&self, key: &Key) -> Option<Option<Arc<Value>>> {
        let objects = self.lock();
        let followed = objects.get(key)?;
        let live = followed.live.clone()?;
        Some(followed.ahead.clone().or(live))
    }

    /// What was found when it was asked for.
    pub(super) fn looked<K: Serialize>(&self, key: &Key, object: Option<&K>) {
        if let Some(followed) = self.lock().get_mut(key) {
            *followed = Followed { live: Some(object.and_then(json)), ahead: None };
        }
    }

    /// What came of a write. One that was refused or not answered leaves in doubt what is there.
    pub(super) fn wrote<K: Serialize>(&self, key: &Key, written: &Result<K, WriteError>) {
        let mut objects = self.lock();
        let Some(followed) = objects.get_mut(key) else { return };
        match written {
            Ok(object) => {
                let object = json(object);
                let live = followed.live.as_ref().and_then(|live| live.as_deref());
                // The watch may have been quicker.
                followed.ahead = object.filter(|object| !is_settled(live, object));
            }
            Err(WriteError::NotLeader(_)) => {}
            Err(_) => *followed = Followed::default(),
        }
    }

    /// It is not known what is there.
    pub(super) fn forget(&self, key: &Key) {
        if let Some(followed) = self.lock().get_mut(key) {
            *followed = Followed::default();
        }
    }

    fn told<K: Serialize>(&self, key: &Key, object: Option<&K>) {
        let object = object.and_then(json);
        let mut objects = self.lock();
        let Some(followed) = objects.get_mut(key) else { return };
        let mut ours = false;
        if let Some(ahead) = &followed.ahead {
            match &object {
                Some(object) if version(object) == version(ahead) => ours = true,
                Some(object) if !is_settled(Some(object), ahead) => return,
                _ => {}
            }
        }
        let before = followed.live.replace(object);
        followed.ahead = None;
        let same = before.is_some_and(|before| {
            let now = followed.live.iter().flatten().next();
            before.as_deref().map(version) == now.map(|now| version(now))
        });
        drop(objects);
        if !ours && !same {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Followed>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn json<K: Serialize>(object: &K) -> Option<Arc<Value>> {
    serde_json::to_value(object).ok().map(Arc::new)
}

fn version(object: &Value) -> Option<&str> {
    object["metadata"]["resourceVersion"].as_str()
}

/// Whether `live` is `written` or later. Where versions are no numbers it is taken to be.
fn is_settled(live: Option<&Value>, written: &Value) -> bool {
    let Some(live) = live else { return false };
    let number = |object| version(object).and_then(|version| version.parse::<u64>().ok());
    match (number(live), number(written)) {
        (Some(live), Some(written)) => live >= written,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn map(version: u32, text: &str) -> ConfigMap {
        let object =
            json!({"metadata": {"name": "m", "resourceVersion": version.to_string()}, "data": {"a": text}});
        serde_json::from_value(object).unwrap()
    }

    fn followed() -> (Seen, Key) {
        let (seen, key) = (Seen::default(), Key::of::<ConfigMap>("ns", "m"));
        seen.lock().insert(key.clone(), Followed::default());
        (seen, key)
    }

    fn text(seen: &Seen, key: &Key) -> Option<Option<String>> {
        Some(seen.get(key)?.map(|object| object["data"]["a"].as_str().unwrap().to_owned()))
    }

    #[test]
    fn nothing_is_known_before_the_watch_has_told() {
        let (seen, key) = followed();
        assert_eq!(text(&seen, &key), None);
        assert_eq!(text(&seen, &Key::of::<ConfigMap>("ns", "other")), None);
        seen.told::<ConfigMap>(&key, None);
        assert_eq!(text(&seen, &key), Some(None), "it is known not to be there");
        seen.told(&key, Some(&map(1, "x")));
        assert_eq!(text(&seen, &key), Some(Some("x".to_owned())));
    }

    #[test]
    fn a_write_is_known_before_the_watch_tells_and_is_no_news_then() {
        let (seen, key) = followed();
        seen.told(&key, Some(&map(1, "before")));
        let changes = seen.changes();
        let told = |seen: &Seen| *seen.changes().borrow();
        let before = *changes.borrow();
        seen.wrote(&key, &Ok(map(3, "ours")));
        assert_eq!(text(&seen, &key), Some(Some("ours".to_owned())));
        seen.told(&key, Some(&map(2, "on its way meanwhile")));
        assert_eq!(text(&seen, &key), Some(Some("ours".to_owned())), "the watch lags behind");
        seen.told(&key, Some(&map(3, "ours")));
        assert_eq!(told(&seen), before);
        seen.told(&key, Some(&map(4, "somebody's")));
        assert_eq!((text(&seen, &key), told(&seen)), (Some(Some("somebody's".to_owned())), before + 1));
        seen.told(&key, Some(&map(4, "somebody's")));
        assert_eq!(told(&seen), before + 1, "a list that tells the same");
        seen.told::<ConfigMap>(&key, None);
        assert_eq!((text(&seen, &key), told(&seen)), (Some(None), before + 2));
        // The watch was quicker than the answer.
        seen.told(&key, Some(&map(7, "later")));
        seen.wrote(&key, &Ok(map(6, "ours")));
        assert_eq!(text(&seen, &key), Some(Some("later".to_owned())));
    }

    #[test]
    fn a_write_that_failed_leaves_nothing_known() {
        let (seen, key) = followed();
        seen.told(&key, Some(&map(1, "x")));
        seen.wrote::<ConfigMap>(&key, &Err(WriteError::NotLeader("m".into())));
        assert!(seen.get(&key).is_some(), "nothing was sent");
        seen.wrote::<ConfigMap>(&key, &Err(WriteError::Unanswered("m".into())));
        assert!(seen.get(&key).is_none(), "it has to be asked for");
        seen.looked(&key, Some(&map(2, "y")));
        assert_eq!(text(&seen, &key), Some(Some("y".to_owned())));
    }
}
