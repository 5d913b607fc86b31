//! All shadows go, where nobody is served: no worker keeps them then.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::apply::WriteError;
use crate::context::Context;
use crate::index::facts::is_remnant;
use crate::listed::each;

/// Deletes whatever was made as a shadow. By what the API server has: nothing may be left that no ownerReference takes along.
pub async fn delete_all(ctx: &Context) -> Result<(), WriteError> {
    let namespace = &*ctx.namespace;
    // A write that was given up may still land.
    ctx.writer.settled().await;
    let ours = |service: &Service| {
        is_remnant(namespace, service).then(|| (service.name_any(), service.uid().unwrap_or_default()))
    };
    let all = each(ctx, ListParams::default(), ours).await;
    let object = || format!("the shadow Services of namespace {namespace}");
    for (name, uid) in all.map_err(|source| WriteError::Api { object: object(), source })? {
        ctx.writer.delete::<Service>(namespace, &name, &uid).await?;
    }
    Ok(())
}
