//! Applies updates: resources to table entries, backends and listeners. One task owns the [`Applier`]; a change costs what
//! it changes, not what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_config::wire::v1;
use weft_config::{
    Access, Entry, Identity, Port, Resource, ResourceKey, Restriction, Service, ServiceId, Update,
};

use super::entries::Entries;
use super::{Tables, held};
use crate::access::Accounts;
use crate::listen::{Listeners, Transport};
use crate::metrics::Metrics;

/// Everything this proxy holds, and what was made of it.
pub struct Applier {
    tables: Arc<Tables>,
    listeners: Arc<Listeners>,
    metrics: Arc<Metrics>,
    entries: Entries,
    held: held::Shared,
    /// Resources refused in their latest form, and why.
    rejections: BTreeMap<ResourceKey, String>,
    /// Those of them that may be served once a port is closed.
    refused: BTreeMap<ResourceKey, Entry>,
    /// A port was closed.
    closed: bool,
}

impl Applier {
    /// Holds nothing yet.
    pub fn new(tables: Arc<Tables>, listeners: Arc<Listeners>, metrics: Arc<Metrics>) -> Self {
        let entries = Entries::new(Arc::clone(&tables), Arc::clone(&metrics));
        let (held, rejections, refused, closed) = Default::default();
        Self { tables, listeners, metrics, entries, held, rejections, refused, closed }
    }

    /// What is held.
    pub fn held(&self) -> &held::Shared {
        &self.held
    }

    /// Who is who, as far as this proxy was told.
    pub fn accounts(&self) -> &Accounts {
        &self.tables.accounts
    }

    /// What was refused and still is.
    pub fn rejections(&self) -> &BTreeMap<ResourceKey, String> {
        &self.rejections
    }

    /// Forgets what was refused: whoever still wants it sends it again.
    pub fn forget_refused(&mut self) {
        self.rejections.clear();
        self.refused.clear();
    }

    /// Applies `update`; a resource that cannot be served keeps its old form and is noted as rejected.
    ///
    /// One that was refused is tried again when a port has been closed, and closes what it no longer wants as soon as another that was
    /// refused does. So whatever was held before, what leads to a configuration in which no two Services want one port is taken whole.
    ///
    /// Removals and Services whose ports move come before what takes their place; endpoints come before the Services that
    /// lead to them, so that no request meets a Service without its endpoints. Who is who and who may do what come before
    /// the ports that ask for it, and go after them: a port is restricted only while that is known.
    pub fn apply(&mut self, update: &Update) {
        let (people, places): (Vec<_>, Vec<_>) = update.removals.iter().partition(|key| is_of_access(key));
        for key in places {
            self.remove(key);
        }
        let identities = update.upserts.iter().filter_map(|entry| match &*entry.resource {
            Resource::Identity(id, identity) => Some((id, identity)),
            _ => None,
        });
        self.tables.accounts.set_identities(identities);
        let mut upserts: Vec<_> = update.upserts.iter().collect();
        upserts.sort_by_key(|entry| order(&entry.resource));
        for entry in upserts {
            self.upsert(entry);
        }
        let gone = people.iter().filter_map(|key| match key {
            ResourceKey::Identity(id) => Some((id, NOBODY)),
            _ => None,
        });
        self.tables.accounts.set_identities(gone);
        for key in people {
            self.remove(key);
        }
        // What is taken now may close a port that another one waits for, and some may wait for one another.
        while std::mem::take(&mut self.closed) || self.let_go() {
            for entry in std::mem::take(&mut self.refused).into_values() {
                self.upsert(&entry);
            }
        }
        self.entries.forget_unused();
        self.metrics.resources.set(i64::try_from(self.held.lock().len()).unwrap_or(i64::MAX));
        self.metrics.rejected.set(i64::try_from(self.rejections.len()).unwrap_or(i64::MAX));
    }

    /// Each of those that were refused closes the ports that it no longer wants and another of them does. Whether there were any.
    fn let_go(&self) -> bool {
        let refused = self.refused.values().filter_map(|entry| service_of(&entry.resource));
        let wanted: BTreeSet<u16> =
            refused.clone().flat_map(|service| &service.ports).map(|port| port.listen_port).collect();
        let mut any = false;
        for service in refused {
            let wants = |port: &Port| service.ports.iter().any(|one| one.listen_port == port.listen_port);
            let before = self.held_ports(&service.id);
            let (gone, ports): (Vec<_>, Vec<_>) =
                before.into_iter().partition(|port| !wants(port) && wanted.contains(&port.listen_port));
            if gone.is_empty() {
                continue;
            }
            any = true;
            for port in gone {
                self.close(port.listen_port);
            }
            self.hold(&service.id, ports);
        }
        any
    }

    /// Notes a resource that could not even be decoded. Its old form stays, but not when it is about access: what cannot be
    /// understood allows nothing.
    pub fn reject(&mut self, key: ResourceKey, reason: String) {
        match &key {
            ResourceKey::Access(id) => self.tables.accounts.set_access(id, &Access::default()),
            ResourceKey::Identity(id) => self.tables.accounts.set_identities([(id, NOBODY)]),
            ResourceKey::Service(_) | ResourceKey::Endpoints(_) => {}
        }
        if is_of_access(&key) {
            self.held.lock().remove(&key);
        }
        self.refused.remove(&key);
        self.rejections.insert(key, reason);
    }

    fn upsert(&mut self, entry: &Entry) {
        let key = entry.resource.key();
        let applied = match &*entry.resource {
            Resource::Service(service) => self.upsert_service(service),
            Resource::Endpoints(id, endpoints) => {
                self.entries.set_endpoints(id, endpoints);
                Ok(())
            }
            // All of an update at once, before this.
            Resource::Identity(..) => Ok(()),
            Resource::Access(id, access) => {
                self.tables.accounts.set_access(id, access);
                Ok(())
            }
        };
        match applied {
            Ok(()) => {
                self.rejections.remove(&key);
                self.refused.remove(&key);
                self.held.lock().insert(entry);
            }
            Err(reason) => {
                if self.rejections.get(&key) != Some(&reason) {
                    tracing::warn!(resource = %key, reason, "refused");
                }
                self.refused.insert(key.clone(), entry.clone());
                self.rejections.insert(key, reason);
                // Its ports go on as they were, but not unrestricted when they should no longer be.
                if let Resource::Service(service) = &*entry.resource {
                    let restricted = |port: &Port| Some((port.listen_port, port.restriction?));
                    let ports: Vec<_> = service.ports.iter().filter_map(restricted).collect();
                    self.restrict_ports(&service.id, &ports);
                }
            }
        }
    }

    /// Of a Service that could not be decoded at least this is taken: which of its ports are restricted.
    pub fn restrict(&mut self, name: &str, service: &v1::Service) {
        let Some((namespace, name)) = name.split_once('/') else { return };
        let restricted = |port: &v1::Port| {
            let listen_port = u16::try_from(port.listen_port).ok()?;
            Some((listen_port, Restriction::of_wire(port.restriction?)))
        };
        let ports: Vec<_> = service.ports.iter().filter_map(restricted).collect();
        self.restrict_ports(&ServiceId::new(namespace, name), &ports);
    }

    /// Restricts those of the ports held for the Service `id` that are named here. So they are held, too: whoever starts from the
    /// snapshot knows nothing of what was refused.
    fn restrict_ports(&mut self, id: &ServiceId, named: &[(u16, Restriction)]) {
        let mut ports = self.held_ports(id);
        let mut any = false;
        for port in &mut ports {
            let named = named.iter().find(|(listen_port, _)| *listen_port == port.listen_port);
            if let Some((_, restriction)) = named.filter(|(_, new)| port.restriction != Some(*new)) {
                port.restriction = Some(*restriction);
                let entry = self.entries.entry(id, port);
                self.tables.set(port.listen_port, Some(entry));
                any = true;
            }
        }
        if any {
            self.hold(id, ports);
            self.tables.accounts.tell();
        }
    }

    /// Of the Service `id` just these are held.
    fn hold(&self, id: &ServiceId, ports: Vec<Port>) {
        self.held.lock().insert(&Entry::new(Resource::Service(Service { id: id.clone(), ports })));
    }

    /// Binds what is new first: when a port cannot be had the Service stays as it was.
    fn upsert_service(&mut self, service: &Service) -> Result<(), String> {
        let before = self.held_ports(&service.id);
        let mut bound = Vec::new();
        for port in &service.ports {
            let taken = self.tables.port(port.listen_port);
            if let Some(other) = taken.as_ref().filter(|entry| entry.service != service.id) {
                return Err(format!("listen port {} belongs to {}", port.listen_port, &**other));
            }
        }
        let ours = |port: &&Port| before.iter().any(|old| old.listen_port == port.listen_port);
        for port in service.ports.iter().filter(|port| !ours(port)) {
            // In the tables before anybody is let in: else who connects at once finds nothing behind the port.
            let entry = self.entries.entry(&service.id, port);
            let set = || self.tables.set(port.listen_port, Some(entry));
            if let Err(error) = self.listeners.open(port.listen_port, Transport::of(&port.traffic), set) {
                self.unbind(&bound);
                return Err(format!("cannot listen on port {}: {error}", port.listen_port));
            }
            bound.push(port.listen_port);
        }
        // Another type on the same port: what listens there changes, too.
        for port in service.ports.iter().filter(ours) {
            let transport = Transport::of(&port.traffic);
            if let Err(error) = self.listeners.switch(port.listen_port, transport) {
                self.unbind(&bound);
                self.switch_back(&before);
                return Err(format!("cannot listen on port {} for {transport}: {error}", port.listen_port));
            }
        }
        let restrictions = |ports: &[Port]| -> Vec<_> {
            ports.iter().map(|port| (port.listen_port, port.restriction)).collect()
        };
        for port in service.ports.iter().filter(|port| !bound.contains(&port.listen_port)) {
            let entry = self.entries.entry(&service.id, port);
            self.tables.set(port.listen_port, Some(entry));
        }
        if restrictions(&service.ports) != restrictions(&before) {
            // Open connections are looked at again.
            self.tables.accounts.tell();
        }
        for old in &before {
            if !service.ports.iter().any(|port| port.listen_port == old.listen_port) {
                self.close(old.listen_port);
                self.closed = true;
            }
        }
        let kept: Vec<_> = service.ports.iter().map(|port| port.port).collect();
        self.metrics.forget_all_but(&service.id, &kept);
        Ok(())
    }

    fn remove(&mut self, key: &ResourceKey) {
        self.rejections.remove(key);
        self.refused.remove(key);
        match key {
            ResourceKey::Service(id) => {
                for port in self.held_ports(id) {
                    self.close(port.listen_port);
                    self.closed = true;
                }
                self.metrics.forget_all_but(id, &[]);
            }
            ResourceKey::Endpoints(id) => self.entries.remove_endpoints(id),
            // All of an update at once, before this.
            ResourceKey::Identity(_) => {}
            ResourceKey::Access(id) => self.tables.accounts.set_access(id, &Access::default()),
        }
        self.held.lock().remove(key);
    }

    fn held_ports(&self, id: &ServiceId) -> Vec<Port> {
        let held = self.held.lock().get(&ResourceKey::Service(id.clone()));
        match held.map(|entry| Arc::unwrap_or_clone(entry.resource)) {
            Some(Resource::Service(service)) => service.ports,
            _ => Vec::new(),
        }
    }

    fn close(&self, listen_port: u16) {
        self.tables.set(listen_port, None);
        self.listeners.close(listen_port);
    }

    /// Whatever was switched listens again for what it is in the tables.
    fn switch_back(&self, ports: &[Port]) {
        for port in ports {
            let transport = Transport::of(&port.traffic);
            if let Err(error) = self.listeners.switch(port.listen_port, transport) {
                tracing::error!(port = port.listen_port, %error, "cannot listen for {transport} again");
            }
        }
    }

    fn unbind(&self, ports: &[u16]) {
        for port in ports {
            self.close(*port);
        }
    }
}

/// Nobody runs as it.
const NOBODY: &Identity = &Identity { addresses: Vec::new() };

fn service_of(resource: &Resource) -> Option<&Service> {
    match resource {
        Resource::Service(service) => Some(service),
        _ => None,
    }
}

fn is_of_access(key: &ResourceKey) -> bool {
    matches!(key, ResourceKey::Identity(_) | ResourceKey::Access(_))
}

/// What of an update comes first.
fn order(resource: &Resource) -> u8 {
    match resource {
        Resource::Identity(..) => 0,
        Resource::Access(..) => 1,
        Resource::Endpoints(..) => 2,
        Resource::Service(_) => 3,
    }
}
