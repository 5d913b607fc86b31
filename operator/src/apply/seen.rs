//! What watches show of single objects, so that whoever keeps them need not ask for them each time. An object that nobody
//! follows is not known here, and is asked for.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use super::WriteError;
use crate::watches;

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

/// Kind, namespace and name, as errors tell them.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

/// Shared by all tasks; cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    objects: Arc<Mutex<HashMap<Key, Followed>>>,
    changes: watch::Sender<u64>,
}

/// What is known of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Sight {
    /// Nothing: nobody follows it, the watch has not told yet, or what became of a write is in doubt.
    #[default]
    Unknown,
    /// It is not there.
    Absent,
    /// This is it.
    There(Arc<Value>),
}

impl Sight {
    fn of<K: Serialize>(object: Option<&K>) -> Self {
        object.map_or(Self::Absent, |object| json(object).map_or(Self::Unknown, Self::There))
    }

    fn object(&self) -> Option<&Value> {
        match self {
            Self::There(object) => Some(object),
            Self::Unknown | Self::Absent => None,
        }
    }
}

/// An object that is followed.
#[derive(Debug, Default)]
struct Followed {
    /// By the watch.
    live: Sight,
    /// Our own last write, until the watch has told of it or of something later.
    ahead: Option<Arc<Value>>,
    /// How often the watch has told of it.
    told: u64,
}

impl Followed {
    /// From now on this is known of it, and nothing of a write of ours.
    fn now(&mut self, live: Sight) {
        (self.live, self.ahead) = (live, None);
    }
}

/// How often a watch had told of an object when a write of it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

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
        let mut events = std::pin::pin!(watches::objects(api, named));
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

    /// The object as it is.
    pub(super) fn get(&self, key: &Key) -> Sight {
        let objects = self.lock();
        match objects.get(key) {
            Some(Followed { live, ahead: Some(ahead), .. }) if *live != Sight::Unknown => {
                Sight::There(Arc::clone(ahead))
            }
            Some(followed) => followed.live.clone(),
            None => Sight::Unknown,
        }
    }

    /// What was found when it was asked for. Should the watch have told meanwhile, that is no older, and this may be: an answer
    /// takes its time, and what was put in the place of something newer would stay until the next change.
    pub(super) fn looked<K: Serialize>(&self, key: &Key, object: Option<&K>) {
        if let Some(followed) = self.lock().get_mut(key).filter(|followed| followed.live == Sight::Unknown) {
            followed.now(Sight::of(object));
        }
    }

    /// A write of the object begins.
    pub(super) fn mark(&self, key: &Key) -> Mark {
        Mark(self.lock().get(key).map_or(0, |followed| followed.told))
    }

    /// What came of a write that began at `mark`. One that was refused or not answered leaves in doubt what is there, and so does
    /// one that was answered when the watch had told that the object is not there: it may have gone before or since.
    pub(super) fn wrote<K: Serialize>(&self, key: &Key, mark: Mark, written: &Result<K, WriteError>) {
        let mut objects = self.lock();
        let Some(followed) = objects.get_mut(key) else { return };
        match written {
            Ok(_) if followed.live == Sight::Absent && Mark(followed.told) != mark => {
                followed.now(Sight::Unknown);
            }
            Ok(object) => {
                let object = json(object);
                // The watch may have been quicker.
                followed.ahead = object.filter(|object| !is_settled(followed.live.object(), object));
            }
            Err(WriteError::NotLeader(_)) => {}
            Err(_) => followed.now(Sight::Unknown),
        }
    }

    /// It is not known what is there.
    pub(super) fn forget(&self, key: &Key) {
        if let Some(followed) = self.lock().get_mut(key) {
            followed.now(Sight::Unknown);
        }
    }

    fn told<K: Serialize>(&self, key: &Key, object: Option<&K>) {
        let now = Sight::of(object);
        let mut objects = self.lock();
        let Some(followed) = objects.get_mut(key) else { return };
        followed.told += 1;
        let mut ours = false;
        if let (Some(ahead), Some(object)) = (&followed.ahead, now.object()) {
            if !is_settled(Some(object), ahead) {
                return;
            }
            ours = version(object) == version(ahead);
        }
        let same = match (&followed.live, &now) {
            (Sight::There(before), Sight::There(now)) => version(before) == version(now),
            (before, now) => before == now,
        };
        followed.now(now);
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

    fn text(seen: &Seen, key: &Key) -> String {
        match seen.get(key) {
            Sight::Unknown => "unknown".to_owned(),
            Sight::Absent => "absent".to_owned(),
            Sight::There(object) => object["data"]["a"].as_str().unwrap().to_owned(),
        }
    }

    #[test]
    fn nothing_is_known_before_the_watch_has_told() {
        let (seen, key) = followed();
        assert_eq!(text(&seen, &key), "unknown");
        assert_eq!(text(&seen, &Key::of::<ConfigMap>("ns", "other")), "unknown");
        seen.told::<ConfigMap>(&key, None);
        assert_eq!(text(&seen, &key), "absent");
        seen.told(&key, Some(&map(1, "x")));
        assert_eq!(text(&seen, &key), "x");
    }

    #[test]
    fn a_write_is_known_before_the_watch_tells_and_is_no_news_then() {
        let (seen, key) = followed();
        seen.told(&key, Some(&map(1, "before")));
        let changes = seen.changes();
        let told = |seen: &Seen| *seen.changes().borrow();
        let before = *changes.borrow();
        seen.wrote(&key, seen.mark(&key), &Ok(map(3, "ours")));
        assert_eq!(text(&seen, &key), "ours");
        seen.told(&key, Some(&map(2, "on its way meanwhile")));
        assert_eq!(text(&seen, &key), "ours", "the watch lags behind");
        seen.told(&key, Some(&map(3, "ours")));
        assert_eq!(told(&seen), before);
        seen.told(&key, Some(&map(4, "somebody's")));
        assert_eq!((text(&seen, &key), told(&seen)), ("somebody's".to_owned(), before + 1));
        seen.told(&key, Some(&map(4, "somebody's")));
        assert_eq!(told(&seen), before + 1, "a list that tells the same");
        seen.told::<ConfigMap>(&key, None);
        assert_eq!((text(&seen, &key), told(&seen)), ("absent".to_owned(), before + 2));
        // The watch was quicker than the answer.
        seen.told(&key, Some(&map(7, "later")));
        seen.wrote(&key, seen.mark(&key), &Ok(map(6, "ours")));
        assert_eq!(text(&seen, &key), "later");
    }

    #[test]
    fn an_answer_to_a_write_is_not_put_over_what_the_watch_has_told_since() {
        let (seen, key) = followed();
        seen.told(&key, Some(&map(1, "x")));
        // Written, edited and deleted before the answer is here.
        let mark = seen.mark(&key);
        seen.told(&key, Some(&map(2, "ours")));
        seen.told(&key, Some(&map(3, "somebody's")));
        seen.told::<ConfigMap>(&key, None);
        seen.wrote(&key, mark, &Ok(map(2, "ours")));
        assert_eq!(text(&seen, &key), "unknown", "it is asked for");
        // Deleted first and made anew by the write, which is not told of yet: nobody can know that either.
        let mark = seen.mark(&key);
        seen.told::<ConfigMap>(&key, None);
        seen.wrote(&key, mark, &Ok(map(6, "ours")));
        assert_eq!(text(&seen, &key), "unknown");
        seen.looked(&key, Some(&map(6, "ours")));
        assert_eq!(text(&seen, &key), "ours");
    }

    #[test]
    fn a_write_that_failed_leaves_nothing_known() {
        let (seen, key) = followed();
        seen.told(&key, Some(&map(1, "x")));
        seen.wrote::<ConfigMap>(&key, seen.mark(&key), &Err(WriteError::NotLeader("m".into())));
        assert_eq!(text(&seen, &key), "x", "nothing was sent");
        seen.wrote::<ConfigMap>(&key, seen.mark(&key), &Err(WriteError::Unanswered("m".into())));
        assert_eq!(text(&seen, &key), "unknown", "it has to be asked for");
        seen.looked(&key, Some(&map(2, "y")));
        assert_eq!(text(&seen, &key), "y");
    }

    #[test]
    fn an_answer_that_comes_late_is_not_put_over_what_the_watch_has_told() {
        let (seen, key) = followed();
        seen.told(&key, Some(&map(3, "later")));
        seen.looked(&key, Some(&map(2, "as it was when asked for")));
        assert_eq!(text(&seen, &key), "later");
        seen.looked::<ConfigMap>(&key, None);
        assert_eq!(text(&seen, &key), "later");
    }
}
