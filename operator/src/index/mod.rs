//! What the operator knows of the cluster: compact facts of the objects it watches, nothing more.
//!
//! ```text
//! Service ──┐                      ┌─ services:  ServiceId → ServiceFacts (users' and our own)
//! (shadow) ─┤ watch   facts        ├─ shadows:   its own name → ShadowFacts
//! Slice ────┼───────▶ ────────────▶┼─ slices:    ServiceId → name → SliceFacts
//! MeshConfig┘                      └─ meshes:    the active one decides the scope
//! ```
//!
//! Every change names the Services it concerns; subscribers get them coalesced. [`watch`] fills it.

pub mod facts;
pub mod scope;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch as watch_channel};
use weft_config::ServiceId;
use weft_config::contract::PROXY_SERVICE_ACCOUNT;
use weft_crds::MeshConfig;

use crate::annotations::Settings;
use crate::names::ShadowName;
use facts::{ServiceFacts, ShadowFacts, SliceFacts};
use scope::Scope;

/// Shared by all tasks; cloning is cheap.
#[derive(Clone)]
pub struct Index {
    namespace: Arc<str>,
    state: Arc<Mutex<State>>,
    synced: watch_channel::Sender<u8>,
    mesh: watch_channel::Sender<Option<Arc<MeshConfig>>>,
}

#[derive(Default)]
pub(crate) struct State {
    /// Our namespace. Shadows elsewhere are somebody's forgery and are taken for what they are: Services.
    namespace: Arc<str>,
    services: HashMap<ServiceId, Arc<ServiceFacts>>,
    /// By their own names, which follow from the Services they stand for.
    shadows: HashMap<Arc<str>, Arc<ShadowFacts>>,
    slices: HashMap<ServiceId, BTreeMap<Arc<str>, Arc<SliceFacts>>>,
    /// The Service of each slice, by the slice's namespace and name: labels can be edited.
    slice_services: HashMap<ServiceId, ServiceId>,
    meshes: BTreeMap<(String, String), Arc<MeshConfig>>,
    scope: Scope,
    subscribers: Vec<Arc<Subscriber>>,
}

#[derive(Default)]
struct Subscriber {
    /// `None`: nothing since the last look.
    changed: Mutex<Option<BTreeSet<ServiceId>>>,
    wake: Notify,
}

/// The Services that changed since the last look.
pub struct Changes(Arc<Subscriber>);

/// One proxy pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyPod {
    /// The node it runs on.
    pub node: String,
    /// Its address.
    pub address: IpAddr,
    /// Whether it is ready.
    pub ready: bool,
}

/// The watches whose first full list counts towards [`Index::synced`].
const WATCHES: u8 = 3;

impl Index {
    /// Empty; the mesh is the one of `namespace`.
    pub fn new(namespace: &str) -> Self {
        let state = State { namespace: namespace.into(), ..State::default() };
        Self {
            namespace: namespace.into(),
            state: Arc::new(Mutex::new(state)),
            synced: watch_channel::Sender::new(0),
            mesh: watch_channel::Sender::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave facts half written: each is replaced whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when every watch has had its first full list. Nothing may be concluded from what is absent before.
    pub async fn synced(&self) {
        // The sender lives in self: waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|done| *done >= WATCHES).await;
    }

    /// Whether [`Index::synced`] would return at once.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow() >= WATCHES
    }

    /// The active MeshConfig, as it changes.
    pub fn mesh(&self) -> watch_channel::Receiver<Option<Arc<MeshConfig>>> {
        self.mesh.subscribe()
    }

    /// A Service of the user's or of our own.
    pub fn service(&self, id: &ServiceId) -> Option<Arc<ServiceFacts>> {
        self.lock().services.get(id).cloned()
    }

    /// A Service that is in the mesh.
    pub fn meshed(&self, id: &ServiceId) -> Option<Arc<ServiceFacts>> {
        let state = self.lock();
        state.services.get(id).filter(|service| state.scope.includes(service)).cloned()
    }

    /// What holds for Services that ask for nothing.
    pub fn defaults(&self) -> Arc<Settings> {
        self.lock().scope.defaults()
    }

    /// The names of all Services in the mesh, sorted.
    pub fn all_meshed(&self) -> BTreeSet<ServiceId> {
        let state = self.lock();
        let meshed = state.services.values().filter(|service| state.scope.includes(service));
        meshed.map(|service| service.id.clone()).collect()
    }

    /// How many Services are in the mesh.
    pub fn count_meshed(&self) -> usize {
        let state = self.lock();
        state.services.values().filter(|service| state.scope.includes(service)).count()
    }

    /// The shadow of a Service.
    pub fn shadow(&self, id: &ServiceId) -> Option<Arc<ShadowFacts>> {
        self.lock().shadows.get(ShadowName::of(id).as_str()).cloned()
    }

    /// All shadows, oldest first.
    pub fn shadows(&self) -> Vec<Arc<ShadowFacts>> {
        let mut all: Vec<_> = self.lock().shadows.values().cloned().collect();
        all.sort_by(|a, b| (a.created, &a.service).cmp(&(b.created, &b.service)));
        all
    }

    /// The endpoint slices of a Service.
    pub fn slices(&self, id: &ServiceId) -> Vec<Arc<SliceFacts>> {
        self.lock().slices.get(id).map(|slices| slices.values().cloned().collect()).unwrap_or_default()
    }

    /// The proxy pods, from the endpoints of their headless Service.
    pub fn proxies(&self) -> Vec<ProxyPod> {
        let id = ServiceId::new(Arc::clone(&self.namespace), PROXY_SERVICE_ACCOUNT);
        let mut pods = Vec::new();
        for slice in self.slices(&id) {
            for endpoint in &slice.endpoints {
                let node = endpoint.node.as_deref().unwrap_or_default().to_owned();
                pods.push(ProxyPod { node, address: endpoint.address, ready: endpoint.ready });
            }
        }
        pods.sort_by(|a, b| (&a.node, a.address).cmp(&(&b.node, b.address)));
        pods
    }

    /// Subscribes to changes; the first look gives every Service there is or has a shadow, at once even when there is none.
    pub fn changes(&self) -> Changes {
        let subscriber = Arc::new(Subscriber::default());
        let mut state = self.lock();
        subscriber.note(state.everything());
        state.subscribers.push(Arc::clone(&subscriber));
        Changes(subscriber)
    }

    fn note(state: &mut State, ids: &(impl IntoIterator<Item = ServiceId> + Clone)) {
        // A subscriber that only the index still knows has been dropped.
        state.subscribers.retain(|subscriber| Arc::strong_count(subscriber) > 1);
        for subscriber in &state.subscribers {
            subscriber.note(ids.clone());
        }
    }

    fn update_mesh(&self, state: &mut State) {
        let active = scope::active(state.meshes.values(), &self.namespace).cloned();
        let scope = Scope::new(active.as_deref(), &self.namespace);
        if scope != state.scope {
            state.scope = scope;
            let everything = state.everything();
            Self::note(state, &everything);
        }
        self.mesh.send_if_modified(|mesh| {
            let changed = *mesh != active;
            *mesh = active;
            changed
        });
    }
}

impl State {
    fn everything(&self) -> BTreeSet<ServiceId> {
        let shadowed = self.shadows.values().map(|shadow| &shadow.service);
        self.services.keys().chain(shadowed).cloned().collect()
    }
}

impl Subscriber {
    fn note(&self, ids: impl IntoIterator<Item = ServiceId>) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().extend(ids);
        self.wake.notify_one();
    }
}

impl Changes {
    /// Waits until something changed and returns all of it. Cancelling loses nothing.
    pub async fn next(&self) -> BTreeSet<ServiceId> {
        loop {
            let changed = std::mem::take(&mut *self.0.changed.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(changed) = changed {
                return changed;
            }
            self.0.wake.notified().await;
        }
    }
}
