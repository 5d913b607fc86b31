//! The cluster's DNS: what CoreDNS is configured with, and DNS servers of a test's own beside it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::Result;
use crate::cluster::Cluster;
use crate::exec::PodRef;
use crate::traffic::Queries;
use crate::wait::{self, Seen, seconds};
use crate::workloads::is_ready;

/// The namespace of the cluster's DNS.
pub const NAMESPACE: &str = "kube-system";
/// CoreDNS's image in the embedded cluster.
const COREDNS: &str = "localhost/coredns:local";

/// The Corefile, byte for byte.
pub async fn corefile(cluster: &Cluster) -> Result<String> {
    value(cluster, "coredns", "Corefile").await?.ok_or_else(|| "the ConfigMap coredns has no Corefile".into())
}

/// Waits until `name` does not exist, asked by `client`: CoreDNS notices a change on its own time.
pub async fn is_gone(cluster: &Cluster, client: &PodRef, name: &str) -> Result {
    wait::until(&format!("{name} is gone from DNS"), seconds(60), async || {
        let asked = Queries::start(cluster, client, 20, &[&format!("{name}=NXDOMAIN")]).await?;
        let report = asked.stop().await?;
        Ok(Seen::when(report.sent > 0 && report.failed == 0, (), || format!("{report:?}")))
    })
    .await
}

/// What is under a key of a `ConfigMap`, if anything is.
pub async fn value(cluster: &Cluster, config_map: &str, key: &str) -> Result<Option<String>> {
    let map = cluster.api::<ConfigMap>(NAMESPACE).get_opt(config_map).await?;
    Ok(map.and_then(|map| map.data?.remove(key)))
}

/// Writes the Corefile as `who`.
pub async fn write_corefile(cluster: &Cluster, who: &str, text: &str) -> Result {
    let patch = Patch::Merge(json!({ "data": { "Corefile": text } }));
    let params = PatchParams { field_manager: Some(who.to_owned()), ..PatchParams::default() };
    cluster.api::<ConfigMap>(NAMESPACE).patch("coredns", &params, &patch).await?;
    Ok(())
}

/// Every CoreDNS pod with how often its container was started again.
pub async fn pods(cluster: &Cluster) -> Result<BTreeMap<String, i32>> {
    let pods = cluster.api::<Pod>(NAMESPACE).list(&ListParams::default().labels("k8s-app=kube-dns")).await?;
    Ok(pods
        .iter()
        .map(|pod| {
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
            let restarts = statuses.map_or(0, |all| all.iter().map(|one| one.restart_count).sum());
            (pod.name_any(), restarts)
        })
        .collect())
}

/// The address of a Service.
pub async fn address(cluster: &Cluster, namespace: &str, service: &str) -> Result<String> {
    let service = cluster.api::<Service>(namespace).get(service).await?;
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone());
    address.ok_or_else(|| format!("Service {} has no address", service.name_any()).into())
}

/// Starts a CoreDNS with this Corefile on every node, as a DaemonSet whose `ConfigMap` has its name, and gives the address of one
/// of its pods.
pub async fn start_server(cluster: &Cluster, namespace: &str, name: &str, corefile: &str) -> Result<String> {
    stop_server(cluster, namespace, name).await?;
    let map = json!({ "metadata": { "name": name }, "data": { "Corefile": corefile } });
    let map = serde_json::from_value(map)?;
    cluster.api::<ConfigMap>(namespace).create(&PostParams::default(), &map).await?;
    let set = serde_json::from_value(manifest(name))?;
    cluster.api::<DaemonSet>(namespace).create(&PostParams::default(), &set).await?;
    let of_it = ListParams::default().labels(&format!("app={name}"));
    wait::until(&format!("the DNS server {name} is Ready"), seconds(60), async || {
        let pods = cluster.api::<Pod>(namespace).list(&of_it).await?;
        let ready = pods.items.len() == cluster.nodes.len() && pods.iter().all(is_ready);
        let address = pods.iter().find_map(|pod| pod.status.as_ref()?.pod_ip.clone()).unwrap_or_default();
        Ok(Seen::when(ready, address, || format!("{} pods", pods.items.len())))
    })
    .await
}

fn manifest(name: &str) -> Value {
    let labels = json!({ "app": name });
    json!({
        "metadata": { "name": name },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "dnsPolicy": "Default",
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "coredns",
                        "image": COREDNS,
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns" }],
                        "readinessProbe": { "tcpSocket": { "port": 53 }, "periodSeconds": 1 },
                    }],
                    "volumes": [{ "name": "config", "configMap": { "name": name } }],
                },
            },
        },
    })
}

/// Stops it, if it is there.
pub async fn stop_server(cluster: &Cluster, namespace: &str, name: &str) -> Result {
    let (sets, maps) = (cluster.api::<DaemonSet>(namespace), cluster.api::<ConfigMap>(namespace));
    if sets.get_opt(name).await?.is_some() {
        sets.delete(name, &DeleteParams::foreground()).await?;
    }
    if maps.get_opt(name).await?.is_some() {
        maps.delete(name, &DeleteParams::default()).await?;
    }
    wait::until(&format!("the DNS server {name} is gone"), seconds(60), async || {
        let there = sets.get_opt(name).await?;
        Ok(Seen::when(there.is_none(), (), || "it is still there".to_owned()))
    })
    .await
}
