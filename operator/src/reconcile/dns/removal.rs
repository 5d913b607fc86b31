//! The lines go: with the MeshConfig, with its being served, or because DNS is to be left alone.

use k8s_openapi::api::core::v1::ConfigMap;
use weft_config::ServiceId;
use weft_crds::MeshConfig;
use weft_crds::meshconfig::{DnsFound, DnsProvider};

use super::ask::ask;
use super::gather::gather;
use super::memory::{Lines, Memory};
use super::{DnsError, Keeper, Seen, told_last, write};
use crate::context::Context;
use crate::dns::check::Answer;
use crate::dns::detect::{self, Found, STUB_DOMAINS, Server};
use crate::dns::facts::{Facts, KUBE_DNS};
use crate::dns::{places, stubs};
use crate::index::claims::DOMAIN_TAKEN;
use crate::reconcile::status::{DNS_CONFIGURED, MANUAL, condition};

/// What the status calls a DNS that is left alone.
const LEFT_ALONE: &str = "None";

impl Keeper {
    /// Takes the lines out. `true` when no DNS server answers for a mesh domain any more.
    pub async fn remove(&self, ctx: &Context, mesh: &MeshConfig) -> Result<bool, DnsError> {
        let memory = &mut *self.memory.lock().await;
        if mesh.spec.dns.provider == DnsProvider::None {
            return leave_alone(ctx, mesh, memory).await.map(|()| true);
        }
        let seen = take_out(ctx, mesh, memory).await?;
        let asked = match detect::detect(&seen.facts) {
            // It asks us, as a person told it, for as long as we are there.
            Ok(Found { server: Server::OpenShift { .. }, .. }) => return Ok(true),
            Ok(found) => ServiceId::new(found.service.0, found.service.1),
            Err(_) => ServiceId::new(mesh.spec.dns.namespace.as_str(), mesh.spec.dns.service.as_str()),
        };
        Ok(!ask(ctx, mesh, &asked).await.iter().any(|(_, _, answer)| *answer == Answer::Configured))
    }

    /// A MeshConfig is about to be served for the first time: no lines of ours stand for it, whatever looks like them.
    pub async fn begin(&self, mesh: &MeshConfig) {
        let memory = &mut *self.memory.lock().await;
        if memory.lines == Lines::Unknown && told_last(mesh) == DnsFound::default() {
            memory.lines = Lines::Out;
        }
    }

    /// Takes out what may be there of a MeshConfig that has no domain any more; says what its status tells of DNS then. Once
    /// they are out they stay out: nobody else writes them.
    pub async fn withdraw(&self, ctx: &Context, mesh: &MeshConfig) -> Result<DnsFound, DnsError> {
        let are_out = self.memory.lock().await.lines == Lines::Out;
        if !are_out {
            self.remove(ctx, mesh).await?;
        }
        Ok(if mesh.spec.dns.provider == DnsProvider::None {
            left_alone(Vec::new())
        } else {
            DnsFound::default()
        })
    }
}

/// For the status, where DNS is left alone and a person sees to `domains`.
pub(super) fn left_alone(domains: Vec<String>) -> DnsFound {
    DnsFound { provider: LEFT_ALONE.to_owned(), domains, ..DnsFound::default() }
}

/// Whether the status says that DNS is left alone. There are no lines of ours then. One of an older version says so in its condition
/// alone, and one that is not served has no condition.
pub(super) fn is_left_alone(mesh: &MeshConfig) -> bool {
    let Some(status) = &mesh.status else { return false };
    match condition(&status.conditions, DNS_CONFIGURED) {
        Some(condition) if condition.reason != DOMAIN_TAKEN => condition.reason == MANUAL,
        _ => status.dns.provider == LEFT_ALONE,
    }
}

/// Takes out what may be there from the time before DNS was to be left alone: once, until the status says so. From then on lines
/// that look like ours are the user's, and while it says so we write none. Of two `MeshConfigs` another may have been served
/// meanwhile, and have had lines.
pub(super) async fn leave_alone(
    ctx: &Context,
    mesh: &MeshConfig,
    memory: &mut Memory,
) -> Result<(), DnsError> {
    if (is_left_alone(mesh) && memory.lines != Lines::MayStand) || memory.lines == Lines::Out {
        return Ok(());
    }
    take_out(ctx, mesh, memory).await.map(drop)
}

/// Takes our lines out of every `ConfigMap` that we may read: one that cannot be edited keeps them in no other.
async fn take_out(ctx: &Context, mesh: &MeshConfig, memory: &mut Memory) -> Result<Seen, DnsError> {
    memory.look_everywhere();
    let seen = gather(ctx, mesh, memory).await?;
    let mut errors = Vec::new();
    for (name, map) in &seen.maps {
        errors.extend(take_out_of(ctx, mesh, &seen.facts, name, map).await.err());
    }
    errors.extend(within_reach(ctx, mesh, &seen.facts).await.err());
    if !errors.is_empty() {
        return Err(DnsError::of_all(errors));
    }
    memory.are_out();
    Ok(seen)
}

async fn take_out_of(
    ctx: &Context,
    mesh: &MeshConfig,
    facts: &Facts,
    name: &str,
    map: &ConfigMap,
) -> Result<(), DnsError> {
    let namespace = &facts.asked.namespace;
    let data = map.data.clone().unwrap_or_default();
    let told = told_last(mesh);
    if name == KUBE_DNS && !facts.resolver.is_known() && detect::is_kube_dns(&told.provider) {
        let mut domains = told.domains.iter().chain(&mesh.spec.domains);
        let text = data.get(STUB_DOMAINS);
        if let Some(domain) = domains.find(|domain| text.is_some_and(|text| stubs::has(text, domain))) {
            return Err(DnsError::NoResolver(namespace.clone(), ctx.namespace.to_string(), domain.clone()));
        }
    }
    let edit = places::edit(name, &data, None, &ctx.namespace, facts.resolver)
        .map_err(|error| DnsError::Place(namespace.clone(), name.to_owned(), error))?;
    if !edit.is_empty() {
        write(ctx, namespace, name, Some(map), &edit).await?;
    }
    Ok(())
}

/// Whether our lines, if there are any, stand where we may read. Where the chart never gave a right to a `ConfigMap` there never
/// was a line.
async fn within_reach(ctx: &Context, mesh: &MeshConfig, facts: &Facts) -> Result<(), DnsError> {
    let Some(name) = detect::out_of_reach(facts, &told_last(mesh).provider) else { return Ok(()) };
    // What cannot be read can be asked for: who knows no mesh domain has no lines.
    let dns = &mesh.spec.dns;
    let answers = ask(ctx, mesh, &ServiceId::new(dns.namespace.as_str(), dns.service.as_str())).await;
    if !answers.is_empty() && answers.iter().all(|(_, _, answer)| *answer == Answer::NotConfigured) {
        return Ok(());
    }
    Err(DnsError::OutOfReach(dns.namespace.clone(), name.to_owned()))
}
