//! The removal of a mesh without an operator that knows the cluster: the DNS block, then the shadow Services, then the finalizer.
//! Everything else goes by ownerReference.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;
use weft_config::contract::DNS_SERVICE;
use weft_crds::MeshConfig;
use weft_crds::meshconfig::DnsProvider;

use super::{CleanupError, LOOK, list};
use crate::apply::Writer;
use crate::context::Context;
use crate::dns::check::{self, Answer};
use crate::index::claims::{FINALIZER, is_kept};
use crate::index::kinds::ServiceKind;
use crate::lease::Fence;
use crate::reconcile::status::{DNS_CONFIGURED, condition};
use crate::reconcile::{apiservice, dns, shadow};

/// How often what failed is tried again, and for how long.
const AGAIN: Duration = Duration::from_secs(1);
const TRIES: u32 = 5;
/// How long mesh names may go on to resolve after the block is out, before the shadows go all the same.
const DNS_LEAVES: Duration = Duration::from_secs(45);
/// So many times in a row no mesh name must resolve: behind one address there are several DNS pods.
const QUIET: u32 = 8;
/// How long the leader has to do its part before another replica does it, when the namespace is being deleted: of the five
/// seconds that Kubernetes gives.
const LEADERS_TIME: Duration = Duration::from_secs(2);

/// Takes out every mesh of the namespace and waits until it is gone.
pub(super) async fn take_out_all(ctx: &Context, force: bool) -> Result<(), CleanupError> {
    loop {
        let meshes = list(&ctx.client, &ctx.namespace).await?;
        if meshes.is_empty() {
            return Ok(());
        }
        for mesh in &meshes {
            take_out(ctx, mesh, force).await?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn take_out(ctx: &Context, mesh: &MeshConfig, force: bool) -> Result<(), CleanupError> {
    if !is_kept(mesh) {
        return Ok(());
    }
    match dns_out(ctx, mesh).await {
        Ok(()) => forgotten(domains(mesh)).await,
        Err(error) if force => tracing::error!(%error, "the DNS block stays: remove it by hand"),
        Err(error) => return Err(error),
    }
    shadow::delete_all(ctx).await?;
    let_go(ctx, mesh).await?;
    tracing::info!(name = mesh.name_any(), "MeshConfig taken out by hand");
    Ok(())
}

/// The domains that DNS was told. Others that the mesh asks for may be another mesh's, or a person's doing.
fn domains(mesh: &MeshConfig) -> &[String] {
    match mesh.status.as_ref().map(|status| &status.dns) {
        _ if mesh.spec.dns.provider == DnsProvider::None => &[],
        Some(dns) if !dns.domains.is_empty() || !was_told(mesh) => &dns.domains,
        // An older version did not say.
        _ => &mesh.spec.domains,
    }
}

/// Whether DNS was told anything for it: one that is not served has no condition that says how that went.
fn was_told(mesh: &MeshConfig) -> bool {
    mesh.status.as_ref().is_some_and(|status| condition(&status.conditions, DNS_CONFIGURED).is_some())
}

/// Where nothing is watched our resolver is not known, and in kube-dns our lines are those that lead to it.
async fn know_the_resolver(ctx: &Context) -> Result<(), CleanupError> {
    let api: Api<Service> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let named = ListParams::default().fields(&format!("metadata.name={DNS_SERVICE}"));
    let found = api.list(&named).await;
    let found = found.map_err(|error| CleanupError::Api("Services", ctx.namespace.to_string(), error))?;
    for service in found {
        ctx.index.take(&ServiceKind, Event::Apply(service), &mut None);
    }
    Ok(())
}

async fn dns_out(ctx: &Context, mesh: &MeshConfig) -> Result<(), CleanupError> {
    know_the_resolver(ctx).await?;
    let mut tries = 1;
    loop {
        match dns::Keeper::default().remove(ctx, mesh).await {
            Ok(_) => return Ok(()),
            Err(error) if tries < TRIES => tracing::warn!(%error, "the DNS block cannot be taken out yet"),
            Err(error) => return Err(error.into()),
        }
        tries += 1;
        tokio::time::sleep(AGAIN).await;
    }
}

/// Waits until the DNS that this pod asks does not know mesh names any more.
async fn forgotten(domains: &[String]) {
    let resolvers = check::own_servers();
    let deadline = Instant::now() + DNS_LEAVES;
    let mut quiet = 0;
    while quiet < QUIET {
        if Instant::now() >= deadline {
            tracing::warn!(
                ?domains,
                "the cluster's DNS still answers for the mesh domains; going on with the removal"
            );
            return;
        }
        let mut known = false;
        for resolver in &resolvers {
            for domain in domains {
                known |= check::ask(*resolver, domain).await == Answer::Configured;
            }
        }
        quiet = if known { 0 } else { quiet + 1 };
        tokio::time::sleep(LOOK / 2).await;
    }
}

async fn let_go(ctx: &Context, mesh: &MeshConfig) -> Result<(), CleanupError> {
    let others: Vec<_> = mesh.finalizers().iter().filter(|name| *name != FINALIZER).collect();
    let version = mesh.resource_version();
    let patch = json!({"metadata": {"resourceVersion": version, "finalizers": others}});
    ctx.writer.merge::<MeshConfig>(&ctx.namespace, &mesh.name_any(), &patch).await?;
    Ok(())
}

/// Waits until our namespace is being deleted. Then does what the leader should have done long ago, whoever leads: soon nobody
/// has the right to, and the Lease itself is among what goes. What is written is the same whoever writes it.
pub async fn stand_in(ctx: Context, writing: Client) {
    if ctx.index.ending().wait_for(|ending| *ending).await.is_err() {
        return;
    }
    tokio::time::sleep(LEADERS_TIME).await;
    let ctx = Context { writer: Writer::new(writing, Fence::endless()), ..ctx };
    for _ in 0..TRIES {
        match stand_in_once(&ctx).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "the namespace is being deleted"),
        }
        tokio::time::sleep(AGAIN / 2).await;
    }
}

async fn stand_in_once(ctx: &Context) -> Result<(), CleanupError> {
    let meshes = list(&ctx.client, &ctx.namespace).await?;
    for mesh in meshes.iter().filter(|mesh| is_kept(mesh)) {
        dns::Keeper::default().remove(ctx, mesh).await?;
        let_go(ctx, mesh).await?;
    }
    if ctx.smi_metrics {
        apiservice::remove(ctx).await?;
    }
    Ok(())
}
