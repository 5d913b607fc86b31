//! The generated protobuf types and their conversions from and to the model.
//!
//! Encoding cannot fail. Decoding validates: what it lets through is a resource a proxy can serve.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use prost::Message;

use crate::access::AccountId;
use crate::model::{Endpoints, EndpointsId, Port, Resource, ResourceKey, Service, ServiceId};
use crate::set::Entry;

mod access;
mod routes;
mod traffic;

/// Generated from `proto/weft/config/v1/config.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("weft.config.v1");
}

/// Why a resource or key on the wire was refused. The text names the resource.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The name is not of the form its kind wants.
    #[error("resource name {0:?} is not of the form {1}")]
    Name(String, &'static str),
    /// A newer operator sent a kind this proxy does not know.
    #[error("resource {0:?} is of a kind this version does not know")]
    Kind(String),
    /// A port number is zero or larger than 65535.
    #[error("{resource}: {value} is not a port number")]
    PortNumber {
        /// The resource.
        resource: String,
        /// The number as sent.
        value: u32,
    },
    /// An address is neither 4 nor 16 bytes long.
    #[error("{resource}: an address has {length} bytes")]
    Address {
        /// The resource.
        resource: String,
        /// The number of bytes as sent.
        length: usize,
    },
    /// A newer operator sent a traffic type this proxy does not know.
    #[error("{resource}: traffic type {value} is not known to this version")]
    TrafficType {
        /// The resource.
        resource: String,
        /// The number as sent.
        value: i32,
    },
    /// A policy cannot be understood; a newer operator may know more of them.
    #[error("{resource}: {what}: {why}")]
    Policy {
        /// The resource.
        resource: String,
        /// Which policy.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

const SERVICE_FORM: &str = "namespace/name";
const ENDPOINTS_FORM: &str = "namespace/name:port";

fn port_number(resource: &str, value: u32) -> Result<u16, DecodeError> {
    match u16::try_from(value) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(DecodeError::PortNumber { resource: resource.to_owned(), value }),
    }
}

fn service_id(name: &str) -> Result<ServiceId, DecodeError> {
    match name.split_once('/') {
        Some((namespace, service)) if !namespace.is_empty() && !service.is_empty() => {
            Ok(ServiceId::new(namespace, service))
        }
        _ => Err(DecodeError::Name(name.to_owned(), SERVICE_FORM)),
    }
}

fn account_id(name: &str) -> Result<AccountId, DecodeError> {
    let ServiceId { namespace, name } = service_id(name)?;
    Ok(AccountId { namespace, name })
}

fn endpoints_id(name: &str) -> Result<EndpointsId, DecodeError> {
    let refused = || DecodeError::Name(name.to_owned(), ENDPOINTS_FORM);
    let (service, port) = name.rsplit_once(':').ok_or_else(refused)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(refused)?;
    Ok(EndpointsId { service: service_id(service).map_err(|_| refused())?, port })
}

impl From<&ResourceKey> for v1::ResourceKey {
    fn from(key: &ResourceKey) -> Self {
        let (kind, name) = match key {
            ResourceKey::Service(id) => (v1::ResourceKind::Service, id.to_string()),
            ResourceKey::Endpoints(id) => (v1::ResourceKind::Endpoints, id.to_string()),
            ResourceKey::Identity(id) => (v1::ResourceKind::Identity, id.to_string()),
            ResourceKey::Access(id) => (v1::ResourceKind::Access, id.to_string()),
        };
        Self { kind: kind.into(), name }
    }
}

impl TryFrom<&v1::ResourceKey> for ResourceKey {
    type Error = DecodeError;

    fn try_from(key: &v1::ResourceKey) -> Result<Self, DecodeError> {
        match key.kind() {
            v1::ResourceKind::Service => Ok(Self::Service(service_id(&key.name)?)),
            v1::ResourceKind::Endpoints => Ok(Self::Endpoints(endpoints_id(&key.name)?)),
            v1::ResourceKind::Identity => Ok(Self::Identity(account_id(&key.name)?)),
            v1::ResourceKind::Access => Ok(Self::Access(account_id(&key.name)?)),
            v1::ResourceKind::Unspecified => Err(DecodeError::Kind(key.name.clone())),
        }
    }
}

impl From<&Entry> for v1::Resource {
    fn from(entry: &Entry) -> Self {
        let kind = v1::ResourceKey::from(&entry.resource.key()).kind;
        Self { hash: entry.hash, kind, ..encode(&entry.resource) }
    }
}

impl TryFrom<&v1::Resource> for Entry {
    type Error = DecodeError;

    fn try_from(resource: &v1::Resource) -> Result<Self, DecodeError> {
        Ok(Self { hash: resource.hash, resource: Arc::new(decode(resource)?) })
    }
}

/// `entry` as the snapshot file has it: a [`v1::Resource`].
pub fn to_bytes(entry: &Entry) -> Vec<u8> {
    v1::Resource::from(entry).encode_to_vec()
}

/// What [`to_bytes`] made; `None`: something else did.
pub fn from_bytes(bytes: &[u8]) -> Option<Entry> {
    Entry::try_from(&v1::Resource::decode(bytes).ok()?).ok()
}

/// The encoding of a resource without its hash and kind: what the hash is computed over.
pub(crate) fn encode(resource: &Resource) -> v1::Resource {
    use v1::resource::Body;
    let (name, body) = match resource {
        Resource::Service(service) => (service.id.to_string(), Body::Service(encode_service(service))),
        Resource::Endpoints(id, endpoints) => {
            let body = v1::Endpoints {
                ready: endpoints.ready.iter().map(encode_endpoint).collect(),
                draining: endpoints.draining.iter().map(encode_endpoint).collect(),
                unready: endpoints.unready,
            };
            (id.to_string(), Body::Endpoints(body))
        }
        Resource::Identity(id, identity) => {
            (id.to_string(), Body::Identity(access::encode_identity(identity)))
        }
        Resource::Access(id, access) => (id.to_string(), Body::Access(access::encode(access))),
    };
    v1::Resource { name, body: Some(body), hash: 0, kind: 0 }
}

fn decode(resource: &v1::Resource) -> Result<Resource, DecodeError> {
    let name = resource.name.as_str();
    match &resource.body {
        Some(v1::resource::Body::Service(service)) => {
            Ok(Resource::Service(decode_service(name, service_id(name)?, service)?))
        }
        Some(v1::resource::Body::Endpoints(endpoints)) => {
            let addresses = |list: &[v1::Endpoint]| {
                list.iter().map(|e| decode_endpoint(name, e)).collect::<Result<Vec<_>, _>>()
            };
            Ok(Resource::Endpoints(
                endpoints_id(name)?,
                Endpoints {
                    ready: addresses(&endpoints.ready)?,
                    draining: addresses(&endpoints.draining)?,
                    unready: endpoints.unready,
                },
            ))
        }
        Some(v1::resource::Body::Identity(identity)) => {
            Ok(Resource::Identity(account_id(name)?, access::decode_identity(name, identity)?))
        }
        Some(v1::resource::Body::Access(access)) => {
            Ok(Resource::Access(account_id(name)?, access::decode(name, access)?))
        }
        None => Err(DecodeError::Kind(name.to_owned())),
    }
}

fn encode_service(service: &Service) -> v1::Service {
    v1::Service { ports: service.ports.iter().map(encode_port).collect() }
}

fn encode_port(port: &Port) -> v1::Port {
    let (traffic_type, http) = traffic::encode(&port.traffic);
    v1::Port {
        port: port.port.into(),
        name: port.name.clone(),
        listen_port: port.listen_port.into(),
        traffic_type: traffic_type.into(),
        endpoints: port.endpoints.to_string(),
        http,
        timeouts: traffic::encode_timeouts(&port.timeouts),
        split: port.split.as_ref().map(routes::encode_split),
        restriction: port.restriction.map(access::encode_restriction),
    }
}

fn decode_service(name: &str, id: ServiceId, service: &v1::Service) -> Result<Service, DecodeError> {
    let ports = service.ports.iter().map(|port| {
        Ok(Port {
            port: port_number(name, port.port)?,
            name: port.name.clone(),
            listen_port: port_number(name, port.listen_port)?,
            traffic: traffic::decode(name, port)?,
            timeouts: traffic::decode_timeouts(port.timeouts.as_ref()),
            endpoints: endpoints_id(&port.endpoints)?,
            split: port.split.as_ref().map(|split| routes::decode_split(name, split)).transpose()?,
            restriction: port.restriction.map(access::decode_restriction),
        })
    });
    Ok(Service { id, ports: ports.collect::<Result<_, _>>()? })
}

fn encode_endpoint(endpoint: &SocketAddr) -> v1::Endpoint {
    v1::Endpoint { address: encode_address(endpoint.ip()), port: endpoint.port().into() }
}

fn decode_endpoint(name: &str, endpoint: &v1::Endpoint) -> Result<SocketAddr, DecodeError> {
    Ok(SocketAddr::new(decode_address(name, &endpoint.address)?, port_number(name, endpoint.port)?))
}

fn encode_address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn decode_address(name: &str, bytes: &[u8]) -> Result<IpAddr, DecodeError> {
    let ip = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok(),
        16 => <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok(),
        _ => None,
    };
    ip.ok_or_else(|| DecodeError::Address { resource: name.to_owned(), length: bytes.len() })
}
