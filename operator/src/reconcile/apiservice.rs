//! The `APIService` by which the API server knows our traffic metrics API. The chart makes it, and takes it away; only whom to trust
//! is ours to say, since the CA is made here. When the mesh's namespace is deleted under it there is no chart to take it away.

use k8s_openapi::ByteString;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::ResourceExt;
use serde_json::{Value, json};
use weft_config::contract::OPERATOR_SERVICE;

use crate::apply::WriteError;
use crate::context::Context;
use crate::serve::ca::Pair;

/// Its name, which Kubernetes wants to be made of version and group.
pub const NAME: &str = "v1alpha1.metrics.smi-spec.io";

/// Writes the CA's certificate into the `APIService`, unless it is there.
pub async fn ensure(ctx: &Context, ca: &Pair) -> Result<(), WriteError> {
    if let Some(patch) = live(ctx).await?.and_then(|live| patch(&live, ca, &ctx.namespace)) {
        ctx.writer.merge_cluster_wide::<APIService>(NAME, &patch).await?;
        tracing::info!("told the API server how to trust the traffic metrics API");
    }
    Ok(())
}

/// Takes the registration away, if it is ours. While one is there whose API cannot be reached, Kubernetes lets no namespace end.
pub async fn remove(ctx: &Context) -> Result<(), WriteError> {
    if let Some(live) = live(ctx).await?.filter(|live| is_ours(live, &ctx.namespace)) {
        let uid = live.uid().unwrap_or_default();
        ctx.writer.delete_cluster_wide::<APIService>(NAME, &uid).await?;
        tracing::info!("the traffic metrics API is registered no longer: our namespace is being deleted");
    }
    Ok(())
}

async fn live(ctx: &Context) -> Result<Option<APIService>, WriteError> {
    let live = ctx.writer.read_cluster_wide::<APIService>(NAME).await;
    live.map_err(|source| WriteError::Api { object: format!("APIService {NAME}"), source })
}

/// Whether it leads to the operator in `namespace`, not to that of another mesh.
fn is_ours(live: &APIService, namespace: &str) -> bool {
    let service = live.spec.as_ref().and_then(|spec| spec.service.as_ref());
    service.is_some_and(|service| {
        service.name.as_deref() == Some(OPERATOR_SERVICE) && service.namespace.as_deref() == Some(namespace)
    })
}

/// What is to be written. `None`: nothing; it is so already, or the API is another mesh's.
fn patch(live: &APIService, ca: &Pair, namespace: &str) -> Option<Value> {
    let spec = live.spec.as_ref()?;
    let bundle = ByteString(ca.certificate.as_bytes().to_vec());
    (is_ours(live, namespace) && spec.ca_bundle.as_ref() != Some(&bundle))
        .then(|| json!({"spec": {"caBundle": bundle}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_written_once_and_only_into_ours() {
        let ca = Pair { certificate: "PEM".into(), key: String::new() };
        let service = |namespace: &str, bundle: Value| {
            let spec = json!({"group": "metrics.smi-spec.io", "version": "v1alpha1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": {"name": "weft-operator", "namespace": namespace}, "caBundle": bundle});
            serde_json::from_value::<APIService>(json!({"metadata": {"name": NAME}, "spec": spec})).unwrap()
        };
        let written = patch(&service("weft-system", Value::Null), &ca, "weft-system").unwrap();
        assert_eq!(written, json!({"spec": {"caBundle": "UEVN"}}));
        assert_eq!(patch(&service("weft-system", json!("UEVN")), &ca, "weft-system"), None);
        assert!(patch(&service("weft-system", json!("T0xE")), &ca, "weft-system").is_some(), "another CA");
        assert_eq!(patch(&service("other", Value::Null), &ca, "weft-system"), None);
    }
}
