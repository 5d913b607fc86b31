//! Kubernetes facts to configuration. Pure: the same facts give the same resources on every replica.
//!
//! One Service at a time, so that one changed endpoint costs one Service.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_config::{Endpoints, EndpointsId, Entry, Port, Resource, Service, Split};

use crate::annotations::{self, Problem, Settings};
use crate::index::facts::{ServiceFacts, ServicePort, ShadowFacts, SliceFacts};
use crate::index::scope::Scope;

/// What became of one Service.
#[derive(Debug, Default)]
pub struct Compiled {
    /// Its resources.
    pub entries: Vec<Entry>,
    /// What was asked for it and could not be understood.
    pub problems: Vec<Problem>,
}

/// The resources of one Service: itself, and the endpoints of each of its ports. `scope` says what holds where it asks for
/// nothing and whether access is restricted, `splits` how the traffic of its ports is divided.
///
/// A port is carried once the shadow Service records a listen port for it. While it records none there is nothing.
pub fn service(
    service: &ServiceFacts,
    slices: &[Arc<SliceFacts>],
    shadow: Option<&ShadowFacts>,
    scope: &Scope,
    mut splits: BTreeMap<u16, Split>,
) -> Compiled {
    let defaults = &*scope.defaults();
    let listen_port = |port: u16| {
        let recorded = shadow?.ports.iter().find(|(number, _)| *number == port);
        recorded.map(|(_, listen_port)| *listen_port)
    };
    let (settings, problems) = Settings::of(service, defaults);
    let (traffic, timeouts) = (settings.traffic(service), settings.timeouts());
    let mut entries = Vec::new();
    let mut ports = Vec::new();
    for port in annotations::carried(service, defaults) {
        let Some(listen_port) = listen_port(port.port) else { continue };
        let id = EndpointsId { service: service.id.clone(), port: port.port };
        ports.push(Port {
            port: port.port,
            name: port.name.to_string(),
            listen_port,
            traffic: traffic.clone(),
            timeouts,
            endpoints: id.clone(),
            split: splits.remove(&port.port),
            restriction: scope.restriction(),
        });
        entries.push(Entry::new(Resource::Endpoints(id, endpoints(port, service.ipv6, slices))));
    }
    if !ports.is_empty() {
        entries.push(Entry::new(Resource::Service(Service { id: service.id.clone(), ports })));
    }
    Compiled { entries, problems }
}

/// Best last: of an endpoint that is in several slices (it may be while one is rewritten) the best state counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Unready,
    Draining,
    Ready,
}

/// The endpoints of `port`, over all slices of the Service's first address family. A slice's port belongs to the Service's
/// port of the same name and protocol; its number may differ from slice to slice.
fn endpoints(port: &ServicePort, ipv6: bool, slices: &[Arc<SliceFacts>]) -> Endpoints {
    let mut states: BTreeMap<SocketAddr, State> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.ipv6 == ipv6) {
        for here in slice.ports.iter().filter(|here| here.name == port.name && here.udp == port.udp) {
            for endpoint in &slice.endpoints {
                let state = match (endpoint.ready, endpoint.draining) {
                    (true, _) => State::Ready,
                    (false, true) => State::Draining,
                    (false, false) => State::Unready,
                };
                let known = states.entry(SocketAddr::new(endpoint.address, here.port)).or_insert(state);
                *known = state.max(*known);
            }
        }
    }
    let mut endpoints = Endpoints::default();
    for (address, state) in states {
        match state {
            State::Ready => endpoints.ready.push(address),
            State::Draining => endpoints.draining.push(address),
            State::Unready => endpoints.unready += 1,
        }
    }
    endpoints.ready.shrink_to_fit();
    endpoints.draining.shrink_to_fit();
    endpoints
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use k8s_openapi::api::core::v1::Service as KubeService;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde::Deserialize;

    use super::*;

    /// Compiles the objects in a YAML text and shows the result as people read it.
    fn compiled(yaml: &str) -> String {
        let (mut facts, mut slices, mut shadow) = (None, Vec::new(), None);
        for document in serde_yaml_ng::Deserializer::from_str(yaml) {
            let value = serde_yaml_ng::Value::deserialize(document).unwrap();
            if value["kind"] == "EndpointSlice" {
                let slice: EndpointSlice = serde_yaml_ng::from_value(value).unwrap();
                slices.push(Arc::new(SliceFacts::of(&slice).unwrap()));
            } else {
                let object: KubeService = serde_yaml_ng::from_value(value).unwrap();
                match ShadowFacts::of(&object) {
                    Some(found) => shadow = Some(found),
                    None => facts = ServiceFacts::of(&object),
                }
            }
        }
        let mut text = String::new();
        let compiled = service(&facts.unwrap(), &slices, shadow.as_ref(), &Scope::default(), BTreeMap::new());
        for problem in &compiled.problems {
            let _ = writeln!(text, "Problem: {problem}");
        }
        for entry in compiled.entries {
            match &*entry.resource {
                Resource::Endpoints(id, e) => {
                    let _ = write!(
                        text,
                        "Endpoints {id}\n  ready {:?}\n  draining {:?}\n  unready {}\n",
                        e.ready, e.draining, e.unready
                    );
                }
                Resource::Service(service) => {
                    let _ = writeln!(text, "Service {}", service.id);
                    for p in &service.ports {
                        let _ = writeln!(
                            text,
                            "  port {} {:?} listens on {} leads to {}",
                            p.port, p.name, p.listen_port, p.endpoints
                        );
                        if p.traffic != weft_config::Traffic::default()
                            || p.timeouts != weft_config::Timeouts::default()
                        {
                            let _ = writeln!(text, "    {:?} {:?}", p.traffic, p.timeouts);
                        }
                    }
                }
                other => {
                    let _ = writeln!(text, "{other:?}");
                }
            }
        }
        text
    }

    macro_rules! golden {
        ($name:ident) => {
            #[test]
            fn $name() {
                let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/compile/", stringify!($name), ".yaml");
                insta::assert_snapshot!(compiled(&std::fs::read_to_string(path).unwrap()));
            }
        };
    }

    golden!(several_ports);
    golden!(ports_that_differ_per_pod);
    golden!(ready_draining_and_not);
    golden!(dual_stack);
    golden!(no_shadow_yet);
    golden!(a_renamed_and_a_removed_port);
    golden!(nothing_behind_it);
    golden!(annotated);
    golden!(datagrams);
}
