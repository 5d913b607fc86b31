//! Reads what is to be known of the cluster's DNS: Services and pods from the index, `ConfigMaps` and what the pods run from the
//! API server, by their names only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Error};
use weft_config::ServiceId;
use weft_config::contract::DNS_SERVICE;
use weft_crds::MeshConfig;

use super::memory::{Memory, Pods};
use super::{DnsError, Seen, told_last};
use crate::apply::in_time;
use crate::context::Context;
use crate::dns::facts::{self, Facts, NODE_CACHES, OPENSHIFT_NAMESPACE, OPENSHIFT_SERVICE, Workload};
use crate::dns::stubs::Resolver;

/// Looks at everything that may matter.
pub(super) async fn gather(ctx: &Context, mesh: &MeshConfig, memory: &mut Memory) -> Result<Seen, DnsError> {
    let asked = mesh.spec.dns.clone();
    let address = |namespace: &str, name: &str| -> Option<IpAddr> {
        ctx.index.service(&ServiceId::new(namespace, name))?.cluster_ip
    };
    let services = facts::services(&asked).into_iter();
    let services: BTreeMap<_, _> =
        services.filter_map(|name| Some((name.to_owned(), address(&asked.namespace, name)?))).collect();
    let service = facts::services(&asked).into_iter().find(|name| services.contains_key(*name));
    let behind = service.map(|service| behind(ctx, &asked.namespace, service)).unwrap_or_default();

    let mut facts = Facts {
        domains: mesh.spec.domains.clone(),
        cluster_domain: mesh.spec.cluster_domain.clone(),
        mesh: ctx.namespace.to_string(),
        resolver: Resolver {
            now: address(&ctx.namespace, DNS_SERVICE),
            before: told_last(mesh).resolver.parse().ok(),
        },
        services,
        openshift: address(OPENSHIFT_NAMESPACE, OPENSHIFT_SERVICE),
        behind: behind.keys().cloned().collect(),
        told: told_last(mesh).provider,
        asked,
        ..Facts::default()
    };
    let maps = config_maps(ctx, &mut facts, memory).await?;
    let caches: BTreeSet<String> =
        NODE_CACHES.into_iter().filter(|name| maps.contains_key(*name)).map(ToOwned::to_owned).collect();
    let known = memory.pods(&facts.behind, &caches).map(|(pods, lately)| (pods.clone(), lately));
    let (pods, in_doubt) = match known {
        Some((pods, true)) => (pods, None),
        known => match (pods(ctx, &facts, &behind, caches).await, known) {
            ((pods, None), _) => {
                memory.remember(pods.clone());
                (pods, None)
            }
            // It is what it was, as far as anybody knows.
            ((_, Some(_)), Some((before, _))) => (before, None),
            (unread, None) => unread,
        },
    };
    facts.workloads = pods.workloads;
    facts.no_cache = pods.no_cache;
    Ok(Seen { facts, maps, in_doubt })
}

/// The `ConfigMaps` that there are; what may not be read is not asked for each time.
async fn config_maps(
    ctx: &Context,
    facts: &mut Facts,
    memory: &mut Memory,
) -> Result<BTreeMap<String, ConfigMap>, DnsError> {
    let namespace = facts.asked.namespace.clone();
    let names: Vec<_> = facts::config_maps(&facts.asked).into_iter().map(ToOwned::to_owned).collect();
    let mut maps = BTreeMap::new();
    for name in names {
        if !memory.is_forbidden(&name) {
            match ctx.writer.read::<ConfigMap>(&namespace, &name).await {
                Ok(Some(map)) => {
                    facts.config_maps.insert(name.clone(), map.data.clone().unwrap_or_default());
                    maps.insert(name, map);
                    continue;
                }
                Ok(None) => continue,
                Err(Error::Api(status)) if status.code == 403 => memory.note_forbidden(&name),
                Err(error) => return Err(DnsError::Read(namespace, name, error)),
            }
        }
        facts.forbidden.insert(name);
    }
    Ok(maps)
}

/// What the ready pods behind a Service belong to: names, and whether each is a Deployment.
fn behind(ctx: &Context, namespace: &str, service: &str) -> BTreeMap<String, bool> {
    let slices = ctx.index.slices(&ServiceId::new(namespace, service));
    let ready = slices.iter().flat_map(|slice| &slice.endpoints).filter(|endpoint| endpoint.ready);
    let addresses: BTreeSet<_> = ready.map(|endpoint| endpoint.address).collect();
    if addresses.is_empty() {
        return BTreeMap::new();
    }
    let pods = ctx.index.pods().into_iter().filter(|pod| {
        &*pod.name.namespace == namespace && pod.addresses.iter().any(|address| addresses.contains(address))
    });
    let owners = pods.filter_map(|pod| {
        let (kind, name) = pod.owner.as_ref()?;
        Some((facts::workload_of(kind, name)?, &**kind == "ReplicaSet"))
    });
    owners.collect()
}

/// What the pods run, and why that is not known. What there is not, or may not be read, is left out: that is good to know, not
/// needed. What merely could not be read this time is another matter: without it something else would be decided.
async fn pods(
    ctx: &Context,
    facts: &Facts,
    behind: &BTreeMap<String, bool>,
    caches: BTreeSet<String>,
) -> (Pods, Option<DnsError>) {
    let namespace = &facts.asked.namespace;
    let deployments: Api<Deployment> = Api::namespaced(ctx.client.clone(), namespace);
    let daemon_sets: Api<DaemonSet> = Api::namespaced(ctx.client.clone(), namespace);
    let mut pods = Pods { behind: facts.behind.clone(), ..Pods::default() };
    let mut in_doubt = None;
    let mut note = |name: &str, error: Error| {
        tracing::debug!(namespace, name, %error, "what the DNS pods run is not known");
        if !matches!(&error, Error::Api(status) if status.code == 403) {
            in_doubt = Some(DnsError::Workload(namespace.clone(), name.to_owned(), error));
        }
    };
    for (name, deployment) in behind {
        let template = if *deployment {
            in_time(deployments.get_opt(name)).await.map(|found| found.map(|found| found.spec.template))
        } else {
            in_time(daemon_sets.get_opt(name)).await.map(|found| found.map(|found| found.spec.template))
        };
        match template {
            Ok(Some(template)) => drop(pods.workloads.insert(name.clone(), Workload::of(&template))),
            Ok(None) => {}
            Err(error) => note(name, error),
        }
    }
    for name in &caches {
        match in_time(daemon_sets.get_opt(name)).await {
            Ok(Some(found)) => drop(pods.workloads.insert(name.clone(), Workload::of(&found.spec.template))),
            Ok(None) => drop(pods.no_cache.insert(name.clone())),
            Err(error) => note(name, error),
        }
    }
    pods.caches = caches;
    (pods, in_doubt)
}
