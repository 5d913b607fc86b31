//! Which listen ports are in use, and by whom they may be held: read from the API server, not from the index. What another leader,
//! or this one a moment ago, has written must be in it, and so must a proxy that a watch has not told of yet.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::apply::in_time;
use crate::context::Context;
use crate::index::ProxyPod;
use crate::index::facts::{SHADOW_LABEL, ShadowFacts};
use crate::index::proxy_pods::ProxyFacts;
use crate::index::watch::PAGE;
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
    Ok(ctx.index.holders(each(ctx, ListParams::default(), ProxyFacts::of).await?))
}

/// What `of` makes of each object in our namespace; all are of one moment, that of the first page.
async fn each<K, T>(ctx: &Context, params: ListParams, of: impl Fn(&K) -> Option<T>) -> kube::Result<Vec<T>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let mut params = params.limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = in_time(api.list(&params)).await?;
        all.extend(page.items.iter().filter_map(&of));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}
