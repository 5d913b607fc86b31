//! The mesh domains in the cluster's DNS: which DNS that is, our lines in its `ConfigMaps`, and whether its servers have taken
//! them up. What is decided is decided in [`crate::dns`]; here it is read, written and asked.

mod ask;
mod gather;
mod memory;
mod removal;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use weft_config::ServiceId;
use weft_config::contract::DNS_SERVICE;
use weft_crds::MeshConfig;
use weft_crds::meshconfig::{DnsFound, DnsProvider};

use crate::apply::{FIELD_MANAGER, WriteError, plain};
use crate::context::Context;
use crate::dns::block::Block;
use crate::dns::detect::{self, DetectError, Found};
use crate::dns::facts::Facts;
use crate::dns::fight::other_writer;
use crate::dns::places::{self, Edit, Part, PlaceError};
use crate::names::ShadowName;
use ask::taken_up;
use memory::{Lines, Memory};
use removal::{is_left_alone, leave_alone, left_alone};

/// On a `ConfigMap` that we made: the mesh it was made for. It goes with the last of our lines.
const MADE_FOR: &str = "weft.mesh/made-for";

/// How DNS stands. Each text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsState {
    /// Every DNS server answers for every mesh domain.
    Configured(&'static str, String),
    /// The lines are in; some servers have not read them yet.
    Propagating(String),
    /// They should have by now.
    Behind(String),
    /// The user adds these lines, and we do not look.
    Manual(String),
    /// The user has to tell a DNS that we cannot tell.
    ByHand(String),
    /// Somebody else undoes our lines.
    Conflict(String),
    /// Every domain that is asked for is another mesh's; why lines of ours are in DNS all the same, if they are.
    NoDomain(Option<String>),
    /// It cannot be done.
    Failed(String),
}

impl DnsState {
    /// What failed, if it is worth trying again soon.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed(why) | Self::NoDomain(Some(why)) => Some(why),
            _ => None,
        }
    }
}

/// How DNS stands, and which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The DNS that was found.
    pub found: DnsFound,
    /// How it stands.
    pub state: DnsState,
}

/// Why DNS could not be configured. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// It is not known where or how.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// It could not be read.
    #[error("ConfigMap {0}/{1}: {said}", said = plain(.2))]
    Read(String, String, kube::Error),
    /// What the DNS is made of could not be read.
    #[error("what the DNS pods of {1} in namespace {0} run cannot be read: {said}", said = plain(.2))]
    Workload(String, String, kube::Error),
    /// The right to it went before our lines.
    #[error(
        "ConfigMap {0}/{1} may not be read or written any more, and may have Weft's lines, since not every DNS pod says that it knows no mesh domain: give the operator the right back (the chart's values dns.manage, dns.provider, dns.namespace and dns.configMap as they were) until DNSConfigured says Manual, or take the lines out by hand"
    )]
    OutOfReach(String, String),
    /// Nobody knows any more which entries are ours.
    #[error(
        "ConfigMap {0}/kube-dns sends {2} somewhere, and whether to Weft's resolver is not known: Service {1}/weft-dns is gone, and the status does not say which address it had. Take the mesh domains out of stubDomains by hand"
    )]
    NoResolver(String, String, String),
    /// It could not be edited.
    #[error("ConfigMap {0}/{1}: {2}")]
    Place(String, String, PlaceError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Several of these.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<DnsError>),
}

impl DnsError {
    fn of_all(mut errors: Vec<Self>) -> Self {
        if errors.len() == 1 { errors.remove(0) } else { Self::Several(errors) }
    }
}

/// Keeps DNS as it should be, and remembers what came of it.
#[derive(Clone, Default)]
pub struct Keeper {
    memory: Arc<Mutex<Memory>>,
}

/// What was read, and what is known besides.
struct Seen {
    facts: Facts,
    maps: BTreeMap<String, ConfigMap>,
    /// Why what the DNS pods run is not known. Who only takes lines out need not know.
    in_doubt: Option<DnsError>,
}

impl Keeper {
    /// Keeps the lines as they should be and says how far they have come.
    pub async fn keep(&self, ctx: &Context, mesh: &MeshConfig) -> Standing {
        if mesh.spec.domains.is_empty() {
            return match self.withdraw(ctx, mesh).await {
                Ok(found) => Standing { found, state: DnsState::NoDomain(None) },
                Err(error) => {
                    Standing { found: told_last(mesh), state: DnsState::NoDomain(Some(error.to_string())) }
                }
            };
        }
        let memory = &mut *self.memory.lock().await;
        memory.is_about(mesh);
        if mesh.spec.dns.provider == DnsProvider::None {
            return match leave_alone(ctx, mesh, memory).await {
                Ok(()) => Standing {
                    found: left_alone(mesh.spec.domains.clone()),
                    state: DnsState::Manual(by_hand(ctx, mesh)),
                },
                Err(error) => Standing { found: told_last(mesh), state: DnsState::Failed(error.to_string()) },
            };
        }
        if is_left_alone(mesh) {
            // Said first: whoever ends between the two leaves lines that the next knows of.
            let state = DnsState::Propagating("the mesh domains are about to be added".to_owned());
            let found = DnsFound { domains: has(mesh), ..DnsFound::default() };
            return Standing { found, state };
        }
        // Whatever is in the way now: our lines may be where they were.
        let mut told = DnsFound { domains: has(mesh), ..told_last(mesh) };
        let state = match tell(ctx, mesh, memory, &mut told).await {
            Ok(state) => state,
            Err(DnsError::Write(error)) if error.is_conflict() => {
                DnsState::Propagating(format!("somebody else wrote at the same time ({error}); trying again"))
            }
            Err(error) => DnsState::Failed(error.to_string()),
        };
        Standing { found: told, state: memory.in_time(state, Instant::now()) }
    }
}

/// The DNS that was found last, by the status.
fn told_last(mesh: &MeshConfig) -> DnsFound {
    mesh.status.as_ref().map(|status| status.dns.clone()).unwrap_or_default()
}

/// The domains that it has, by the status, of those that it asks for: what it has given up is free for others.
fn has(mesh: &MeshConfig) -> Vec<String> {
    let mut domains = told_last(mesh).domains;
    domains.retain(|domain| mesh.spec.domains.contains(domain));
    domains
}

/// Has the lines stand where they belong, and asks the servers whether they have read them.
async fn tell(
    ctx: &Context,
    mesh: &MeshConfig,
    memory: &mut Memory,
    told: &mut DnsFound,
) -> Result<DnsState, DnsError> {
    let mut seen = gather::gather(ctx, mesh, memory).await?;
    if let Some(in_doubt) = seen.in_doubt.take() {
        return Err(in_doubt);
    }
    let (found, taken) = detect_without_taken(&mut seen.facts)?;
    let domains = std::mem::take(&mut seen.facts.domains);
    let before = std::mem::take(told);
    *told = DnsFound { domains: before.domains, resolver: before.resolver, ..found.told() };
    let exact = exact(ctx);
    let parts = places::wanted(
        &found,
        &seen.facts.config_maps,
        &domains,
        &mesh.spec.cluster_domain,
        &ctx.namespace,
        &exact,
    );
    // What goes goes first: CoreDNS takes no two servers for one domain.
    let (stay, go): (Vec<_>, Vec<_>) = seen
        .maps
        .keys()
        .chain(parts.keys().filter(|name| !seen.maps.contains_key(*name)))
        .partition(|name| parts.contains_key(*name));
    let mut conflict = None;
    for name in go.into_iter().chain(stay) {
        if let Some(message) = settle(ctx, &seen, memory, name, parts.get(name)).await? {
            conflict = Some(message);
        }
    }
    if let Some(message) = conflict {
        return Ok(DnsState::Conflict(message));
    }
    told.domains = domains;
    told.resolver = found.resolver().map(|resolver| resolver.to_string()).unwrap_or_default();
    match taken {
        Some(error) => Err(error.into()),
        None => Ok(taken_up(ctx, mesh, &found).await),
    }
}

/// Where lines belong, for the domains that somebody else's do not serve there: only those are left in `facts`. What is taken is told
/// when the rest stands, or else two meshes that change places would wait for each other.
fn detect_without_taken(facts: &mut Facts) -> Result<(Found, Option<DetectError>), DetectError> {
    let mut first = None;
    loop {
        let error = match detect::detect(facts) {
            Ok(found) => return Ok((found, first)),
            Err(error) => error,
        };
        let before = facts.domains.len();
        if let DetectError::Taken(.., domain) = &error {
            facts.domains.retain(|one| one != domain);
        }
        if facts.domains.len() == before {
            return Err(error);
        }
        first.get_or_insert(error);
    }
}

/// Has one `ConfigMap` hold just `part` of ours. Returns what to tell when somebody else does not let it be.
async fn settle(
    ctx: &Context,
    seen: &Seen,
    memory: &mut Memory,
    name: &str,
    part: Option<&Part>,
) -> Result<Option<String>, DnsError> {
    let (namespace, resolver) = (&seen.facts.asked.namespace, seen.facts.resolver);
    let live = seen.maps.get(name);
    let mut data = live.and_then(|map| map.data.clone()).unwrap_or_default();
    let edit = places::edit(name, &data, part, &ctx.namespace, resolver)
        .map_err(|error| DnsError::Place(namespace.clone(), name.to_owned(), error))?;
    let now = Instant::now();
    let fight = memory.fight(name);
    let ours = places::ours(name, &data, &ctx.namespace, resolver);
    if fight.fight.found(ours.as_deref(), now) {
        let managers = live.and_then(|map| map.metadata.managed_fields.as_deref()).unwrap_or_default();
        let rest = fight.fight.rests(now).unwrap_or_default();
        let again = ctx.outside.time() + SignedDuration::try_from(rest).unwrap_or_default();
        fight.message = conflict(namespace, name, other_writer(managers, FIELD_MANAGER), again);
        tracing::warn!(namespace, name, "{}", fight.message);
    }
    if edit.is_empty() || (live.is_none() && part.is_none()) {
        return Ok(None);
    }
    if !fight.fight.may_write(now) {
        return Ok(Some(fight.message.clone()));
    }
    if part.is_some() {
        memory.lines = Lines::MayStand;
    }
    write(ctx, namespace, name, live, &edit).await?;
    for (key, value) in edit {
        match value {
            Some(value) => drop(data.insert(key, value)),
            None => drop(data.remove(&key)),
        }
    }
    memory.fight(name).fight.wrote(places::ours(name, &data, &ctx.namespace, resolver), now);
    memory.wrote();
    Ok(None)
}

fn conflict(namespace: &str, name: &str, who: Option<&str>, again: Timestamp) -> String {
    let who = who.unwrap_or("somebody");
    // To the second, as all times of Kubernetes.
    let again = Timestamp::from_second(again.as_second()).unwrap_or(again);
    format!(
        "ConfigMap {namespace}/{name}: {who} keeps undoing Weft's lines, so they are not put back before {again}, or until this MeshConfig changes. Have {who} leave what Weft adds alone, or add the lines to what it writes, or set spec.dns.provider to None"
    )
}

/// The resourceVersion that was read is a precondition: an edit of somebody else's in between is never lost.
async fn write(
    ctx: &Context,
    namespace: &str,
    name: &str,
    live: Option<&ConfigMap>,
    edit: &Edit,
) -> Result<(), WriteError> {
    let Some(live) = live else {
        let labels = json!({"app.kubernetes.io/managed-by": FIELD_MANAGER, MADE_FOR: &*ctx.namespace});
        let data: BTreeMap<_, _> =
            edit.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))).collect();
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": namespace, "name": name, "labels": labels}, "data": data});
        let map: ConfigMap = serde_json::from_value(map).map_err(|source| WriteError::Encoding {
            object: format!("ConfigMap {namespace}/{name}"),
            source,
        })?;
        // Not by force: somebody may have made it a moment ago.
        ctx.writer.apply_new(&map).await?;
        tracing::info!(namespace, name, "ConfigMap made for the mesh domains");
        return Ok(());
    };
    let version = live.metadata.resource_version.clone();
    let empties = live.data.iter().flatten().all(|(key, _)| edit.get(key) == Some(&None))
        && edit.values().all(Option::is_none);
    // For whichever mesh: the last one takes it away.
    let made_by_us = live.labels().contains_key(MADE_FOR);
    if empties && made_by_us && live.binary_data.is_none() {
        ctx.writer.delete_as_read::<ConfigMap>(namespace, name, version).await?;
        tracing::info!(namespace, name, "ConfigMap deleted, which was made for the mesh domains");
        return Ok(());
    }
    let patch = json!({"metadata": {"resourceVersion": version}, "data": edit});
    ctx.writer.merge::<ConfigMap>(namespace, name, &patch).await?;
    tracing::info!(namespace, name, keys = ?edit.keys().collect::<Vec<_>>(), "ConfigMap edited for the mesh domains");
    Ok(())
}

/// What a person does who is told to do it.
fn by_hand(ctx: &Context, mesh: &MeshConfig) -> String {
    let address = |namespace: &str, name: &str| {
        let service = ctx.index.service(&ServiceId::new(namespace, name));
        service.and_then(|service| service.cluster_ip).map(|ip| ip.to_string())
    };
    let dns = &mesh.spec.dns;
    let dns_service = address(&dns.namespace, &dns.service);
    let block = Block {
        domains: &mesh.spec.domains,
        cluster_domain: &mesh.spec.cluster_domain,
        namespace: &ctx.namespace,
        dns_service: dns_service.as_deref().unwrap_or("<address of the cluster's DNS>"),
        port: 53,
        exact: &exact(ctx),
    };
    let resolver = address(&ctx.namespace, DNS_SERVICE).map(|resolver| {
        format!("have your DNS forward {} to {resolver}, or ", mesh.spec.domains.join(" and "))
    });
    format!(
        "{}add this to CoreDNS's Corefile, and keep it in step with the Services:\n{}",
        resolver.unwrap_or_default(),
        block.render()
    )
}

fn openshift(domains: &[String], resolver: IpAddr) -> String {
    let zones = domains.iter().map(|domain| format!("\"{domain}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "OpenShift's DNS operator undoes what others edit, so tell it yourself: add {{\"name\": \"weft\", \"zones\": [{zones}], \"forwardPlugin\": {{\"upstreams\": [\"{resolver}\"]}}}} to spec.servers of its object, with oc edit dns.operator/default"
    )
}

/// (Service, namespace, shadow) of the shadows that no rule finds.
fn exact(ctx: &Context) -> Vec<(String, String, String)> {
    let hashed = ctx.index.all_meshed().into_iter().filter_map(|id| match ShadowName::of(&id) {
        ShadowName::Hashed(shadow) => Some((id.name.to_string(), id.namespace.to_string(), shadow)),
        ShadowName::Ruled(_) => None,
    });
    hashed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_what_to_do_by_hand() {
        let again = "2026-11-26T12:34:56.789Z".parse().unwrap();
        let texts = [
            conflict("kube-system", "coredns", Some("argocd-controller"), again),
            conflict("kube-system", "coredns", None, again),
            openshift(&["weft.mesh".into(), "traefik.mesh".into()], [172, 30, 1, 2].into()),
        ];
        insta::assert_snapshot!(texts.join("\n"));
    }
}
