//! Which listen ports are in use, and by whom they may be held: read from the API server, not from the index. What another leader,
//! or this one a moment ago, has written must be in it, and so must a proxy that a watch has not told of yet.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::ListParams;
use weft_config::ServiceId;

use crate::context::Context;
use crate::index::ProxyPod;
use crate::index::facts::{ShadowFacts, created, is_remnant, listen_ports};
use crate::listed::{self, each};
use crate::ports::Record;

/// The listen ports in use, oldest shadow first. Whatever somebody has made of a shadow's labels it has its ports, and must go one day:
/// it counts for the Service whose shadow has its name, or for itself ([`Worker::unseen`](super::Worker)).
pub(super) async fn record(ctx: &Context) -> kube::Result<Vec<Record>> {
    let namespace = &*ctx.namespace;
    let ours = |service: &Service| {
        let facts = ShadowFacts::of_ours(namespace, service);
        is_remnant(namespace, service).then(|| Listed {
            created: created(service),
            name: service.name_any(),
            service: facts.map(|facts| facts.service),
            ports: listen_ports(service),
        })
    };
    let mut shadows = each(ctx, ListParams::default(), ours).await?;
    shadows.sort_by(|a, b| (a.created, &a.service, &a.name).cmp(&(b.created, &b.service, &b.name)));
    let record = shadows.into_iter().map(|shadow| {
        let service = shadow.service.or_else(|| ctx.index.meshed_by_shadow(&shadow.name));
        let service = service.unwrap_or_else(|| ServiceId::new(namespace, shadow.name.as_str()));
        Record { service, ports: shadow.ports }
    });
    Ok(record.collect())
}

/// A Service that we made as a shadow.
struct Listed {
    created: i64,
    name: String,
    /// What it stands for, if it still says so.
    service: Option<ServiceId>,
    ports: Vec<(u16, u16)>,
}

/// Whoever may hold a listen port: the proxies' pods, those among them that no watch has told of yet.
pub(super) async fn holders(ctx: &Context) -> kube::Result<Vec<ProxyPod>> {
    Ok(ctx.index.proxies_and(listed::proxies(ctx).await?))
}
