//! The topology: each Service, what it is made of, what it is part of and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use weft_config::show::ResourceView;
use weft_config::{AccountId, ServiceId};

use super::Debug;
use crate::annotations::{Problem, Settings, carried};
use crate::index::facts::{ServiceFacts, SliceFacts};
use crate::publish::Owner;
use crate::smi::{Objects, access};

/// One Service in the mesh.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceView {
    namespace: String,
    name: String,
    /// `http`, `tcp` or `udp`.
    traffic_type: &'static str,
    /// The Service its mesh name leads to; absent while there is none.
    shadow: Option<ShadowView>,
    ports: Vec<PortView>,
    endpoints: EndpointCounts,
    /// The `TrafficSplit` that divides its traffic.
    split: Option<String>,
    /// The `TrafficSplits` that may send it a share of others' traffic.
    backend_of: Vec<String>,
    /// The accounts its endpoints run as.
    accounts: Vec<String>,
    /// The `TrafficTargets` that allow something to be sent to one of these.
    targets: Vec<String>,
    /// What was asked for and could not be understood.
    problems: Vec<Problem>,
    /// Why it is not, or not wholly, carried.
    errors: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShadowView {
    name: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<IpAddr>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PortView {
    port: u16,
    name: String,
    /// Absent while none is allocated.
    listen_port: Option<u16>,
}

#[derive(Default, Serialize)]
struct EndpointCounts {
    ready: usize,
    /// On their way out, and still serving.
    draining: usize,
    total: usize,
}

/// One Service by itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OneService {
    in_mesh: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<&'static str>,
    #[serde(flatten)]
    view: Option<ServiceView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    endpoint_list: Vec<EndpointView>,
    /// What the proxies are sent about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<ResourceView>,
}

#[derive(Serialize)]
struct EndpointView {
    address: IpAddr,
    state: State,
    node: Option<String>,
    /// As whom its pod runs.
    account: Option<String>,
}

/// Best last: of an address that is in several slices the best state counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Unready,
    Draining,
    Ready,
}

/// What does not depend on the Service that is looked at.
struct Around {
    smi: Arc<Objects>,
    targets: BTreeMap<AccountId, Vec<String>>,
}

impl Around {
    fn of(debug: &Debug) -> Self {
        let (smi, scope) = (debug.index.smi(), debug.index.scope());
        let access = access::all(&smi, &|namespace| scope.covers(namespace));
        let names = |access: weft_config::Access| access.grants.into_iter().map(|grant| grant.name).collect();
        let targets = access.into_iter().map(|(account, access)| (account, names(access))).collect();
        Self { smi, targets }
    }
}

/// Every Service in the mesh.
pub(super) fn all(debug: &Debug) -> Vec<ServiceView> {
    let around = Around::of(debug);
    let services = debug.index.all_meshed().into_iter().filter_map(|id| debug.index.meshed(&id));
    services.map(|service| view(debug, &around, &service)).collect()
}

/// The Service `id`, in the mesh or not. `None`: there is none.
pub(super) fn one(debug: &Debug, id: &ServiceId) -> Option<OneService> {
    let service = debug.index.service(id)?;
    let because = debug.index.scope().why_not(&service);
    if because.is_some() {
        return Some(OneService {
            in_mesh: false,
            because,
            view: None,
            endpoint_list: Vec::new(),
            resources: Vec::new(),
        });
    }
    let endpoints = endpoints(&service, &debug.index.slices(id)).into_iter();
    let resources = debug.publisher.resources_of(&Owner::Service(id.clone()));
    Some(OneService {
        in_mesh: true,
        because,
        view: Some(view(debug, &Around::of(debug), &service)),
        endpoint_list: endpoints
            .map(|(address, (state, node))| EndpointView {
                address,
                state,
                node: node.map(|node| node.to_string()),
                account: debug.index.account_at(address).map(|account| account.to_string()),
            })
            .collect(),
        resources: resources.iter().map(ResourceView::from).collect(),
    })
}

fn view(debug: &Debug, around: &Around, service: &ServiceFacts) -> ServiceView {
    let (index, id, defaults) = (&debug.index, &service.id, debug.index.defaults());
    let shadow = index.shadow(id);
    let listen_port = |port: u16| {
        let recorded = shadow.as_ref()?.ports.iter().find(|(number, _)| *number == port);
        recorded.map(|(_, listen_port)| *listen_port)
    };
    let ports: Vec<_> = carried(service, &defaults)
        .map(|port| PortView {
            port: port.port,
            name: port.name.to_string(),
            listen_port: listen_port(port.port),
        })
        .collect();
    let endpoints = endpoints(service, &index.slices(id));
    let counts = EndpointCounts::of(&endpoints);
    let accounts: BTreeSet<_> = endpoints.keys().filter_map(|address| index.account_at(*address)).collect();
    let targets: BTreeSet<_> =
        accounts.iter().filter_map(|account| around.targets.get(account)).flatten().collect();
    let (split, backend_of) = splits(&around.smi, id);
    ServiceView {
        namespace: id.namespace.to_string(),
        name: id.name.to_string(),
        traffic_type: Settings::of(service, &defaults).0.traffic(service).as_str(),
        errors: errors(debug, id, shadow.is_some(), &ports, &counts),
        shadow: shadow.map(|shadow| ShadowView {
            name: shadow.name.to_string(),
            cluster_ip: shadow.cluster_ips.first().copied(),
        }),
        ports,
        endpoints: counts,
        split,
        backend_of,
        accounts: accounts.iter().map(ToString::to_string).collect(),
        targets: targets.into_iter().cloned().collect(),
        problems: debug.publisher.problems_of(id),
    }
}

fn errors(
    debug: &Debug,
    id: &ServiceId,
    shadow: bool,
    ports: &[PortView],
    endpoints: &EndpointCounts,
) -> Vec<String> {
    let mut errors = Vec::new();
    if let Some(failure) = debug.publisher.failure_of(id) {
        errors.push(failure);
    } else if !shadow {
        errors.push("it has no shadow Service yet; the leader says why, and so does the MeshConfig's condition Degraded".to_owned());
    } else if let Some(port) = ports.iter().find(|port| port.listen_port.is_none()) {
        errors.push(format!("port {} has no listen port yet", port.port));
    }
    if endpoints.total == 0 {
        errors.push("it has no endpoints: no pod is selected, or there is no EndpointSlice".to_owned());
    } else if endpoints.ready == 0 {
        errors.push(format!("none of its {} endpoints is ready", endpoints.total));
    }
    errors
}

/// The split in force of `service`, and those in force that have it among their backends.
fn splits(smi: &Objects, service: &ServiceId) -> (Option<String>, Vec<String>) {
    let Some(forest) = smi.forest(&service.namespace) else { return (None, Vec::new()) };
    let own = forest.get(service).map(|(object, _)| object.name.to_string());
    (own, forest.sending_to(&service.name).map(|object| object.name.to_string()).collect())
}

/// Every address of the Service's own family, with its best state and its node.
fn endpoints(
    service: &ServiceFacts,
    slices: &[Arc<SliceFacts>],
) -> BTreeMap<IpAddr, (State, Option<Arc<str>>)> {
    let mut all: BTreeMap<IpAddr, (State, Option<Arc<str>>)> = BTreeMap::new();
    for endpoint in
        slices.iter().filter(|slice| slice.ipv6 == service.ipv6).flat_map(|slice| &slice.endpoints)
    {
        let state = match (endpoint.ready, endpoint.draining) {
            (true, _) => State::Ready,
            (false, true) => State::Draining,
            (false, false) => State::Unready,
        };
        let known = all.entry(endpoint.address).or_insert_with(|| (state, endpoint.node.clone()));
        known.0 = known.0.max(state);
    }
    all
}

impl EndpointCounts {
    fn of(endpoints: &BTreeMap<IpAddr, (State, Option<Arc<str>>)>) -> Self {
        let count = |wanted| endpoints.values().filter(|(state, _)| *state == wanted).count();
        Self { ready: count(State::Ready), draining: count(State::Draining), total: endpoints.len() }
    }
}
