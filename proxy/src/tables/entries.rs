//! What ports come to in the tables: their policies compiled, and the backends they lead to. Both are shared by all that ask for the same.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use weft_config::{Endpoints, EndpointsId, HttpPolicy, Port, ServiceId, Timeouts, Traffic};

use super::{Backend, PortEntry, PortTraffic, Tables};
use crate::balance::EndpointList;
use crate::balance::split::{Share, Split};
use crate::http::upstream::{HttpPort, Rules};
use crate::metrics::Metrics;

/// How many compiled policies are kept for others that ask for the same.
const RULES_KEPT: usize = 8;

/// What ports are made from.
pub(super) struct Entries {
    tables: Arc<Tables>,
    metrics: Arc<Metrics>,
    /// The latest that were compiled: most ports ask for the same as others do.
    rules: VecDeque<Arc<Rules>>,
    backends: HashMap<EndpointsId, Arc<Backend>>,
    /// Backends whose endpoints are not held. They are there for as long as something leads to them.
    without_endpoints: HashSet<EndpointsId>,
}

impl Entries {
    pub(super) fn new(tables: Arc<Tables>, metrics: Arc<Metrics>) -> Self {
        let (rules, backends, without_endpoints) = Default::default();
        Self { tables, metrics, rules, backends, without_endpoints }
    }

    /// The entry of a port of `service`.
    pub(super) fn entry(&mut self, service: &ServiceId, port: &Port) -> Arc<PortEntry> {
        let traffic = match &port.traffic {
            Traffic::Http(policy) => PortTraffic::Http(self.http(port, policy)),
            Traffic::Tcp => PortTraffic::Tcp,
            Traffic::Udp => PortTraffic::Udp,
        };
        let breaker = match &traffic {
            PortTraffic::Http(http) => http.breaker.clone(),
            PortTraffic::Tcp | PortTraffic::Udp => None,
        };
        Arc::new(PortEntry {
            service: service.clone(),
            port: port.port,
            listen_port: port.listen_port,
            name: port.name.as_str().into(),
            // Made empty when its endpoints have not come: it answers 503 until they do.
            backend: self.backend(&port.endpoints),
            split: port.split.as_ref().map(|split| self.split(split)),
            restriction: port.restriction,
            traffic,
            timeouts: port.timeouts,
            metrics: self.metrics.port(service, port.port, breaker),
            edges: Arc::clone(&self.metrics.edges),
        })
    }

    /// From now on the backend `id` has these.
    pub(super) fn set_endpoints(&mut self, id: &EndpointsId, endpoints: &Endpoints) {
        let backend = self.backend(id);
        self.without_endpoints.remove(id);
        let list = EndpointList::new(endpoints, &backend.endpoints.load());
        backend.endpoints.store(Arc::new(list));
    }

    /// The backend `id` has none. A Service may still lead to it: that must answer 503, not use what is gone, and find them should
    /// they come back.
    pub(super) fn remove_endpoints(&mut self, id: &EndpointsId) {
        if let Some(backend) = self.backends.get(id) {
            backend.endpoints.store(Arc::default());
            self.without_endpoints.insert(id.clone());
        }
    }

    /// Forgets the backends without endpoints to which nothing leads any more, no request that is under way either.
    pub(super) fn forget_unused(&mut self) {
        let backends = &mut self.backends;
        self.without_endpoints.retain(|id| {
            let used = backends.get(id).is_some_and(|backend| Arc::strong_count(backend) > 1);
            if !used {
                backends.remove(id);
            }
            used
        });
    }

    fn backend(&mut self, id: &EndpointsId) -> Arc<Backend> {
        if let Some(backend) = self.backends.get(id) {
            return Arc::clone(backend);
        }
        let backend = Arc::new(Backend::new(id.clone()));
        self.without_endpoints.insert(id.clone());
        self.backends.insert(id.clone(), Arc::clone(&backend));
        backend
    }

    fn split(&mut self, split: &weft_config::Split) -> Split {
        let mut shares = Vec::with_capacity(split.backends.len());
        for one in &split.backends {
            let nested = one.split.as_ref().map(|nested| self.split(nested));
            shares.push(Share { backend: self.backend(&one.endpoints), weight: one.weight, split: nested });
        }
        Split::new(split.matches.clone(), shares)
    }

    /// The compiled policy; the one there is when it was made from the same.
    fn http(&mut self, port: &Port, policy: &HttpPolicy) -> Arc<HttpPort> {
        let before = self.tables.port(port.listen_port);
        let before = before.as_ref().and_then(|entry| entry.http());
        match before.filter(|http| http.is_for(policy, port.timeouts)) {
            Some(same) => Arc::clone(same),
            None => Arc::new(HttpPort::new(self.rules(policy, port.timeouts))),
        }
    }

    fn rules(&mut self, policy: &HttpPolicy, timeouts: Timeouts) -> Arc<Rules> {
        if let Some(same) = self.rules.iter().find(|rules| rules.are_for(policy, timeouts)) {
            return Arc::clone(same);
        }
        let new = Arc::new(Rules::new(policy, timeouts));
        self.rules.truncate(RULES_KEPT - 1);
        self.rules.push_front(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_there_while_it_has_endpoints_or_something_leads_to_it() {
        let mut entries = Entries::new(Arc::default(), Arc::default());
        let id = EndpointsId { service: ServiceId::new("shop", "cart"), port: 80 };
        let request = entries.backend(&id);
        entries.set_endpoints(&id, &Endpoints::default());
        drop(request);
        entries.forget_unused();
        let request = Arc::clone(&entries.backends[&id]);
        entries.remove_endpoints(&id);
        entries.forget_unused();
        assert!(entries.backends.contains_key(&id), "a request is under way");
        drop(request);
        entries.forget_unused();
        assert!(entries.backends.is_empty() && entries.without_endpoints.is_empty());
    }
}
