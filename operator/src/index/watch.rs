//! Fills the index from watches. What vanished while a watch was broken is noticed at its next full list.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use weft_crds::smi::KINDS;

use super::changes::Changed;
use super::facts::SHADOW_LABEL;
use super::kinds::{MeshKind, ServiceKind, SliceKind};
use super::pods::PodKind;
use super::{Index, State, ca, namespace, smi};
use crate::watches;

/// Objects of one list request: bounds the memory a full list takes.
pub const PAGE: u32 = 500;

/// Starts all watches, as `tasks`.
pub fn start(index: &Index, client: &Client, tasks: &mut JoinSet<()>) {
    // Kubernetes makes a slice with every proxy in it for each shadow Service: Services times nodes. They say nothing that
    // the one slice of the proxies' own Service does not, and bear the label of their Service.
    let not_of_shadows = format!("!{SHADOW_LABEL}");
    tasks.spawn(follow(index.clone(), ServiceKind, stream(Api::all(client.clone()), None)));
    tasks.spawn(follow(index.clone(), SliceKind, stream(Api::all(client.clone()), Some(&not_of_shadows))));
    tasks.spawn(follow(index.clone(), PodKind, stream(Api::all(client.clone()), None)));
    tasks.spawn(follow(index.clone(), MeshKind, stream(Api::all(client.clone()), None)));
    tasks.spawn(ca::follow(index.clone(), client.clone()));
    tasks.spawn(namespace::follow(index.clone(), client.clone()));
    for kind in KINDS {
        tasks.spawn(smi::follow(index.clone(), client.clone(), kind));
    }
}

/// All objects of `api`, or those whose labels are as `selected`, as they come and go.
pub(super) fn stream<K>(
    api: Api<K>,
    selected: Option<&str>,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Clone,
{
    let mut config = watcher::Config::default().page_size(PAGE);
    if let Some(labels) = selected {
        config = config.labels(labels);
    }
    watches::objects(api, config)
}

/// One kind of object: how its facts go into the index and out of it.
pub(crate) trait Kind {
    type Object: Send;
    /// Names an object within the index.
    type Key: Ord + Hash + Send;

    /// The kind's name; [`Index::synced`] waits for its first full list.
    fn what(&self) -> &'static str;
    /// Puts an object in, or takes out what was there under its name when it is none of our business any more; returns its
    /// key and what that changed.
    fn insert(&self, state: &mut State, object: &Self::Object) -> (Self::Key, Changed);
    fn remove(&self, state: &mut State, key: &Self::Key) -> Changed;
    fn keys(&self, state: &State) -> BTreeSet<Self::Key>;
    fn key(object: &Self::Object) -> Self::Key;
    /// Called after each change, within the lock; without a key all may have changed.
    fn after(&self, _index: &Index, _state: &mut State, _key: Option<&Self::Key>) {}
}

pub(crate) async fn follow<K: Kind + Send>(
    index: Index,
    kind: K,
    events: impl Stream<Item = Result<Event<K::Object>, watcher::Error>> + Send,
) {
    let mut events = std::pin::pin!(events);
    let mut listed: Option<BTreeSet<K::Key>> = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => index.take(&kind, event, &mut listed),
            Err(error) => broken(kind.what(), &error),
        }
    }
}

/// A watch is tried again until it works; what it has not seen is waited for, and `/readyz` names it.
pub(super) fn broken(kind: &str, error: &watcher::Error) {
    tracing::warn!(kind, %error, "watch broken; it starts again");
}

impl Index {
    /// Takes one event; `listed` gathers the keys of a full list in progress.
    pub(crate) fn take<K: Kind>(
        &self,
        kind: &K,
        event: Event<K::Object>,
        listed: &mut Option<BTreeSet<K::Key>>,
    ) {
        let mut state = self.lock();
        let mut complete = false;
        let key = match &event {
            Event::Apply(object) | Event::Delete(object) | Event::InitApply(object) => Some(K::key(object)),
            Event::Init | Event::InitDone => None,
        };
        let changed = match event {
            Event::Init => {
                *listed = Some(BTreeSet::new());
                Changed::default()
            }
            Event::InitApply(object) => {
                let (key, changed) = kind.insert(&mut state, &object);
                listed.get_or_insert_default().insert(key);
                changed
            }
            Event::InitDone => {
                complete = true;
                let listed = listed.take().unwrap_or_default();
                let mut changed = Changed::default();
                for key in kind.keys(&state).into_iter().filter(|key| !listed.contains(key)) {
                    changed.add(kind.remove(&mut state, &key));
                }
                changed
            }
            Event::Apply(object) => kind.insert(&mut state, &object).1,
            Event::Delete(object) => kind.remove(&mut state, &K::key(&object)),
        };
        kind.after(self, &mut state, key.as_ref());
        Self::note(&mut state, &changed);
        drop(state);
        if complete {
            self.listed(kind.what());
        }
    }
}
