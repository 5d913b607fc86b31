//! A user's namespaces, Deployments and clients.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::Result;
use crate::clients::ClientPod;
use crate::cluster::Cluster;
use crate::exec::PodRef;
use crate::wait::{self, Seen, seconds};

pub use crate::servers::Server;

/// A namespace of a test's own; what an earlier run left of it is removed first.
pub async fn namespace(cluster: &Cluster, name: &str) -> Result<String> {
    remove_namespace(cluster, name).await?;
    let object = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    cluster.all::<Namespace>().create(&PostParams::default(), &object).await?;
    Ok(name.to_owned())
}

/// Deletes a namespace and waits until it is gone.
pub async fn remove_namespace(cluster: &Cluster, name: &str) -> Result {
    let api: Api<Namespace> = cluster.all();
    if api.get_opt(name).await?.is_none() {
        return Ok(());
    }
    api.delete(name, &DeleteParams::default()).await?;
    wait::until(&format!("namespace {name} is gone"), seconds(60), async || {
        let there = api.get_opt(name).await?;
        Ok(Seen::when(there.is_none(), (), || "it is still there".to_owned()))
    })
    .await
}

/// The lab's image.
pub fn lab_image() -> String {
    image("weft-lab")
}

/// An image of ours: `WEFT_IMAGE_REGISTRY` and `WEFT_IMAGE_TAG` say where on a cluster that is not the embedded one.
pub fn image(name: &str) -> String {
    image_of(name, &image_tag())
}

/// An image of ours of another tag.
pub fn image_of(name: &str, tag: &str) -> String {
    format!("{}/{name}:{tag}", image_registry())
}

/// Tag of the images that stand for the next version.
pub fn next_tag() -> String {
    std::env::var("WEFT_NEXT_TAG").unwrap_or_else(|_| "next".to_owned())
}

/// Registry of our images.
pub fn image_registry() -> String {
    std::env::var("WEFT_IMAGE_REGISTRY").unwrap_or_else(|_| "localhost".to_owned())
}

/// Tag of our images.
pub fn image_tag() -> String {
    std::env::var("WEFT_IMAGE_TAG").unwrap_or_else(|_| "dev".to_owned())
}

/// Waits until a Deployment has all its replicas available and none too many.
pub async fn available(cluster: &Cluster, namespace: &str, name: &str) -> Result {
    let api: Api<Deployment> = cluster.api(namespace);
    wait::until(&format!("Deployment {namespace}/{name} is complete"), seconds(90), async || {
        let object = api.get(name).await?;
        let wanted = object.spec.replicas.unwrap_or(1);
        let generation = object.metadata.generation;
        let status = object.status.unwrap_or_default();
        let counts = [status.replicas, status.updated_replicas, status.available_replicas];
        let complete =
            status.observed_generation == generation && counts.iter().all(|n| n.unwrap_or(0) == wanted);
        Ok(Seen::when(complete, (), || format!("{counts:?} of {wanted}")))
    })
    .await
}

/// Sets the number of replicas, without waiting.
pub async fn scale(cluster: &Cluster, namespace: &str, name: &str, replicas: u32) -> Result {
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    cluster.api::<Deployment>(namespace).patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Addresses of the ready endpoints of a Service, as its slices have them now; sorted.
pub async fn ready_addresses(cluster: &Cluster, namespace: &str, service: &str) -> Result<Vec<String>> {
    let ready =
        |endpoint: &Endpoint| endpoint.conditions.as_ref().and_then(|known| known.ready).unwrap_or(true);
    addresses(cluster, namespace, service, ready).await
}

async fn addresses(
    cluster: &Cluster,
    namespace: &str,
    service: &str,
    which: impl Fn(&Endpoint) -> bool,
) -> Result<Vec<String>> {
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = cluster.api::<EndpointSlice>(namespace).list(&of_service).await?;
    let mut addresses: Vec<_> = slices
        .into_iter()
        .flat_map(|slice| slice.endpoints.unwrap_or_default())
        .filter(which)
        .flat_map(|endpoint| endpoint.addresses)
        .collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// Waits until a Service has so many ready endpoints: later than its pods are, on a busy machine by seconds.
pub async fn has_endpoints(
    cluster: &Cluster,
    namespace: &str,
    service: &str,
    count: usize,
    deadline: Duration,
) -> Result {
    let what = format!("{namespace}/{service} has {count} ready endpoints");
    counts(&what, count, deadline, async || ready_addresses(cluster, namespace, service).await).await
}

/// Waits until a Service has so many endpoints, those that drain and those that are not ready among them.
pub async fn has_endpoints_left(
    cluster: &Cluster,
    namespace: &str,
    service: &str,
    count: usize,
    deadline: Duration,
) -> Result {
    let what = format!("{namespace}/{service} has {count} endpoints");
    counts(&what, count, deadline, async || addresses(cluster, namespace, service, |_| true).await).await
}

async fn counts(
    what: &str,
    count: usize,
    deadline: Duration,
    look: impl AsyncFn() -> Result<Vec<String>>,
) -> Result {
    wait::until(what, deadline, async || {
        let addresses = look().await?;
        Ok(Seen::when(addresses.len() == count, (), || format!("{addresses:?}")))
    })
    .await
}

/// Names of the running pods labelled `app=<app>`, those on their way out left out; sorted.
pub async fn pods(cluster: &Cluster, namespace: &str, app: &str) -> Result<Vec<String>> {
    let pods =
        cluster.api::<Pod>(namespace).list(&ListParams::default().labels(&format!("app={app}"))).await?;
    let mut names: Vec<_> = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(ResourceExt::name_any)
        .collect();
    names.sort();
    Ok(names)
}

/// A Service `name` that selects `app=<app>`; `ports` are (name, port, target port by number or name).
pub async fn service(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    app: &str,
    ports: &[(&str, u16, Value)],
) -> Result {
    let object = service_manifest(name, &json!({ "app": app }), ports);
    cluster
        .api::<Service>(namespace)
        .create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    Ok(())
}

/// The manifest of a Service.
pub fn service_manifest(name: &str, selector: &Value, ports: &[(&str, u16, Value)]) -> Value {
    let ports: Vec<_> = ports
        .iter()
        .map(|(name, port, target)| json!({ "name": name, "port": port, "targetPort": target }))
        .collect();
    json!({ "metadata": { "name": name }, "spec": { "selector": selector, "ports": ports } })
}

/// A client pod for each node, in the order of the nodes.
pub async fn clients(cluster: &Cluster, namespace: &str) -> Result<Vec<PodRef>> {
    let pods = cluster.nodes.iter().map(|node| ClientPod::new(&format!("client-{node}"), node));
    start_all(cluster, namespace, pods.collect()).await
}

/// Makes client pods and waits until all are Ready; in the same order.
pub async fn start_all(cluster: &Cluster, namespace: &str, pods: Vec<ClientPod>) -> Result<Vec<PodRef>> {
    let mut clients = Vec::new();
    for pod in pods {
        clients.push(pod.create(cluster, namespace).await?);
    }
    for client in &clients {
        pod_ready(cluster.client.clone(), client, seconds(60)).await?;
    }
    Ok(clients)
}

/// A further client pod on `node`.
pub async fn client(cluster: &Cluster, namespace: &str, name: &str, node: &str) -> Result<PodRef> {
    ClientPod::new(name, node).start(cluster, namespace).await
}

/// The address of a pod.
pub async fn address_of(cluster: &Cluster, namespace: &str, pod: &str) -> Result<String> {
    let pod = cluster.api::<Pod>(namespace).get(pod).await?;
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    Ok(address.ok_or_else(|| format!("{} has no address", pod.name_any()))?)
}

/// Waits until a pod is Ready.
pub async fn pod_ready(client: Client, pod: &PodRef, deadline: Duration) -> Result {
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace);
    wait::until(&format!("pod {}/{} is Ready", pod.namespace, pod.name), deadline, async || {
        let object = api.get(&pod.name).await?;
        Ok(Seen::when(is_ready(&object), (), || phase(&object)))
    })
    .await
}

/// Whether a pod is Ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// A pod's state in a line.
pub fn phase(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let containers: Vec<_> = status
        .container_statuses
        .unwrap_or_default()
        .into_iter()
        .map(|one| format!("{} started {} times, {}", one.name, one.restart_count, json!(one.state)))
        .collect();
    format!("{} {}", status.phase.unwrap_or_default(), containers.join("; "))
}
