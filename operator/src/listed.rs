//! Lists from the API server: for what must not be decided on the word of a watch, since one that broke tells of nothing that
//! came or went and does not say so, and for what is rarely asked.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::apply::in_time;
use crate::context::Context;
use crate::index::proxy_pods::ProxyFacts;
use crate::index::watch::PAGE;

/// The pods of the proxies' DaemonSet, by name.
pub(crate) async fn proxies(ctx: &Context) -> kube::Result<Vec<ProxyFacts>> {
    let mut pods = each(ctx, ListParams::default(), ProxyFacts::of).await?;
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pods)
}

/// What `of` makes of each object in our namespace; all are of one moment, that of the first page.
pub(crate) async fn each<K, T>(
    ctx: &Context,
    params: ListParams,
    of: impl Fn(&K) -> Option<T>,
) -> kube::Result<Vec<T>>
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
