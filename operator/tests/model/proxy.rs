//! One proxy: what it takes of an update and what it refuses, as the real one does ([tables/apply.rs] of the proxy). When it is told,
//! by whom, and what becomes of its connections is [`crate::cluster`]'s.
//!
//! [tables/apply.rs]: ../../../proxy/src/tables/apply.rs

use std::collections::{BTreeMap, BTreeSet};

use weft_config::{Entry, Resource, ResourceKey, ResourceSet, Service, ServiceId, Update};

use crate::simulated::paths::Key;
use crate::world::Process;

/// A port of a Service.
pub(crate) type Owner = (ServiceId, u16);

/// A proxy pod.
pub(crate) struct Proxy {
    pub(crate) node: usize,
    pub(crate) address: String,
    pub(crate) pod: Key,
    /// The hash of the template it was made from.
    pub(crate) template: String,
    /// Not deleted.
    pub(crate) up: bool,
    pub(crate) connected: Option<Process>,
    /// Of the configuration of the replica it is connected to.
    pub(crate) version: u64,
    pub(crate) held: ResourceSet,
    /// What it could not take: a listen port is another's.
    pub(crate) refused: BTreeMap<ResourceKey, Entry>,
    /// What arrives on each port is for whom.
    pub(crate) listens: BTreeMap<u16, Owner>,
    /// Ports that are closed, with connections for whom that have not left.
    pub(crate) leaving: BTreeMap<u16, Owner>,
    /// Ports that it took from a replica that was behind, when they were no longer his for whom it holds them.
    pub(crate) stale: BTreeSet<u16>,
    pub(crate) scheduled: bool,
    /// Since when it has a configuration.
    pub(crate) ready_since: Option<u64>,
}

impl Proxy {
    pub(crate) fn new(node: usize, address: String, pod: Key, template: String) -> Self {
        Self {
            node,
            address,
            pod,
            template,
            up: true,
            connected: None,
            version: 0,
            held: ResourceSet::default(),
            refused: BTreeMap::new(),
            listens: BTreeMap::new(),
            leaving: BTreeMap::new(),
            stale: BTreeSet::new(),
            scheduled: false,
            ready_since: None,
        }
    }

    /// A Service that wants a listen port of another stays as it was; it is tried again when a port was closed. Those that wait for one
    /// another let go.
    pub(crate) fn take(&mut self, update: &Update) {
        let mut closed = false;
        for key in &update.removals {
            closed |= !self.ports_of(key).is_empty();
            self.refused.remove(key);
            self.held.remove(key);
        }
        for entry in &update.upserts {
            closed |= self.upsert(entry);
        }
        while std::mem::take(&mut closed) || self.let_go() {
            for entry in std::mem::take(&mut self.refused).into_values() {
                closed |= self.upsert(&entry);
            }
        }
    }

    /// Each of those that were refused closes the ports that it no longer wants and another of them does. Whether there were any.
    fn let_go(&mut self) -> bool {
        let wanted: BTreeSet<u16> =
            self.refused.values().flat_map(|entry| listen_ports(&entry.resource)).collect();
        let mut any = false;
        for (key, entry) in &self.refused {
            let wants: BTreeSet<_> = listen_ports(&entry.resource).collect();
            let held = self.held.get(key).and_then(|entry| service_of(&entry.resource).cloned());
            let Some(mut service) = held else { continue };
            let before = service.ports.len();
            service
                .ports
                .retain(|port| wants.contains(&port.listen_port) || !wanted.contains(&port.listen_port));
            if service.ports.len() < before {
                any = true;
                self.held.insert(Entry::new(Resource::Service(service)));
            }
        }
        any
    }

    /// Whether a port was closed by it.
    fn upsert(&mut self, entry: &Entry) -> bool {
        let key = entry.resource.key();
        let wanted: BTreeSet<_> = listen_ports(&entry.resource).collect();
        let means = self.means();
        let another = |(id, _): &Owner| key != ResourceKey::Service(id.clone());
        if wanted.iter().any(|port| means.get(port).is_some_and(another)) {
            self.refused.insert(key, entry.clone());
            return false;
        }
        let closed = !self.ports_of(&key).is_subset(&wanted);
        self.refused.remove(&key);
        self.held.insert(entry.clone());
        closed
    }

    fn ports_of(&self, key: &ResourceKey) -> BTreeSet<u16> {
        self.held.get(key).map(|entry| listen_ports(&entry.resource).collect()).unwrap_or_default()
    }

    /// What arrives on each port is for whom, by what it holds.
    pub(crate) fn means(&self) -> BTreeMap<u16, Owner> {
        let services = self.held.iter().filter_map(|entry| service_of(&entry.resource));
        let ports = services.flat_map(|service| {
            service.ports.iter().map(|port| (port.listen_port, (service.id.clone(), port.port)))
        });
        ports.collect()
    }
}

fn service_of(resource: &Resource) -> Option<&Service> {
    match resource {
        Resource::Service(service) => Some(service),
        _ => None,
    }
}

fn listen_ports(resource: &Resource) -> impl Iterator<Item = u16> {
    service_of(resource).into_iter().flat_map(|service| service.ports.iter().map(|port| port.listen_port))
}
