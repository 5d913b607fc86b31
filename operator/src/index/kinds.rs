//! How `Services`, `EndpointSlices` and `MeshConfigs` go into the index.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use weft_config::ServiceId;
use weft_config::contract::OPERATOR_SERVICE;
use weft_crds::meshconfig::DnsFound;
use weft_crds::{MeshConfig, MeshConfigStatus};

use super::changes::Changed;
use super::facts::{ServiceFacts, ShadowFacts, SliceFacts, is_remnant};
use super::watch::Kind;
use super::{Index, State};

/// Services, shadows among them.
pub(crate) struct ServiceKind;

impl Kind for ServiceKind {
    type Object = Service;
    type Key = ServiceId;

    fn what(&self) -> &'static str {
        "Service"
    }

    fn insert(&self, state: &mut State, object: &Service) -> (ServiceId, Changed) {
        let key = Self::key(object);
        if let Some(mut facts) = ShadowFacts::of_ours(&state.namespace, object) {
            state.strings.share_id(&mut facts.service);
            state.strays.remove(&key.name);
            // Somebody may have added our labels only now.
            let known = state.services.remove(&key).is_some();
            let mut changed = if known { facts_changed(state, &key) } else { Changed::default() };
            let service = facts.service.clone();
            let before = state.put_shadow(facts);
            if before.as_ref() != state.shadows.get(&key.name) {
                changed.add(shadow_changed(state, &service));
            }
            return (key, changed);
        }
        let Some(mut facts) = ServiceFacts::of(object) else {
            let changed = self.remove(state, &key);
            return (key, changed);
        };
        state.strings.share_id(&mut facts.id);
        facts.ports.iter_mut().for_each(|port| state.strings.share(&mut port.name));
        // ... or have taken them off.
        let known = state.services.contains_key(&key);
        let mut changed = if known { Changed::default() } else { self.remove(state, &key) };
        let stray = is_remnant(&state.namespace, object);
        let strays = if stray {
            state.strays.insert(Arc::clone(&key.name))
        } else {
            key.namespace == state.namespace && state.strays.remove(&key.name)
        };
        let before = state.services.insert(facts.id.clone(), Arc::new(facts));
        if strays || before.as_ref() != state.services.get(&key) {
            changed.add(facts_changed(state, &key));
        }
        (key, changed)
    }

    fn remove(&self, state: &mut State, key: &ServiceId) -> Changed {
        let ours = key.namespace == state.namespace;
        if ours {
            state.strays.remove(&key.name);
        }
        if state.services.remove(key).is_some() {
            return facts_changed(state, key);
        }
        let shadow = if ours { state.take_shadow(&key.name) } else { None };
        shadow.map(|shadow| shadow_changed(state, &shadow.service)).unwrap_or_default()
    }

    fn keys(&self, state: &State) -> BTreeSet<ServiceId> {
        let shadow = |name: &Arc<str>| ServiceId::new(Arc::clone(&state.namespace), Arc::clone(name));
        state.services.keys().cloned().chain(state.shadows.keys().map(shadow)).collect()
    }

    fn key(object: &Service) -> ServiceId {
        ServiceId::new(object.namespace().unwrap_or_default(), object.name_any())
    }

    fn after(&self, index: &Index, state: &mut State, key: Option<&ServiceId>) {
        // Where an operator comes or goes, a MeshConfig begins or ceases to count.
        if key.is_none_or(|key| &*key.name == OPERATOR_SERVICE) {
            index.update_mesh(state);
        }
    }
}

/// The Service `id` came, went or changed: so do the splits it has a part in.
fn facts_changed(state: &State, id: &ServiceId) -> Changed {
    let above = state.smi.roots_above(id);
    let policies = !above.is_empty();
    Changed { services: above.into_iter().chain([id.clone()]).collect(), policies, ..Changed::default() }
}

/// The Service `id` has other listen ports. A backend that has none yet is left out of splits.
fn shadow_changed(state: &State, id: &ServiceId) -> Changed {
    Changed::services(state.smi.roots_above(id).into_iter().chain([id.clone()]))
}

/// Endpoint slices.
pub(crate) struct SliceKind;

impl Kind for SliceKind {
    type Object = EndpointSlice;
    /// Namespace and name of the slice.
    type Key = ServiceId;

    fn what(&self) -> &'static str {
        "EndpointSlice"
    }

    fn insert(&self, state: &mut State, object: &EndpointSlice) -> (Self::Key, Changed) {
        let key = Self::key(object);
        let Some(mut facts) = SliceFacts::of(object) else {
            let changed = self.remove(state, &key);
            return (key, changed);
        };
        state.strings.share_id(&mut facts.service);
        facts.ports.iter_mut().for_each(|port| state.strings.share(&mut port.name));
        for node in facts.endpoints.iter_mut().filter_map(|endpoint| endpoint.node.as_mut()) {
            state.strings.share(node);
        }
        let service = facts.service.clone();
        let moved = state.slice_services.get(&key).is_some_and(|before| *before != service);
        let mut changed = if moved { self.remove(state, &key) } else { Changed::default() };
        state.slice_services.insert(key.clone(), service.clone());
        let slices = state.slices.entry(service.clone()).or_default();
        let before = slices.insert(Arc::clone(&key.name), Arc::new(facts));
        if before.as_ref() != slices.get(&key.name) {
            changed.endpoints.insert(service);
        }
        (key, changed)
    }

    fn remove(&self, state: &mut State, key: &Self::Key) -> Changed {
        let Some(service) = state.slice_services.remove(key) else { return Changed::default() };
        if let Some(slices) = state.slices.get_mut(&service) {
            slices.remove(&key.name);
            if slices.is_empty() {
                state.slices.remove(&service);
            }
        }
        Changed::endpoints(service)
    }

    fn keys(&self, state: &State) -> BTreeSet<Self::Key> {
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

    fn what(&self) -> &'static str {
        "MeshConfig"
    }

    fn insert(&self, state: &mut State, object: &MeshConfig) -> (Self::Key, Changed) {
        let key = Self::key(object);
        let mut mesh = object.clone();
        // What operators write and nobody reads here: keeping it would make every status a change. Which domains a mesh has is
        // read, by all operators.
        let domains = mesh.status.take().map(|status| status.dns.domains).unwrap_or_default();
        mesh.status = Some(MeshConfigStatus {
            dns: DnsFound { domains, ..DnsFound::default() },
            ..MeshConfigStatus::default()
        });
        mesh.metadata.managed_fields = None;
        mesh.metadata.resource_version = None;
        state.meshes.insert(key.clone(), Arc::new(mesh));
        (key, Changed::default())
    }

    fn remove(&self, state: &mut State, key: &Self::Key) -> Changed {
        state.meshes.remove(key);
        Changed::default()
    }

    fn keys(&self, state: &State) -> BTreeSet<Self::Key> {
        state.meshes.keys().cloned().collect()
    }

    fn key(object: &MeshConfig) -> Self::Key {
        (object.namespace().unwrap_or_default(), object.name_any())
    }

    fn after(&self, index: &Index, state: &mut State, _key: Option<&Self::Key>) {
        index.update_mesh(state);
    }
}

#[cfg(test)]
mod tests;
