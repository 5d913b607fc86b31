//! `weft-operator cleanup`: deletes the `MeshConfigs` of a namespace and waits until the running operator has taken out what
//! lies behind them. Helm runs it before it removes the operator.

use std::time::Duration;

use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;
use weft_crds::MeshConfig;

/// Why it is not clean.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The API server refused.
    #[error("MeshConfigs of namespace {0}: {1}")]
    Api(String, kube::Error),
    /// The operator did not finish.
    #[error(
        "MeshConfig {0} is still there: is the operator running? `kubectl -n {1} describe meshconfig` says what it waits for; to give up, remove its finalizer and, by hand, Weft's lines from the cluster's DNS (between weft.mesh marks in a Corefile, or as docs/dns.md tells)"
    )]
    Left(String, String),
}

/// Deletes and waits, up to `patience`.
pub async fn run(client: Client, namespace: &str, patience: Duration) -> Result<(), CleanupError> {
    let api: Api<MeshConfig> = Api::namespaced(client, namespace);
    let failed = |error| CleanupError::Api(namespace.to_owned(), error);
    let deadline = Instant::now() + patience;
    loop {
        let left = api.list(&ListParams::default()).await.map_err(failed)?.items;
        let Some(mesh) = left.first() else {
            tracing::info!(namespace, "no MeshConfig is left");
            return Ok(());
        };
        if Instant::now() >= deadline {
            return Err(CleanupError::Left(mesh.name_any(), namespace.to_owned()));
        }
        for mesh in left.iter().filter(|mesh| mesh.metadata.deletion_timestamp.is_none()) {
            tracing::info!(namespace, name = mesh.name_any(), "deleting the MeshConfig");
            match api.delete(&mesh.name_any(), &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(failed(error)),
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
