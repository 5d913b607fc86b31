//! What is kept of each object: the few fields that matter, and how they are read.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_config::ServiceId;
use weft_config::contract::PROXY_SERVICE_ACCOUNT;

use crate::annotations;
use crate::apply::{applied_by_us, made_by_us};
use crate::names::ShadowName;

/// Marks a shadow Service, and by Kubernetes' doing its `EndpointSlices`, which are not read.
pub const SHADOW_LABEL: &str = "weft.mesh/shadow";
/// Label of the shadow Services, whose Endpoints get it too: no controller need look for slices made from these
/// (`discovery.k8s.io`, `LabelSkipMirror`). Where it does, it goes through all slices of our namespace each time.
pub const SKIP_MIRROR_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
/// On a shadow Service: namespace of the Service it stands for.
pub const NAMESPACE_LABEL: &str = "weft.mesh/service-namespace";
/// On a shadow Service: name of the Service it stands for.
pub const NAME_LABEL: &str = "weft.mesh/service-name";
/// On an EndpointSlice: its Service (Kubernetes' own).
pub(crate) const SLICE_SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its number.
    pub port: u16,
    /// Its name; empty when it has none.
    pub name: Arc<str>,
    /// `protocol: UDP`; TCP otherwise.
    pub udp: bool,
}

/// A Service of the user's or of our own, but no shadow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Namespace and name.
    pub id: ServiceId,
    /// The object's uid.
    pub uid: Arc<str>,
    /// Its TCP and UDP ports, by number.
    pub ports: Vec<ServicePort>,
    /// Those of its annotations that are meant for a mesh, by their whole keys.
    pub annotations: BTreeMap<Arc<str>, Arc<str>>,
    /// `type: ExternalName`.
    pub external_name: bool,
    /// Some mesh's operator made it, ours or another: a shadow, or the proxies' own.
    pub of_a_mesh: bool,
    /// Its first family is IPv6.
    pub ipv6: bool,
    /// `None` when headless.
    pub cluster_ip: Option<IpAddr>,
}

impl ServiceFacts {
    /// Reads a Service. `None`: it has no name, which only a broken API server sends.
    pub fn of(service: &Service) -> Option<Self> {
        let id = ServiceId::new(service.metadata.namespace.as_deref()?, service.metadata.name.as_deref()?);
        let spec = service.spec.as_ref()?;
        let mut ports: Vec<_> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                let name = port.name.as_deref().unwrap_or_default().into();
                let udp = is_udp(port.protocol.as_deref())?;
                Some(ServicePort { port: u16::try_from(port.port).ok()?, name, udp })
            })
            .collect();
        ports.sort_by_key(|port| (port.port, port.udp));
        ports.shrink_to_fit();
        let annotations = service.metadata.annotations.iter().flatten();
        Some(Self {
            id,
            uid: service.metadata.uid.as_deref().unwrap_or_default().into(),
            ports,
            annotations: annotations
                .filter(|(key, _)| annotations::PREFIXES.iter().any(|prefix| key.starts_with(prefix)))
                .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
                .collect(),
            external_name: spec.type_.as_deref() == Some("ExternalName"),
            of_a_mesh: made_by_us(&service.metadata),
            ipv6: spec.ip_families.iter().flatten().next().is_some_and(|family| family == "IPv6"),
            cluster_ip: spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()),
        })
    }
}

/// A shadow Service: what it stands for and the listen ports it records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowFacts {
    /// The Service it stands for.
    pub service: ServiceId,
    /// Its own name.
    pub name: Arc<str>,
    /// Its uid: under its name may be another by now.
    pub uid: Arc<str>,
    /// When it was made, in seconds since the epoch.
    pub created: i64,
    /// (Port number, listen port).
    pub ports: Vec<(u16, u16)>,
    /// Where it is reached: the addresses that its mesh name leads to.
    pub cluster_ips: Vec<IpAddr>,
    /// [`fingerprint`] of the object.
    pub fingerprint: u64,
}

impl ShadowFacts {
    /// What `service` records as a shadow of the mesh in `namespace`: one that lies there, made by us, under the name that follows
    /// from what it stands for. Labels alone make no shadow: anybody may put them on.
    pub fn of_ours(namespace: &str, service: &Service) -> Option<Self> {
        let there = service.metadata.namespace.as_deref() == Some(namespace);
        if !there || !is_labelled(service) || !made_by_us(&service.metadata) {
            return None;
        }
        Self::of(service).filter(|facts| ShadowName::of(&facts.service).as_str() == &*facts.name)
    }

    /// Reads a shadow Service. `None`: it does not say what it stands for.
    pub fn of(service: &Service) -> Option<Self> {
        let labels = service.metadata.labels.as_ref()?;
        Some(Self {
            service: ServiceId::new(labels.get(NAMESPACE_LABEL)?.as_str(), labels.get(NAME_LABEL)?.as_str()),
            name: service.metadata.name.as_deref()?.into(),
            uid: service.metadata.uid.as_deref().unwrap_or_default().into(),
            created: created(service),
            ports: listen_ports(service),
            cluster_ips: cluster_ips(service),
            fingerprint: fingerprint(service),
        })
    }
}

/// (Port number, listen port) of a shadow, or of what was one.
pub fn listen_ports(service: &Service) -> Vec<(u16, u16)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let both = ports.filter_map(|port| match port.target_port {
        Some(IntOrString::Int(target)) => Some((u16::try_from(port.port).ok()?, u16::try_from(target).ok()?)),
        _ => None,
    });
    both.collect()
}

/// When it was made, in seconds since the epoch.
pub fn created(service: &Service) -> i64 {
    service.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

fn is_labelled(service: &Service) -> bool {
    service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(SHADOW_LABEL))
}

/// Whether we made `service` as a shadow in `namespace`, whatever somebody has made of its labels since. With
/// [`ShadowFacts::of_ours`] it is one; else it has to become one again, or to go.
pub fn is_remnant(namespace: &str, service: &Service) -> bool {
    let metadata = &service.metadata;
    let there = metadata.namespace.as_deref() == Some(namespace);
    // The only other Service that we make.
    there
        && metadata.name.as_deref() != Some(PROXY_SERVICE_ACCOUNT)
        && (applied_by_us(metadata) || (is_labelled(service) && made_by_us(metadata)))
}

/// The addresses of a Service; none when it is headless.
fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let first = spec.cluster_ip.iter();
    let all = spec.cluster_ips.iter().flatten().filter(|ip| spec.cluster_ip.as_ref() != Some(ip));
    first.chain(all).filter_map(|ip| ip.parse().ok()).collect()
}

/// Hash of the fields that we write on a shadow Service. Two Services with the same one need no write between them; not
/// comparable between versions of the operator, so never stored.
pub fn fingerprint(service: &Service) -> u64 {
    let mut hasher = DefaultHasher::new();
    let ours = |map: &Option<BTreeMap<String, String>>| -> Vec<(String, String)> {
        let all = map.iter().flatten();
        let ours = |key: &str| {
            key.starts_with("weft.mesh/") || key.starts_with("app.kubernetes.io/") || key == SKIP_MIRROR_LABEL
        };
        all.filter(|(key, _)| ours(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    ours(&service.metadata.labels).hash(&mut hasher);
    for owner in service.metadata.owner_references.iter().flatten() {
        (&owner.kind, &owner.name, &owner.uid).hash(&mut hasher);
    }
    if let Some(spec) = &service.spec {
        spec.selector.hash(&mut hasher);
        spec.traffic_distribution.hash(&mut hasher);
        // As the API server fills them in.
        spec.type_.as_deref().unwrap_or("ClusterIP").hash(&mut hasher);
        spec.internal_traffic_policy.as_deref().unwrap_or("Cluster").hash(&mut hasher);
        for port in spec.ports.iter().flatten() {
            (port.name.as_deref().unwrap_or_default(), port.port, is_udp(port.protocol.as_deref()))
                .hash(&mut hasher);
            format!("{:?}", port.target_port).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Whether `protocol` is UDP or TCP, the default. `None`: neither, which no proxy carries.
fn is_udp(protocol: Option<&str>) -> Option<bool> {
    match protocol {
        None | Some("TCP") => Some(false),
        Some("UDP") => Some(true),
        Some(_) => None,
    }
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceFacts {
    /// The Service it belongs to.
    pub service: ServiceId,
    /// `addressType: IPv6`.
    pub ipv6: bool,
    /// The Service's ports on these endpoints.
    pub ports: Vec<ServicePort>,
    /// The endpoints.
    pub endpoints: Vec<EndpointFacts>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointFacts {
    /// Its address; of several, which the API calls fungible, the first.
    pub address: IpAddr,
    /// Takes requests.
    pub ready: bool,
    /// Is being deleted and still takes requests.
    pub draining: bool,
    /// The node it is on.
    pub node: Option<Arc<str>>,
}

impl SliceFacts {
    /// Reads a slice. `None`: it belongs to no Service, or holds names instead of addresses.
    pub fn of(slice: &EndpointSlice) -> Option<Self> {
        let namespace = slice.metadata.namespace.as_deref()?;
        let service = slice.metadata.labels.as_ref()?.get(SLICE_SERVICE_LABEL)?;
        if slice.address_type == "FQDN" {
            return None;
        }
        let endpoints = slice.endpoints.iter().flatten().filter_map(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            // Absent means true for `ready` and `serving`, false for `terminating` (EndpointConditions in discovery/v1).
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
            let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
            Some(EndpointFacts {
                address: endpoint.addresses.first()?.parse().ok()?,
                ready: ready && !terminating,
                draining: serving && terminating,
                node: endpoint.node_name.as_deref().map(Into::into),
            })
        });
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let name = port.name.as_deref().unwrap_or_default().into();
            let udp = is_udp(port.protocol.as_deref())?;
            Some(ServicePort { port: u16::try_from(port.port?).ok()?, name, udp })
        });
        let (mut ports, mut endpoints) = (ports.collect::<Vec<_>>(), endpoints.collect::<Vec<_>>());
        // There are as many slices as Services, and more.
        ports.shrink_to_fit();
        endpoints.shrink_to_fit();
        let service = ServiceId::new(namespace, service.as_str());
        Some(Self { service, ipv6: slice.address_type == "IPv6", ports, endpoints })
    }
}
