//! What the operator knows of the cluster: compact facts of the objects it watches, nothing more.
//!
//! ```text
//! Service ──┐                      ┌─ services:   ServiceId → ServiceFacts (users' and our own)
//! (shadow) ─┤ watch   facts        ├─ shadows:    its own name → ShadowFacts
//! Slice ────┼───────▶ ────────────▶┼─ slices:     ServiceId → name → SliceFacts
//! Pod ──────┤                      ├─ identities: account ↔ address, from PodFacts
//! SMI ──────┤                      ├─ smi:        TrafficSplits, TrafficTargets and routes, as they were read
//! MeshConfig┘                      └─ meshes:     the active one decides the scope
//! ```
//!
//! Of single objects it knows the CA's Secret ([`ca`]) and whether our namespace is being deleted.
//!
//! Every change says what it concerns; subscribers get that coalesced ([`changes`]). [`watch`] fills the index.

pub mod ca;
pub mod changes;
pub mod claims;
pub mod facts;
mod identities;
pub(crate) mod kinds;
mod namespace;
pub mod pods;
pub mod proxy_pods;
pub mod scope;
pub(crate) mod smi;
mod strings;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch as watch_channel;
use weft_config::contract::OPERATOR_SERVICE;
use weft_config::{AccountId, Identity, ServiceId};
use weft_crds::MeshConfig;
use weft_crds::smi::KINDS;

use crate::annotations::Settings;
use crate::names::ShadowName;
use crate::smi::{Name, Objects};
use ca::Ca;
use changes::{About, Changed, Changes, Subscriber};
use claims::{Rival, Share, is_kept};
use facts::{ServiceFacts, ShadowFacts, SliceFacts};
use identities::Identities;
use pods::PodFacts;
use proxy_pods::{ProxyFacts, ProxyPods};
use scope::Scope;
use strings::Strings;

/// Shared by all tasks; cloning is cheap.
#[derive(Clone)]
pub struct Index {
    pub(crate) namespace: Arc<str>,
    state: Arc<Mutex<State>>,
    /// The kinds whose first full list is still to come.
    awaited: watch_channel::Sender<BTreeSet<&'static str>>,
    mesh: watch_channel::Sender<Option<Arc<MeshConfig>>>,
    /// Who has domains that it asks for; all of them, where none is active.
    rival: watch_channel::Sender<Option<Rival>>,
    /// Whether a MeshConfig of our namespace, served or no longer, is being removed and waits for us.
    leaving: watch_channel::Sender<bool>,
    ca: watch_channel::Sender<Ca>,
    ending: watch_channel::Sender<bool>,
}

#[derive(Default)]
pub(crate) struct State {
    /// Our namespace. Shadows elsewhere are somebody's forgery and are taken for what they are: Services.
    namespace: Arc<str>,
    services: HashMap<ServiceId, Arc<ServiceFacts>>,
    /// By their own names, which follow from the Services they stand for.
    shadows: HashMap<Arc<str>, Arc<ShadowFacts>>,
    /// How many of them stand for Services of a namespace.
    shadowed: HashMap<Arc<str>, usize>,
    /// Services in our namespace that we made as shadows and that somebody has made unrecognizable, by their own names.
    strays: BTreeSet<Arc<str>>,
    slices: HashMap<ServiceId, BTreeMap<Arc<str>, Arc<SliceFacts>>>,
    /// The Service of each slice, by the slice's namespace and name: labels can be edited.
    slice_services: HashMap<ServiceId, ServiceId>,
    pods: HashMap<Name, Arc<PodFacts>>,
    proxy_pods: ProxyPods,
    identities: Identities,
    smi: Arc<Objects>,
    meshes: BTreeMap<(String, String), Arc<MeshConfig>>,
    scope: Arc<Scope>,
    subscribers: Vec<Arc<Subscriber>>,
    strings: Strings,
}

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

/// The watches whose first full list counts towards [`Index::synced`], besides those of the Service Mesh Interface.
const WATCHES: [&str; 4] = ["Service", "EndpointSlice", "Pod", "MeshConfig"];

impl Index {
    /// Empty; the mesh is the one of `namespace`.
    pub fn new(namespace: &str) -> Self {
        let state = State { namespace: namespace.into(), ..State::default() };
        Self {
            namespace: namespace.into(),
            state: Arc::new(Mutex::new(state)),
            awaited: watch_channel::Sender::new(
                WATCHES.into_iter().chain(KINDS.map(|kind| kind.kind)).collect(),
            ),
            mesh: watch_channel::Sender::new(None),
            rival: watch_channel::Sender::default(),
            leaving: watch_channel::Sender::new(false),
            ca: watch_channel::Sender::default(),
            ending: watch_channel::Sender::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave facts half written: each is replaced whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when every watch has had its first full list; a kind that the cluster does not know counts as an empty one.
    /// Nothing may be concluded from what is absent before: a policy that is not known yet would deny or misroute.
    pub async fn synced(&self) {
        // The sender lives in self: waiting cannot fail.
        let _ = self.awaited.subscribe().wait_for(BTreeSet::is_empty).await;
    }

    /// The kinds [`Index::synced`] waits for.
    pub fn awaited(&self) -> BTreeSet<&'static str> {
        self.awaited.borrow().clone()
    }

    /// All there is of `kind` is known.
    pub(crate) fn listed(&self, kind: &'static str) {
        self.awaited.send_if_modified(|awaited| awaited.remove(kind));
    }

    /// The active MeshConfig, with the domains that it has of those that it asks for, as it changes.
    pub fn mesh(&self) -> watch_channel::Receiver<Option<Arc<MeshConfig>>> {
        self.mesh.subscribe()
    }

    /// Whether this very MeshConfig, and not another of its name, has been heard of.
    pub fn knows(&self, mesh: &MeshConfig) -> bool {
        self.lock().meshes.values().any(|known| known.metadata.uid == mesh.metadata.uid)
    }

    /// Who has domains that the MeshConfig of our namespace asks for, as it changes.
    pub fn rival(&self) -> watch_channel::Receiver<Option<Rival>> {
        self.rival.subscribe()
    }

    /// Whether a MeshConfig of our namespace, served or no longer, is being removed and waits for us, as it changes.
    pub fn leaving(&self) -> watch_channel::Receiver<bool> {
        self.leaving.subscribe()
    }

    /// Whether there is an operator in `namespace`.
    pub fn is_operated(&self, namespace: &str) -> bool {
        self.lock().is_operated(namespace)
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

    /// What the active MeshConfig says of all Services.
    pub fn scope(&self) -> Arc<Scope> {
        Arc::clone(&self.lock().scope)
    }

    /// What holds for Services that ask for nothing.
    pub fn defaults(&self) -> Arc<Settings> {
        self.lock().scope.defaults()
    }

    /// The objects of the Service Mesh Interface.
    pub fn smi(&self) -> Arc<Objects> {
        Arc::clone(&self.lock().smi)
    }

    /// The addresses of those who run as `account`.
    pub fn identity(&self, account: &AccountId) -> Identity {
        self.lock().identities.get(account)
    }

    /// As whom the pod at `address` runs, where that is known.
    pub fn account_at(&self, address: IpAddr) -> Option<AccountId> {
        self.lock().identities.holder_of(address).cloned()
    }

    /// All pods, in no order.
    pub fn pods(&self) -> Vec<Arc<PodFacts>> {
        self.lock().pods.values().cloned().collect()
    }

    /// The names of all Services in the mesh, sorted.
    pub fn all_meshed(&self) -> BTreeSet<ServiceId> {
        let state = self.lock();
        let meshed = state.services.values().filter(|service| state.scope.includes(service));
        meshed.map(|service| service.id.clone()).collect()
    }

    /// The Service in the mesh whose shadow has this name, or is to have it.
    pub fn meshed_by_shadow(&self, shadow: &str) -> Option<ServiceId> {
        self.all_meshed().into_iter().find(|id| ShadowName::of(id).as_str() == shadow)
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

    /// How many shadows there are.
    pub fn count_shadows(&self) -> usize {
        self.lock().shadows.len()
    }

    /// Whether there is a shadow of this name of its own.
    pub fn is_shadow(&self, name: &str) -> bool {
        self.lock().shadows.contains_key(name)
    }

    /// The names of those that were shadows until somebody edited their labels.
    pub fn strays(&self) -> BTreeSet<Arc<str>> {
        self.lock().strays.clone()
    }

    /// Whether a Service of `namespace` has a shadow.
    pub fn has_shadow_of(&self, namespace: &str) -> bool {
        self.lock().shadowed.contains_key(namespace)
    }

    /// The endpoint slices of a Service.
    pub fn slices(&self, id: &ServiceId) -> Vec<Arc<SliceFacts>> {
        self.lock().slices.get(id).map(|slices| slices.values().cloned().collect()).unwrap_or_default()
    }

    /// The proxies, by their pods: the `EndpointSlices` of a Service come late where there are many, and keep for minutes what is gone.
    pub fn proxies(&self) -> Vec<ProxyPod> {
        self.proxies_and(Vec::new())
    }

    /// The same with those of `listed` that no watch has told of yet.
    pub fn proxies_and(&self, listed: Vec<ProxyFacts>) -> Vec<ProxyPod> {
        let mut pods = Vec::new();
        let mut known = BTreeSet::new();
        for pod in self.proxy_pods().into_iter().chain(listed.into_iter().map(Arc::new)) {
            let Some(address) = pod.address else { continue };
            if known.insert(address) {
                let ready = pod.ready && !pod.leaving;
                pods.push(ProxyPod { node: pod.node.to_string(), address, ready });
            }
        }
        pods.sort_by(|a, b| (&a.node, a.address).cmp(&(&b.node, b.address)));
        pods
    }

    /// The pods of the proxies' DaemonSet, those without an address and those on their way out among them, by name.
    pub fn proxy_pods(&self) -> Vec<Arc<ProxyFacts>> {
        self.lock().proxy_pods.all()
    }

    /// Those of them on their way out.
    pub fn leaving_proxies(&self) -> Vec<Arc<ProxyFacts>> {
        self.lock().proxy_pods.leaving()
    }

    /// Subscribes to changes; the first look gives all there is, every Service that only has a shadow among them, at once
    /// even when there is nothing.
    pub fn changes(&self, about: About) -> Changes {
        let mut state = self.lock();
        let subscriber = Subscriber::new(about, &state.everything());
        state.subscribers.push(Arc::clone(&subscriber));
        Changes(subscriber)
    }

    fn note(state: &mut State, changed: &Changed) {
        if changed.is_empty() {
            return;
        }
        // A subscriber that only the index still knows has been dropped.
        state.subscribers.retain(|subscriber| Arc::strong_count(subscriber) > 1);
        for subscriber in &state.subscribers {
            subscriber.note(changed);
        }
    }

    fn update_mesh(&self, state: &mut State) {
        let operated = |namespace: &str| state.is_operated(namespace);
        let Share { active, rival } = claims::share(&self.namespace, state.meshes.values(), operated);
        self.rival.send_if_modified(|known| std::mem::replace(known, rival.clone()) != rival);
        let leaves = |mesh: &Arc<MeshConfig>| {
            mesh.metadata.namespace.as_deref() == Some(&*self.namespace)
                && mesh.metadata.deletion_timestamp.is_some()
                && is_kept(mesh)
        };
        let leaving = state.meshes.values().any(leaves);
        self.leaving.send_if_modified(|known| std::mem::replace(known, leaving) != leaving);
        let scope = Scope::new(active.as_deref(), &self.namespace);
        if scope != *state.scope {
            state.scope = Arc::new(scope);
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
    /// By its Service, whose name is fixed.
    fn is_operated(&self, namespace: &str) -> bool {
        self.services.contains_key(&ServiceId::new(namespace, OPERATOR_SERVICE))
    }

    /// Takes the facts of a shadow; gives those it had before.
    fn put_shadow(&mut self, facts: ShadowFacts) -> Option<Arc<ShadowFacts>> {
        *self.shadowed.entry(Arc::clone(&facts.service.namespace)).or_default() += 1;
        let before = self.shadows.insert(Arc::clone(&facts.name), Arc::new(facts));
        self.forget_shadow(before)
    }

    fn take_shadow(&mut self, name: &str) -> Option<Arc<ShadowFacts>> {
        let before = self.shadows.remove(name);
        self.forget_shadow(before)
    }

    fn forget_shadow(&mut self, shadow: Option<Arc<ShadowFacts>>) -> Option<Arc<ShadowFacts>> {
        let namespace = &shadow.as_ref()?.service.namespace;
        if let Some(count) = self.shadowed.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                self.shadowed.remove(namespace);
            }
        }
        shadow
    }

    fn everything(&self) -> Changed {
        let shadowed = self.shadows.values().map(|shadow| &shadow.service);
        Changed {
            services: self.services.keys().chain(shadowed).cloned().collect(),
            endpoints: BTreeSet::new(),
            accounts: self.identities.accounts().cloned().collect(),
            policies: true,
        }
    }
}
