//! Fills the index from watches. What vanished while a watch was broken is noticed at its next full list.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use weft_config::ServiceId;
use weft_crds::MeshConfig;

use super::facts::{SHADOW_LABEL, ServiceFacts, ShadowFacts, SliceFacts};
use super::{Index, State};
use crate::names::ShadowName;

/// Objects of one list request: bounds the memory a full list takes.
const PAGE: u32 = 500;

/// Starts all watches. They run until the process ends.
pub fn start(index: &Index, client: &Client) {
    tokio::spawn(follow::<ServiceKind>(index.clone(), stream(Api::all(client.clone()))));
    tokio::spawn(follow::<SliceKind>(index.clone(), stream(Api::all(client.clone()))));
    tokio::spawn(follow::<MeshKind>(index.clone(), stream(Api::all(client.clone()))));
}

fn stream<K>(api: Api<K>) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff()
}

/// One kind of object: how its facts go into the index and out of it.
pub(crate) trait Kind {
    type Object: Resource<DynamicType = ()> + Send;
    /// Names an object within the index.
    type Key: Ord + Hash + Send;

    /// Puts an object in, or takes out what was there under its name when it is none of our business any more; returns its
    /// key and the Services concerned.
    fn insert(state: &mut State, object: &Self::Object) -> (Self::Key, Vec<ServiceId>);
    fn remove(state: &mut State, key: &Self::Key) -> Vec<ServiceId>;
    fn keys(state: &State) -> BTreeSet<Self::Key>;
    fn key(object: &Self::Object) -> Self::Key;
    /// Called after each change, within the lock.
    fn after(_index: &Index, _state: &mut State) {}
}

pub(crate) async fn follow<K: Kind>(
    index: Index,
    events: impl Stream<Item = Result<Event<K::Object>, watcher::Error>> + Send,
) {
    let mut events = std::pin::pin!(events);
    let mut listed: Option<BTreeSet<K::Key>> = None;
    let mut first = true;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if index.take::<K>(event, &mut listed) && std::mem::take(&mut first) {
                    index.synced.send_modify(|done| *done += 1);
                }
            }
            Err(error) => {
                tracing::warn!(kind = %K::Object::kind(&()), %error, "watch broken; it starts again");
            }
        }
    }
}

impl Index {
    /// Takes one event; `listed` gathers the keys of a full list in progress. True when a list is complete.
    pub(super) fn take<K: Kind>(
        &self,
        event: Event<K::Object>,
        listed: &mut Option<BTreeSet<K::Key>>,
    ) -> bool {
        let mut state = self.lock();
        let mut complete = false;
        let changed = match event {
            Event::Init => {
                *listed = Some(BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let (key, changed) = K::insert(&mut state, &object);
                listed.get_or_insert_default().insert(key);
                changed
            }
            Event::InitDone => {
                complete = true;
                let listed = listed.take().unwrap_or_default();
                let gone = K::keys(&state).into_iter().filter(|key| !listed.contains(key));
                gone.collect::<Vec<_>>().iter().flat_map(|key| K::remove(&mut state, key)).collect()
            }
            Event::Apply(object) => K::insert(&mut state, &object).1,
            Event::Delete(object) => K::remove(&mut state, &K::key(&object)),
        };
        K::after(self, &mut state);
        if !changed.is_empty() {
            Self::note(&mut state, &changed);
        }
        complete
    }
}

/// Services, shadows among them.
pub(crate) struct ServiceKind;

impl Kind for ServiceKind {
    type Object = Service;
    type Key = ServiceId;

    fn insert(state: &mut State, object: &Service) -> (ServiceId, Vec<ServiceId>) {
        let key = Self::key(object);
        if let Some(facts) = shadow(&state.namespace, object) {
            // Somebody may have added our labels only now.
            let mut changed: Vec<_> = state.services.remove(&key).map(|_| key.clone()).into_iter().collect();
            let service = facts.service.clone();
            let before = state.shadows.insert(Arc::clone(&key.name), Arc::new(facts));
            if before.as_ref() != state.shadows.get(&key.name) {
                changed.push(service);
            }
            return (key, changed);
        }
        let Some(facts) = ServiceFacts::of(object) else {
            let changed = Self::remove(state, &key);
            return (key, changed);
        };
        // ... or have taken them off.
        let known = state.services.contains_key(&key);
        let mut changed = if known { Vec::new() } else { Self::remove(state, &key) };
        let before = state.services.insert(key.clone(), Arc::new(facts));
        if before.as_ref() != state.services.get(&key) {
            changed.push(key.clone());
        }
        (key, changed)
    }

    fn remove(state: &mut State, key: &ServiceId) -> Vec<ServiceId> {
        if state.services.remove(key).is_some() {
            return vec![key.clone()];
        }
        if key.namespace != state.namespace {
            return Vec::new();
        }
        state.shadows.remove(&key.name).map(|shadow| shadow.service.clone()).into_iter().collect()
    }

    fn keys(state: &State) -> BTreeSet<ServiceId> {
        let shadow = |name: &Arc<str>| ServiceId::new(Arc::clone(&state.namespace), Arc::clone(name));
        state.services.keys().cloned().chain(state.shadows.keys().map(shadow)).collect()
    }

    fn key(object: &Service) -> ServiceId {
        ServiceId::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

/// What `service` records as a shadow of ours: one in our namespace, under the name that follows from what it stands for.
fn shadow(ours: &str, service: &Service) -> Option<ShadowFacts> {
    if service.metadata.namespace.as_deref() != Some(ours) || !service.labels().contains_key(SHADOW_LABEL) {
        return None;
    }
    ShadowFacts::of(service).filter(|facts| ShadowName::of(&facts.service).as_str() == &*facts.name)
}

/// Endpoint slices.
pub(crate) struct SliceKind;

impl Kind for SliceKind {
    type Object = EndpointSlice;
    /// Namespace and name of the slice.
    type Key = ServiceId;

    fn insert(state: &mut State, object: &EndpointSlice) -> (Self::Key, Vec<ServiceId>) {
        let key = Self::key(object);
        let Some(facts) = SliceFacts::of(object) else {
            let changed = Self::remove(state, &key);
            return (key, changed);
        };
        let service = facts.service.clone();
        let moved = state.slice_services.get(&key).is_some_and(|before| *before != service);
        let mut changed = if moved { Self::remove(state, &key) } else { Vec::new() };
        state.slice_services.insert(key.clone(), service.clone());
        let slices = state.slices.entry(service.clone()).or_default();
        let before = slices.insert(Arc::clone(&key.name), Arc::new(facts));
        if before.as_ref() != slices.get(&key.name) {
            changed.push(service);
        }
        (key, changed)
    }

    fn remove(state: &mut State, key: &Self::Key) -> Vec<ServiceId> {
        let Some(service) = state.slice_services.remove(key) else { return Vec::new() };
        if let Some(slices) = state.slices.get_mut(&service) {
            slices.remove(&key.name);
            if slices.is_empty() {
                state.slices.remove(&service);
            }
        }
        vec![service]
    }

    fn keys(state: &State) -> BTreeSet<Self::Key> {
        state.slice_services.keys().cloned().collect()
    }

    fn key(object: &EndpointSlice) -> Self::Key {
        ServiceId::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

/// Mesh configurations.
pub(crate) struct MeshKind;

impl Kind for MeshKind {
    type Object = MeshConfig;
    type Key = (String, String);

    fn insert(state: &mut State, object: &MeshConfig) -> (Self::Key, Vec<ServiceId>) {
        let key = Self::key(object);
        let mut mesh = object.clone();
        // Written by ourselves and read by nobody here: keeping them would make every status a change.
        mesh.status = None;
        mesh.metadata.managed_fields = None;
        mesh.metadata.resource_version = None;
        state.meshes.insert(key.clone(), Arc::new(mesh));
        (key, Vec::new())
    }

    fn remove(state: &mut State, key: &Self::Key) -> Vec<ServiceId> {
        state.meshes.remove(key);
        Vec::new()
    }

    fn keys(state: &State) -> BTreeSet<Self::Key> {
        state.meshes.keys().cloned().collect()
    }

    fn key(object: &MeshConfig) -> Self::Key {
        (object.namespace().unwrap_or_default(), object.name_any())
    }

    fn after(index: &Index, state: &mut State) {
        index.update_mesh(state);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, port: u16) -> Service {
        let spec = json!({"ports": [{"port": port, "name": "http"}]});
        serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec}))
            .unwrap()
    }

    fn shadow(namespace: &str, of: &str) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": format!("{of}-weft-shop"), "labels": {
                "weft.mesh/shadow": "true", "weft.mesh/service-namespace": "shop", "weft.mesh/service-name": of}},
            "spec": {"ports": [{"port": 80, "targetPort": 10001}]}
        }))
        .unwrap()
    }

    fn index_of(events: impl IntoIterator<Item = Event<Service>>) -> Index {
        let index = Index::new("weft-system");
        let mut listed = None;
        for event in events {
            index.take::<ServiceKind>(event, &mut listed);
        }
        index
    }

    #[test]
    fn what_vanished_during_a_disconnect_is_noticed_at_the_next_list() {
        let index = index_of([
            Event::Init,
            Event::InitApply(service("shop", "cart", 80)),
            Event::InitApply(service("shop", "gone", 80)),
            Event::InitApply(shadow("weft-system", "gone")),
            Event::InitDone,
        ]);
        let cart = ServiceId::new("shop", "cart");
        let gone = ServiceId::new("shop", "gone");
        assert!(index.service(&gone).is_some() && index.shadow(&gone).is_some());
        let mut listed = None;
        for event in [Event::Init, Event::InitApply(service("shop", "cart", 80)), Event::InitDone] {
            index.take::<ServiceKind>(event, &mut listed);
        }
        assert!(index.service(&cart).is_some());
        assert!(index.service(&gone).is_none() && index.shadow(&gone).is_none());
    }

    #[tokio::test]
    async fn subscribers_hear_of_real_changes_only() {
        let index = index_of([Event::Apply(service("shop", "cart", 80))]);
        let changes = index.changes();
        assert_eq!(
            changes.next().await,
            BTreeSet::from([ServiceId::new("shop", "cart")]),
            "the first look gives all"
        );
        let mut listed = None;
        index.take::<ServiceKind>(Event::Apply(service("shop", "cart", 80)), &mut listed);
        index.take::<ServiceKind>(Event::Apply(service("shop", "pay", 80)), &mut listed);
        index.take::<ServiceKind>(Event::Delete(shadow("weft-system", "none")), &mut listed);
        assert_eq!(changes.next().await, BTreeSet::from([ServiceId::new("shop", "pay")]));
    }

    #[test]
    fn a_shadow_in_somebody_s_own_namespace_is_no_shadow() {
        let index = index_of([Event::Apply(shadow("evil", "cart"))]);
        assert!(index.shadow(&ServiceId::new("shop", "cart")).is_none());
        assert!(index.service(&ServiceId::new("evil", "cart-weft-shop")).is_some());
    }

    #[test]
    fn labels_that_somebody_edits_leave_nothing_behind() {
        let cart = ServiceId::new("shop", "cart");
        let mut bare = shadow("weft-system", "cart");
        bare.metadata.labels = None;
        let index = index_of([Event::Apply(shadow("weft-system", "cart")), Event::Apply(bare.clone())]);
        assert!(index.shadow(&cart).is_none(), "without its labels it records nothing");
        index.take::<ServiceKind>(Event::Apply(shadow("weft-system", "cart")), &mut None);
        assert!(index.shadow(&cart).is_some());
        assert!(
            index.service(&ServiceId::new("weft-system", "cart-weft-shop")).is_none(),
            "it is one or the other"
        );

        let mut misnamed = shadow("weft-system", "cart");
        misnamed.metadata.name = Some("copy".into());
        index.take::<ServiceKind>(Event::Apply(misnamed), &mut None);
        index.take::<ServiceKind>(Event::Delete(shadow("weft-system", "cart")), &mut None);
        assert!(index.shadow(&cart).is_none(), "a copy under another name stands for nothing");
    }

    fn slice(name: &str, service: &str, address: &str) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"port": 80}, {"port": null, "name": "any"}],
            "endpoints": [{"addresses": [address]}],
        }))
        .unwrap()
    }

    fn addresses(index: &Index, service: &str) -> Vec<String> {
        let slices = index.slices(&ServiceId::new("shop", service));
        slices
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .map(|endpoint| endpoint.address.to_string())
            .collect()
    }

    #[test]
    fn a_slice_belongs_to_one_service_at_a_time() {
        let index = Index::new("weft-system");
        let take = |event| assert!(!index.take::<SliceKind>(event, &mut None), "no list is complete");
        take(Event::Apply(slice("one", "cart", "10.0.0.1")));
        take(Event::Apply(slice("two", "cart", "10.0.0.2")));
        assert_eq!(addresses(&index, "cart"), ["10.0.0.1", "10.0.0.2"]);
        take(Event::Apply(slice("one", "pay", "10.0.0.1")));
        assert_eq!(addresses(&index, "cart"), ["10.0.0.2"]);
        assert_eq!(addresses(&index, "pay"), ["10.0.0.1"]);
        let mut orphan = slice("one", "", "10.0.0.1");
        orphan.metadata.labels = None;
        take(Event::Apply(orphan));
        take(Event::Delete(slice("two", "cart", "10.0.0.2")));
        assert!(addresses(&index, "pay").is_empty() && addresses(&index, "cart").is_empty());
    }

    #[tokio::test]
    async fn slices_that_vanished_during_a_disconnect_concern_their_service() {
        let index = Index::new("weft-system");
        let mut listed = None;
        let mut list = |slices: Vec<EndpointSlice>| {
            let all = slices.into_iter().map(Event::InitApply);
            for event in std::iter::once(Event::Init).chain(all).chain([Event::InitDone]) {
                index.take::<SliceKind>(event, &mut listed);
            }
        };
        list(vec![
            slice("one", "cart", "10.0.0.1"),
            slice("two", "cart", "10.0.0.2"),
            slice("p", "pay", "10.0.0.3"),
        ]);
        let changes = index.changes();
        assert!(
            changes.next().await.is_empty(),
            "there is no Service yet, and the first look says so at once"
        );
        list(vec![slice("two", "cart", "10.0.0.2"), slice("p", "pay", "10.0.0.4")]);
        assert_eq!(addresses(&index, "cart"), ["10.0.0.2"]);
        assert_eq!(
            changes.next().await,
            BTreeSet::from([ServiceId::new("shop", "cart"), ServiceId::new("shop", "pay")])
        );
    }

    #[test]
    fn a_deleted_shadow_is_forgotten() {
        let index = index_of([Event::Apply(shadow("weft-system", "cart"))]);
        let cart = ServiceId::new("shop", "cart");
        assert_eq!(index.shadow(&cart).unwrap().ports, [(80, 10001)]);
        index.take::<ServiceKind>(Event::Delete(shadow("weft-system", "cart")), &mut None);
        assert!(index.shadow(&cart).is_none());
    }
}
