//! What is shown when a test fails: the mesh's status, its pods and the end of their logs.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};

use crate::cluster::Cluster;
use crate::mesh::{self, NAMESPACE};
use crate::workloads::phase;

/// Shows it on standard error; what cannot be read is left out.
pub async fn show(cluster: &Cluster) {
    eprintln!("--- MeshConfig");
    match mesh::status(cluster).await {
        Ok(status) => eprintln!("{status:#}"),
        Err(error) => eprintln!("{error}"),
    }
    let pods = cluster.api::<Pod>(NAMESPACE);
    for pod in pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default() {
        eprintln!("--- {}: {}", pod.name_any(), phase(&pod));
        for previous in [true, false] {
            let params =
                LogParams { tail_lines: Some(25), timestamps: true, previous, ..LogParams::default() };
            if let Ok(log) = pods.logs(&pod.name_any(), &params).await {
                eprintln!("{}{log}", if previous { "(the container before)\n" } else { "" });
            }
        }
    }
    let events = cluster.api::<Event>(NAMESPACE).list(&ListParams::default()).await;
    eprintln!("--- warnings");
    for event in events.map(|list| list.items).unwrap_or_default() {
        if event.type_.as_deref() == Some("Warning") {
            let about = event.involved_object.name.unwrap_or_default();
            eprintln!("{about}: {}: {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default());
        }
    }
}
