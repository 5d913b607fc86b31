//! Which listen ports are in use, and by whom they may be held: read from the API server, not from the index. What another leader,
//! or this one a moment ago, has written must be in it, and so must a proxy that a watch has not told of yet.

use kube::api::ListParams;

use crate::context::Context;
use crate::index::ProxyPod;
use crate::index::facts::{SHADOW_LABEL, ShadowFacts};
use crate::listed::{self, each};
use crate::ports::Record;

/// The listen ports in use, oldest shadow first.
pub(super) async fn record(ctx: &Context) -> kube::Result<Vec<Record>> {
    let shadows = ListParams::default().labels(&format!("{SHADOW_LABEL}=true"));
    let mut shadows = each(ctx, shadows, |service| ShadowFacts::of_ours(&ctx.namespace, service)).await?;
    shadows.sort_by(|a, b| (a.created, &a.service).cmp(&(b.created, &b.service)));
    Ok(shadows.into_iter().map(|shadow| Record { service: shadow.service, ports: shadow.ports }).collect())
}

/// Whoever may hold a listen port: the proxies as their endpoints tell, and as their pods do. Endpoints go with the proxies'
/// Service, which somebody may delete, and come after the pods.
pub(super) async fn holders(ctx: &Context) -> kube::Result<Vec<ProxyPod>> {
    Ok(ctx.index.holders(listed::proxies(ctx).await?))
}
