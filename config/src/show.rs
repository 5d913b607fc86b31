//! How resources are shown to people and their programs, in JSON: by the debug API of the operator, and by a proxy of what it
//! holds. The keys are kept from version to version; what was not asked for is left out.

use serde::Serialize;

use crate::access::{Access, Grant};
use crate::model::{Endpoints, Port, Resource, ResourceKey, Service, ServiceId};
use crate::policy::{HttpPolicy, Scheme, Timeouts, Traffic};
use crate::routes::{HttpMatch, Split};
use crate::set::Entry;

/// A configuration, or a part of one.
#[derive(Debug, Serialize)]
pub struct Configuration {
    /// Digest of the whole of which this is a part, 16 hexadecimal digits.
    pub digest: String,
    /// Resources, in the order of their keys.
    pub resources: Vec<ResourceView>,
}

/// One resource.
#[derive(Debug, Serialize)]
pub struct ResourceView {
    /// `Service`, `Endpoints`, `Identity` or `Access`.
    kind: &'static str,
    /// `namespace/name`, for endpoints with `:port`.
    name: String,
    /// 16 hexadecimal digits. The same on operator and proxy: the same resource.
    hash: String,
    #[serde(flatten)]
    body: Body,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Body {
    Service { ports: Vec<PortView> },
    Endpoints { ready: Vec<String>, draining: Vec<String>, unready: u32 },
    Identity { addresses: Vec<String> },
    Access { grants: Vec<GrantView> },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PortView {
    port: u16,
    name: String,
    listen_port: u16,
    /// `http`, `tcp` or `udp`.
    traffic_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<HttpView>,
    #[serde(skip_serializing_if = "TimeoutsView::is_empty")]
    timeouts: TimeoutsView,
    endpoints: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<SplitView>,
    /// Present: nothing passes but what an Access allows; with what a caller over HTTP is answered otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    denied_status: Option<u16>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HttpView {
    /// `http`, `h2c` or `https`.
    scheme: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_attempts: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    circuit_breaker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateLimitView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TlsView {
    server_name: String,
    /// How many certificates of authorities there are.
    authorities: usize,
    unverified: bool,
}

#[derive(Debug, Serialize)]
struct RateLimitView {
    average: u32,
    burst: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_field_names, reason = "the keys name their unit")]
struct TimeoutsView {
    #[serde(skip_serializing_if = "Option::is_none")]
    request_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<u64>,
}

impl TimeoutsView {
    fn is_empty(&self) -> bool {
        (self.request_ms, self.idle_ms, self.connect_ms) == (None, None, None)
    }
}

#[derive(Debug, Serialize)]
struct SplitView {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    matches: Vec<MatchView>,
    backends: Vec<ShareView>,
}

#[derive(Debug, Serialize)]
struct ShareView {
    endpoints: String,
    weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<SplitView>,
}

#[derive(Debug, Serialize)]
struct MatchView {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    methods: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<HeaderView>,
}

#[derive(Debug, Serialize)]
struct HeaderView {
    name: String,
    pattern: String,
}

#[derive(Debug, Serialize)]
struct GrantView {
    name: String,
    sources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<Vec<MatchView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Vec<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp: Option<Vec<u16>>,
}

/// How a digest or hash is written.
pub fn hexadecimal(hash: u64) -> String {
    format!("{hash:016x}")
}

/// Whether the resource `key` is `service` or its endpoints.
pub fn is_of(key: &ResourceKey, service: &ServiceId) -> bool {
    match key {
        ResourceKey::Service(id) => id == service,
        ResourceKey::Endpoints(id) => id.service == *service,
        ResourceKey::Identity(_) | ResourceKey::Access(_) => false,
    }
}

impl From<&Entry> for ResourceView {
    fn from(entry: &Entry) -> Self {
        let hash = hexadecimal(entry.hash);
        match &*entry.resource {
            Resource::Service(service) => {
                Self { kind: "Service", name: service.id.to_string(), hash, body: Body::of_service(service) }
            }
            Resource::Endpoints(id, endpoints) => {
                Self { kind: "Endpoints", name: id.to_string(), hash, body: Body::of_endpoints(endpoints) }
            }
            Resource::Identity(id, identity) => {
                let addresses = identity.addresses.iter().map(ToString::to_string).collect();
                Self { kind: "Identity", name: id.to_string(), hash, body: Body::Identity { addresses } }
            }
            Resource::Access(id, access) => {
                Self { kind: "Access", name: id.to_string(), hash, body: Body::of_access(access) }
            }
        }
    }
}

impl Body {
    fn of_service(service: &Service) -> Self {
        Self::Service { ports: service.ports.iter().map(PortView::of).collect() }
    }

    fn of_endpoints(endpoints: &Endpoints) -> Self {
        let all = |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect();
        Self::Endpoints {
            ready: all(&endpoints.ready),
            draining: all(&endpoints.draining),
            unready: endpoints.unready,
        }
    }

    fn of_access(access: &Access) -> Self {
        Self::Access { grants: access.grants.iter().map(GrantView::of).collect() }
    }
}

impl PortView {
    fn of(port: &Port) -> Self {
        let http = match &port.traffic {
            Traffic::Http(policy) => Some(HttpView::of(policy)),
            Traffic::Tcp | Traffic::Udp => None,
        };
        Self {
            port: port.port,
            name: port.name.clone(),
            listen_port: port.listen_port,
            traffic_type: port.traffic.as_str(),
            http,
            timeouts: TimeoutsView::of(port.timeouts),
            endpoints: port.endpoints.to_string(),
            split: port.split.as_ref().map(SplitView::of),
            denied_status: port.restriction.map(|restriction| restriction.denied_status),
        }
    }
}

impl HttpView {
    fn of(policy: &HttpPolicy) -> Self {
        let (scheme, tls) = match &policy.scheme {
            Scheme::Http => ("http", None),
            Scheme::H2c => ("h2c", None),
            Scheme::Https(tls) => ("https", Some(tls)),
        };
        let tls = tls.map(|tls| TlsView {
            server_name: tls.server_name.clone(),
            authorities: tls.authorities.len(),
            unverified: tls.unverified,
        });
        Self {
            scheme,
            tls,
            retry_attempts: policy.retry_attempts,
            circuit_breaker: policy.circuit_breaker.as_ref().map(ToString::to_string),
            rate_limit: policy
                .rate_limit
                .map(|limit| RateLimitView { average: limit.average, burst: limit.burst }),
        }
    }
}

impl TimeoutsView {
    fn of(timeouts: Timeouts) -> Self {
        let millis = |wait: std::time::Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self {
            request_ms: timeouts.request.map(millis),
            idle_ms: timeouts.idle.map(millis),
            connect_ms: timeouts.connect.map(millis),
        }
    }
}

impl SplitView {
    fn of(split: &Split) -> Self {
        let share = |share: &crate::routes::SplitBackend| ShareView {
            endpoints: share.endpoints.to_string(),
            weight: share.weight,
            split: share.split.as_ref().map(Self::of),
        };
        Self {
            matches: split.matches.iter().map(MatchView::of).collect(),
            backends: split.backends.iter().map(share).collect(),
        }
    }
}

impl MatchView {
    fn of(one: &HttpMatch) -> Self {
        let header = |(name, pattern): &(String, crate::routes::Pattern)| HeaderView {
            name: name.clone(),
            pattern: pattern.as_str().to_owned(),
        };
        Self {
            methods: one.methods.clone(),
            path: one.path.as_ref().map(|path| path.as_str().to_owned()),
            headers: one.headers.iter().map(header).collect(),
        }
    }
}

impl GrantView {
    fn of(grant: &Grant) -> Self {
        Self {
            name: grant.name.clone(),
            sources: grant.sources.iter().map(ToString::to_string).collect(),
            http: grant.http.as_ref().map(|all| all.iter().map(MatchView::of).collect()),
            tcp: grant.tcp.clone(),
            udp: grant.udp.clone(),
        }
    }
}
