//! What the Service Mesh Interface makes of the cluster as the index knows it: the look-ups that [`crate::smi`], which is pure,
//! is given.

use std::collections::BTreeMap;

use weft_config::{AccountId, Entry, Resource, ServiceId, Split};

use crate::annotations::{self, Settings};
use crate::index::Index;
use crate::index::facts::ServiceFacts;
use crate::smi::split::RootPort;
use crate::smi::{self, Finding, access, split};

/// The splits of the ports of `service`, which is in the mesh. Only backends that the proxies know have a share.
pub fn splits(index: &Index, service: &ServiceFacts) -> BTreeMap<u16, Split> {
    let objects = index.smi();
    if objects.forest(&service.id.namespace).is_none_or(|forest| forest.get(&service.id).is_none()) {
        return BTreeMap::new();
    }
    let has_port = |backend: &ServiceId, port: RootPort| {
        let has = has_port(index, backend, port)?;
        let shadow = index.shadow(backend);
        Some(has && shadow.is_some_and(|shadow| shadow.ports.iter().any(|(number, _)| *number == port.port)))
    };
    let ports = root_ports(service, &index.defaults());
    let split = |port: RootPort| Some((port.port, split::of(&service.id, port, &objects, &has_port)?));
    ports.into_iter().filter_map(split).collect()
}

/// What may be sent to whom. Nothing is said while access control is not enforced.
pub fn access(index: &Index) -> Vec<Entry> {
    let scope = index.scope();
    if scope.restriction().is_none() {
        return Vec::new();
    }
    let all = access::all(&index.smi(), &|namespace| scope.covers(namespace));
    all.into_iter().map(|(account, access)| Entry::new(Resource::Access(account, access))).collect()
}

/// Who runs as `account`. Nothing is said while access control is not enforced, nor of nobody.
pub fn identity(index: &Index, account: &AccountId) -> Vec<Entry> {
    let identity = index.identity(account);
    if index.scope().restriction().is_none() || identity.addresses.is_empty() {
        return Vec::new();
    }
    vec![Entry::new(Resource::Identity(account.clone(), identity))]
}

/// What became of each object.
pub fn findings(index: &Index) -> Vec<Finding> {
    let scope = index.scope();
    let ports = |id: &ServiceId| index.meshed(id).map(|service| root_ports(&service, &scope.defaults()));
    smi::review(
        &index.smi(),
        &|namespace| scope.covers(namespace),
        &ports,
        &|backend, port| has_port(index, backend, port),
        scope.restriction().is_some(),
    )
}

/// Whether `backend` has a port of that number and protocol. `None`: it is not in the mesh.
fn has_port(index: &Index, backend: &ServiceId, port: RootPort) -> Option<bool> {
    let service = index.meshed(backend)?;
    let fits = root_ports(&service, &index.defaults());
    Some(fits.into_iter().any(|one| (one.port, one.udp) == (port.port, port.udp)))
}

fn root_ports(service: &ServiceFacts, defaults: &Settings) -> Vec<RootPort> {
    let http = annotations::is_http(service, defaults);
    let ports = annotations::carried(service, defaults);
    ports.map(|port| RootPort { port: port.port, http, udp: port.udp }).collect()
}

#[cfg(test)]
pub(crate) mod tests;
