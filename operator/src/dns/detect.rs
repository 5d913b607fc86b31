//! Which DNS a cluster has, and where our lines have to stand. Pure: facts in, decision out.

mod error;

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use weft_crds::meshconfig::{DnsFound, DnsProvider};

use super::corefile;
use super::facts::{
    self, CUSTOM, Facts, KUBE_DNS, NODE_CACHES, OPENSHIFT_NAMESPACE, OPENSHIFT_SERVICE, Workload,
};
use super::syntax::Corefile;
use super::version::{self, Version};
use super::{places, stubs};
pub use error::DetectError;

/// The key of a Corefile in its `ConfigMap`.
pub const COREFILE: &str = "Corefile";
/// The key of kube-dns's stub domains.
pub const STUB_DOMAINS: &str = "stubDomains";
/// The directory that a Corefile is read from, where its pods do not tell.
const COREFILE_DIR: &str = "/etc/coredns";
/// What a distribution's Corefile imports of the user's.
const SERVERS: &str = "*.server";

/// The cluster's DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What answers.
    pub server: Server,
    /// Its version, when its image tells.
    pub version: Option<Version>,
    /// Namespace and name of its Service.
    pub service: (String, String),
    /// The Service's address.
    pub address: IpAddr,
    /// A NodeLocal DNSCache is in front of it.
    pub cache: Option<Cache>,
}

/// What answers for the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// CoreDNS.
    CoreDns {
        /// The `ConfigMap` with its Corefile.
        config_map: String,
        /// Where our lines stand.
        place: Place,
        /// The port its pods listen on.
        port: u16,
    },
    /// kube-dns.
    KubeDns {
        /// Address of our resolver.
        resolver: IpAddr,
    },
    /// OpenShift's: its operator undoes what others edit, and forwards what a person tells it.
    OpenShift {
        /// Address of our resolver.
        resolver: IpAddr,
    },
}

/// Where the lines for CoreDNS stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Between marks in the Corefile.
    Corefile,
    /// Under a key of our own in [`CUSTOM`].
    Custom,
}

/// A NodeLocal DNSCache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cache {
    /// It needs lines of ours in this `ConfigMap`.
    Told(String),
    /// It reads kube-dns's stub domains itself.
    ReadsStubs,
}

/// Decides.
pub fn detect(facts: &Facts) -> Result<Found, DetectError> {
    let namespace = facts.asked.namespace.as_str();
    if namespace == facts.mesh {
        return Err(DetectError::Ourselves(namespace.to_owned()));
    }
    let service =
        facts::services(&facts.asked).into_iter().find_map(|name| Some((name, *facts.services.get(name)?)));
    let Some((service, address)) = service else { return openshift(facts) };
    if namespace == OPENSHIFT_NAMESPACE {
        return openshift(facts);
    }
    let workload = facts.behind.iter().find_map(|name| facts.workloads.get(name));
    let server = match kind(facts, workload) {
        Kind::CoreDns => core_dns(facts, workload)?,
        Kind::KubeDns if facts.forbidden.contains(KUBE_DNS) => {
            return Err(DetectError::Forbidden(facts.asked.namespace.clone(), KUBE_DNS.to_owned()));
        }
        Kind::KubeDns => {
            if let Some(domain) = facts.domains.iter().find(|domain| leads_elsewhere(facts, domain)) {
                return Err(DetectError::Taken(namespace.to_owned(), KUBE_DNS.to_owned(), domain.clone()));
            }
            Server::KubeDns { resolver: resolver(facts)? }
        }
    };
    let image = workload.and_then(|workload| match server {
        Server::CoreDns { .. } => workload.image("coredns"),
        _ => workload.image("kube-dns").or_else(|| workload.image("kubedns")),
    });
    let version = image.and_then(Version::of_image);
    let cache = cache(facts, &server)?;
    Ok(Found { server, version, service: (namespace.to_owned(), service.to_owned()), address, cache })
}

/// Whether kube-dns is told to ask somebody else for `domain`.
fn leads_elsewhere(facts: &Facts, domain: &str) -> bool {
    let text = data(facts, KUBE_DNS, STUB_DOMAINS);
    text.is_some_and(|text| stubs::is_anothers(text, domain, facts.resolver))
}

fn openshift(facts: &Facts) -> Result<Found, DetectError> {
    let asked = &facts.asked;
    let Some(address) = facts.openshift else {
        return Err(DetectError::NoService(asked.namespace.clone(), asked.service.clone()));
    };
    Ok(Found {
        server: Server::OpenShift { resolver: resolver(facts)? },
        version: None,
        service: (OPENSHIFT_NAMESPACE.to_owned(), OPENSHIFT_SERVICE.to_owned()),
        address,
        cache: None,
    })
}

fn resolver(facts: &Facts) -> Result<IpAddr, DetectError> {
    facts.resolver.now.ok_or_else(|| DetectError::NoResolver(facts.mesh.clone()))
}

enum Kind {
    CoreDns,
    KubeDns,
}

/// What is asked for; else what the pods behind the Service run, or are named after; else what is configured.
fn kind(facts: &Facts, workload: Option<&Workload>) -> Kind {
    match facts.asked.provider {
        DnsProvider::CoreDNS => return Kind::CoreDns,
        DnsProvider::KubeDNS => return Kind::KubeDns,
        DnsProvider::Auto | DnsProvider::None => {}
    }
    let runs = |part: &str| workload.is_some_and(|workload| workload.image(part).is_some());
    let named = |part: &str| facts.behind.iter().any(|name| name.contains(part));
    if runs("coredns") {
        Kind::CoreDns
    } else if runs("kube-dns") || runs("kubedns") {
        Kind::KubeDns
    } else if facts.behind.is_empty() && is_kube_dns(&facts.told) && facts.config_maps.contains_key(KUBE_DNS)
    {
        // None of its pods is ready: that makes it no other DNS, whatever else is configured.
        Kind::KubeDns
    } else if named("coredns")
        || facts::corefiles(&facts.asked).into_iter().any(|name| data(facts, name, COREFILE).is_some())
    {
        Kind::CoreDns
    } else if named("kube-dns") || facts.config_maps.contains_key(KUBE_DNS) {
        Kind::KubeDns
    } else {
        // It says what is missing.
        Kind::CoreDns
    }
}

fn data<'a>(facts: &'a Facts, config_map: &str, key: &str) -> Option<&'a str> {
    facts.config_maps.get(config_map)?.get(key).map(String::as_str)
}

fn core_dns(facts: &Facts, workload: Option<&Workload>) -> Result<Server, DetectError> {
    let asked = &facts.asked;
    let version = workload.and_then(|workload| workload.image("coredns")).and_then(Version::of_image);
    if let Some(old) = version.filter(|version| *version < version::OLDEST) {
        return Err(DetectError::TooOld(old));
    }
    let (config_map, text) = corefile_of(facts, workload)?;
    let rest = corefile::edit(text, &facts.mesh, None)
        .map_err(|error| DetectError::Corefile(asked.namespace.clone(), config_map.to_owned(), error))?;
    let rest = Corefile::read(&rest);
    not_taken(facts, config_map, &rest)?;
    cluster_domain(facts, config_map, &rest)?;
    let imports_are_seen = version.is_none_or(|version| version >= version::RELOADS_IMPORTS);
    let custom = imports_are_seen && imports_custom(facts, workload, config_map, &rest);
    if custom {
        let own = places::custom_key(&facts.mesh);
        for (_, text) in facts.config_maps.get(CUSTOM).into_iter().flatten().filter(|(key, _)| **key != own) {
            not_taken(facts, CUSTOM, &Corefile::read(text))?;
        }
    }
    let place = if custom { Place::Custom } else { Place::Corefile };
    if place == Place::Corefile && rest.open_end {
        return Err(DetectError::OpenEnd(asked.namespace.clone(), config_map.to_owned()));
    }
    Ok(Server::CoreDns { config_map: config_map.to_owned(), place, port: rest.port() })
}

/// Whether the status calls the DNS that was found last kube-dns: [`Found::told`].
pub fn is_kube_dns(told: &str) -> bool {
    told.split(' ').next() == Some(KUBE_DNS_SERVER)
}

/// The `ConfigMap` in which lines of ours may stand that can no longer be read: `told` is what the status says of the DNS that was
/// found last ([`Found::told`]).
pub fn out_of_reach<'a>(facts: &'a Facts, told: &str) -> Option<&'a str> {
    let places = match told.split(' ').next() {
        Some(CORE_DNS) => facts::corefiles(&facts.asked),
        Some(_) if is_kube_dns(told) => vec![KUBE_DNS],
        _ => return None,
    };
    if places.iter().any(|name| facts.config_maps.contains_key(*name)) {
        return None;
    }
    places.into_iter().find(|name| facts.forbidden.contains(*name))
}

/// The `ConfigMap` that the pods see, if it can be told; else the first of those that are known.
fn corefile_of<'a>(
    facts: &'a Facts,
    workload: Option<&'a Workload>,
) -> Result<(&'a str, &'a str), DetectError> {
    let asked = &facts.asked;
    let mounted =
        workload.into_iter().flat_map(|workload| &workload.mounts).map(|mount| mount.config_map.as_str());
    let known = facts::corefiles(asked);
    let mut names = mounted.filter(|name| known.contains(name)).chain(known.iter().copied());
    if let Some(found) = names.clone().find_map(|name| Some((name, data(facts, name, COREFILE)?))) {
        return Ok(found);
    }
    match names.find(|name| facts.forbidden.contains(*name)) {
        Some(name) => Err(DetectError::Forbidden(asked.namespace.clone(), name.to_owned())),
        None => Err(DetectError::NoCorefile(asked.namespace.clone(), asked.config_map.clone())),
    }
}

/// `rest`, which is not ours, serves none of our domains: CoreDNS would refuse a second server block, and a pod that starts anew
/// would not come up.
fn not_taken(facts: &Facts, config_map: &str, rest: &Corefile<'_>) -> Result<(), DetectError> {
    match facts.domains.iter().find(|domain| rest.serves(domain)) {
        Some(domain) => {
            Err(DetectError::Taken(facts.asked.namespace.clone(), config_map.to_owned(), domain.clone()))
        }
        None => Ok(()),
    }
}

fn cluster_domain(facts: &Facts, config_map: &str, rest: &Corefile<'_>) -> Result<(), DetectError> {
    let said = &facts.cluster_domain;
    let served = rest.cluster_domains();
    let serves = |zone: &String| zone == "." || zone == said || said.ends_with(&format!(".{zone}"));
    match served.first() {
        Some(found) if !served.iter().any(serves) => Err(DetectError::ClusterDomain {
            namespace: facts.asked.namespace.clone(),
            config_map: config_map.to_owned(),
            found: found.clone(),
            said: said.clone(),
        }),
        _ => Ok(()),
    }
}

/// Whether the Corefile imports servers from a directory in which the pods see [`CUSTOM`]. Where the pods cannot be asked that
/// `ConfigMap` must be there.
fn imports_custom(facts: &Facts, workload: Option<&Workload>, config_map: &str, rest: &Corefile<'_>) -> bool {
    let mut directories =
        rest.imports.iter().filter_map(|glob| glob.strip_suffix(SERVERS)?.strip_suffix('/'));
    let Some(workload) = workload else {
        return directories.next().is_some() && facts.config_maps.contains_key(CUSTOM);
    };
    let base = workload.mounts.iter().find(|mount| mount.config_map == config_map);
    let base = base.map_or(COREFILE_DIR, |mount| mount.path.as_str());
    directories.any(|directory| {
        let path =
            if directory.starts_with('/') { directory.to_owned() } else { format!("{base}/{directory}") };
        workload.mounts.iter().any(|mount| mount.config_map == CUSTOM && mount.whole && mount.path == path)
    })
}

/// A NodeLocal DNSCache is there when it has a Corefile and its DaemonSet has not gone.
fn cache(facts: &Facts, server: &Server) -> Result<Option<Cache>, DetectError> {
    let mut there = NODE_CACHES.into_iter().filter(|name| !facts.no_cache.contains(*name));
    let found = there.find_map(|name| Some((name, data(facts, name, COREFILE)?)));
    let Some((name, text)) = found else { return Ok(None) };
    let mounts = facts.workloads.get(name).map(|workload| workload.mounts.as_slice()).unwrap_or_default();
    if matches!(server, Server::KubeDns { .. }) && mounts.iter().any(|mount| mount.config_map == KUBE_DNS) {
        return Ok(Some(Cache::ReadsStubs));
    }
    let namespace = &facts.asked.namespace;
    let rest = corefile::edit(text, &facts.mesh, None)
        .map_err(|error| DetectError::Corefile(namespace.clone(), name.to_owned(), error))?;
    let rest = Corefile::read(&rest);
    if rest.open_end {
        return Err(DetectError::OpenEnd(namespace.clone(), name.to_owned()));
    }
    not_taken(facts, name, &rest)?;
    // It serves stub domains with server blocks that it writes itself.
    let reads_stubs = mounts.iter().any(|mount| mount.config_map == KUBE_DNS);
    if let Some(domain) = facts.domains.iter().find(|domain| reads_stubs && leads_elsewhere(facts, domain)) {
        return Err(DetectError::Taken(namespace.clone(), KUBE_DNS.to_owned(), domain.clone()));
    }
    if super::block::of_node_cache(&rest, &facts.domains, &facts.cluster_domain).is_none() {
        let domain = facts.cluster_domain.clone();
        return Err(DetectError::CacheForwardsNothing(namespace.clone(), name.to_owned(), domain));
    }
    Ok(Some(Cache::Told(name.to_owned())))
}

impl Found {
    /// For the status.
    pub fn told(&self) -> DnsFound {
        let behind = if self.cache.is_some() { " behind NodeLocal DNSCache" } else { "" };
        let version = self.version.map(|version| version.to_string()).unwrap_or_default();
        DnsFound { provider: format!("{}{behind}", self.server), version, ..DnsFound::default() }
    }

    /// The address that the server is told to ask.
    pub fn resolver(&self) -> Option<IpAddr> {
        if let Server::KubeDns { resolver } = self.server { Some(resolver) } else { None }
    }

    /// Where our lines stand, in words.
    pub fn places(&self, mesh: &str) -> String {
        let namespace = &self.service.0;
        let server = match &self.server {
            Server::CoreDns { config_map, place: Place::Corefile, .. } => {
                format!("between the weft.mesh marks in the Corefile of ConfigMap {namespace}/{config_map}")
            }
            Server::CoreDns { place: Place::Custom, .. } => {
                format!("under {} in ConfigMap {namespace}/{CUSTOM}", places::custom_key(mesh))
            }
            Server::KubeDns { .. } => format!("under {STUB_DOMAINS} in ConfigMap {namespace}/{KUBE_DNS}"),
            Server::OpenShift { .. } => "in the DNS operator's object default".to_owned(),
        };
        match &self.cache {
            Some(Cache::Told(cache)) => format!("{server}, and in that of ConfigMap {namespace}/{cache}"),
            _ => server,
        }
    }
}

impl Display for Server {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CoreDns { .. } => CORE_DNS,
            Self::KubeDns { .. } => KUBE_DNS_SERVER,
            Self::OpenShift { .. } => "OpenShift",
        })
    }
}

/// What the status calls a [`Server`], first of all.
const CORE_DNS: &str = "CoreDNS";
const KUBE_DNS_SERVER: &str = "KubeDNS";

#[cfg(test)]
#[path = "detect/tests.rs"]
mod tests;
