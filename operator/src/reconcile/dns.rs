//! The mesh domains in CoreDNS: our block in its `ConfigMap`, and whether its pods have taken it up.

use std::net::IpAddr;

use futures::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use weft_config::ServiceId;
use weft_crds::MeshConfig;
use weft_crds::meshconfig::DnsProvider;

use super::status;
use crate::apply::WriteError;
use crate::context::Context;
use crate::dns::block::Block;
use crate::dns::check::{self, Answer};
use crate::dns::corefile::{self, CorefileError};
use crate::names::ShadowName;

/// The key of the Corefile in CoreDNS's `ConfigMap`.
const COREFILE: &str = "Corefile";

/// How DNS stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsState {
    /// Every DNS pod answers for every mesh domain.
    Configured,
    /// The block is in; some pods have not read it yet.
    Propagating(String),
    /// The user adds these lines.
    Manual(String),
}

/// Why DNS could not be configured. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// There is no address to forward to.
    #[error(
        "Service {0} has no ClusterIP; name the cluster's DNS Service in spec.dns.namespace and spec.dns.service, or set spec.dns.provider to None"
    )]
    NoService(ServiceId),
    /// There is no Corefile.
    #[error(
        "ConfigMap {0} has no Corefile; name CoreDNS's ConfigMap in spec.dns.namespace and spec.dns.configMap, or set spec.dns.provider to None"
    )]
    NoCorefile(ServiceId),
    /// It could not be read.
    #[error("ConfigMap {0}: {1}")]
    Read(ServiceId, kube::Error),
    /// The operator has no right to it.
    #[error(
        "ConfigMap {0} may not be read or written: the chart's values dns.namespace and dns.configMap must name it and dns.manage must be true, or set spec.dns.provider to None ({1})"
    )]
    Forbidden(ServiceId, kube::Error),
    /// It could not be edited.
    #[error("ConfigMap {0}: {1}")]
    Corefile(ServiceId, CorefileError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Keeps the block as it should be and says how far it has come.
pub async fn keep(ctx: &Context, mesh: &MeshConfig) -> Result<DnsState, DnsError> {
    let dns = &mesh.spec.dns;
    let service = ServiceId::new(dns.namespace.as_str(), dns.service.as_str());
    let address = ctx.index.service(&service).and_then(|service| service.cluster_ip);
    if dns.provider == DnsProvider::None {
        leave_alone(ctx, mesh).await?;
        let address =
            address.map_or_else(|| "<address of the cluster's DNS>".to_owned(), |ip| ip.to_string());
        let block = block(ctx, mesh, &address);
        return Ok(DnsState::Manual(format!(
            "add to your DNS, and keep in step with the Services:\n{block}"
        )));
    }
    let address = address.ok_or_else(|| DnsError::NoService(service.clone()))?;
    edit(ctx, mesh, Some(&block(ctx, mesh, &address.to_string()))).await?;
    if !ctx.index.slices(&service).iter().flat_map(|slice| &slice.endpoints).any(|endpoint| endpoint.ready) {
        return Ok(DnsState::Propagating(format!("Service {service} has no ready DNS pod to ask")));
    }
    let waiting =
        ask(ctx, mesh, &service).await.into_iter().filter(|(_, _, answer)| *answer != Answer::Configured);
    Ok(match waiting.collect::<Vec<_>>().as_slice() {
        [] => DnsState::Configured,
        [(pod, domain, answer), ..] => DnsState::Propagating(match answer {
            Answer::Silent(why) => format!("DNS pod {pod} does not answer for {domain}: {why}"),
            _ => format!("DNS pod {pod} has not read the new Corefile yet; CoreDNS looks every 30 s or so"),
        }),
    })
}

/// Takes the block out. `true` when no DNS pod answers for a mesh domain any more.
pub async fn remove(ctx: &Context, mesh: &MeshConfig) -> Result<bool, DnsError> {
    if mesh.spec.dns.provider == DnsProvider::None {
        return leave_alone(ctx, mesh).await.map(|()| true);
    }
    match edit(ctx, mesh, None).await {
        // Gone altogether: nothing of ours can be in it.
        Ok(()) | Err(DnsError::NoCorefile(_)) => {}
        Err(error) => return Err(error),
    }
    let service = ServiceId::new(mesh.spec.dns.namespace.as_str(), mesh.spec.dns.service.as_str());
    Ok(!ask(ctx, mesh, &service).await.iter().any(|(_, _, answer)| *answer == Answer::Configured))
}

/// Takes out what may be there from the time before DNS was to be left alone: once, until the status says so. Where the chart
/// gave no right to the `ConfigMap` there never was a block.
async fn leave_alone(ctx: &Context, mesh: &MeshConfig) -> Result<(), DnsError> {
    let mut conditions = mesh.status.iter().flat_map(|status| &status.conditions);
    if conditions.any(|c| c.type_ == status::DNS_CONFIGURED && c.reason == status::MANUAL) {
        return Ok(());
    }
    match edit(ctx, mesh, None).await {
        Err(DnsError::Forbidden(..) | DnsError::NoCorefile(_)) => Ok(()),
        done => done,
    }
}

fn block(ctx: &Context, mesh: &MeshConfig, address: &str) -> String {
    let hashed = ctx.index.all_meshed().into_iter().filter_map(|id| match ShadowName::of(&id) {
        ShadowName::Hashed(shadow) => Some((id.name.to_string(), id.namespace.to_string(), shadow)),
        ShadowName::Ruled(_) => None,
    });
    let exact: Vec<_> = hashed.collect();
    Block {
        domains: &mesh.spec.domains,
        cluster_domain: &mesh.spec.cluster_domain,
        namespace: &ctx.namespace,
        dns_service: address,
        exact: &exact,
    }
    .render()
}

/// The resourceVersion that was read is a precondition: an edit of somebody else's in between is never lost.
async fn edit(ctx: &Context, mesh: &MeshConfig, block: Option<&str>) -> Result<(), DnsError> {
    let (namespace, name) = (mesh.spec.dns.namespace.as_str(), mesh.spec.dns.config_map.as_str());
    let id = ServiceId::new(namespace, name);
    let map = ctx.writer.read::<ConfigMap>(namespace, name).await.map_err(|error| match error {
        kube::Error::Api(ref status) if status.code == 403 => DnsError::Forbidden(id.clone(), error),
        error => DnsError::Read(id.clone(), error),
    })?;
    let corefile = map.as_ref().and_then(|map| map.data.as_ref()?.get(COREFILE));
    let (Some(map), Some(before)) = (&map, corefile) else { return Err(DnsError::NoCorefile(id)) };
    let after = corefile::edit(before, block).map_err(|error| DnsError::Corefile(id, error))?;
    if after == *before {
        return Ok(());
    }
    let version = &map.metadata.resource_version;
    let patch = json!({"metadata": {"resourceVersion": version}, "data": {COREFILE: after}});
    ctx.writer.merge::<ConfigMap>(namespace, name, &patch).await?;
    tracing::info!(namespace, name, removed = block.is_none(), "Corefile edited");
    Ok(())
}

/// Every ready DNS pod, for every mesh domain.
async fn ask(ctx: &Context, mesh: &MeshConfig, service: &ServiceId) -> Vec<(IpAddr, String, Answer)> {
    let slices = ctx.index.slices(service);
    let pods = slices.iter().flat_map(|slice| &slice.endpoints).filter(|endpoint| endpoint.ready);
    let questions = pods.flat_map(|pod| mesh.spec.domains.iter().map(|domain| (pod.address, domain.clone())));
    let ask = |(pod, domain): (IpAddr, String)| async move {
        let answer = check::ask(pod, &domain).await;
        (pod, domain, answer)
    };
    join_all(questions.map(ask)).await
}
