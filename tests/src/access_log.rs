//! What a proxy writes of each request when it is asked to.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::LogParams;

use crate::cluster::Cluster;
use crate::wait::{self, Seen, seconds};
use crate::{Result, mesh};

/// The lines of the proxy on `node` that contain `text`.
pub async fn lines(cluster: &Cluster, node: &str, text: &str) -> Result<Vec<String>> {
    let proxy = mesh::proxy_on(cluster, node).await?.name_any();
    let log = cluster.api::<Pod>(mesh::NAMESPACE).logs(&proxy, &LogParams::default()).await?;
    Ok(log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect())
}

/// The one line of the proxy on `node` that contains `text`.
pub async fn line(cluster: &Cluster, node: &str, text: &str) -> Result<String> {
    wait::until(&format!("one line has {text}"), seconds(10), async || {
        let mut lines = lines(cluster, node, text).await?;
        let state = format!("{lines:?}");
        let line = if lines.len() == 1 { lines.pop() } else { None };
        Ok(match line {
            Some(line) => Seen::Done(line),
            None => Seen::NotYet(state),
        })
    })
    .await
}

/// Runs `body` with proxies that write such a log, and waits until those are gone again; the MeshConfig has these further
/// fields in its spec meanwhile.
pub async fn while_logging(
    cluster: &Cluster,
    form: &str,
    mut spec: serde_json::Value,
    body: impl AsyncFnOnce() -> Result,
) -> Result {
    // Every node's proxy is gone for its drain in turn, at most.
    let deadline = seconds(90);
    let names = async || {
        Ok::<_, crate::Failure>(
            mesh::proxies(cluster).await?.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        )
    };
    spec["proxy"]["accessLog"] = form.into();
    let (before, mut logging) = (names().await?, Vec::new());
    mesh::while_configured(cluster, spec, async || {
        mesh::proxies_settled(cluster, &before, deadline).await?;
        logging = names().await?;
        body().await
    })
    .await?;
    mesh::proxies_settled(cluster, &logging, deadline).await
}
