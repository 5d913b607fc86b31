//! Weft on the cluster: how it is installed and removed, and what it made.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::Result;
use crate::afterwards::afterwards;
use crate::cluster::Cluster;
use crate::exec::PodRef;
use crate::node::Embedded;
use crate::turns::Party;
use crate::wait::{self, Seen, seconds};
use crate::workloads::{image_registry, image_tag, is_ready, remove_namespace};

/// Where Weft is installed.
pub const NAMESPACE: &str = "weft-system";
/// Labels of the proxies' pods.
const PROXIES: &str = "app.kubernetes.io/name=weft-proxy";
/// Labels of the operator's pods.
const OPERATORS: &str = "app.kubernetes.io/name=weft,app.kubernetes.io/component=operator";
/// Name of our CRD.
const CRD: &str = "meshconfigs.weft.mesh";
/// Label of a CRD or a namespace that a test, or the demo, has made.
pub const MADE_BY_A_TEST: &str = "weft.mesh/made-by-a-test";
/// Name of the Helm release and of the MeshConfig.
const NAME: &str = "weft";

/// Whether this process has installed Weft, so that the tests share one mesh, and whether it enforces access control.
static INSTALLED: Mutex<Option<AccessControl>> = Mutex::const_new(None);

/// Whether nothing passes but what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AccessControl {
    Disabled,
    Enforced,
}

/// Weft is there, freshly installed by this process, and Ready.
pub async fn installed(cluster: &Cluster) -> Result {
    let mut installed = INSTALLED.lock().await;
    install_once(cluster, &mut installed).await?;
    ready(cluster, seconds(60)).await
}

async fn install_once(cluster: &Cluster, installed: &mut Option<AccessControl>) -> Result {
    if installed.is_some() {
        return Ok(());
    }
    // What an earlier run left may be of an older build under the same tag.
    uninstall(cluster).await?;
    install(cluster).await?;
    apply_meshconfig(cluster, &meshconfig()).await?;
    *installed = Some(AccessControl::Disabled);
    Ok(())
}

/// The mesh is as the tests of `party` need it. For those that need it as it is installed that may mean: not installed.
pub(crate) async fn is_for(cluster: &Cluster, party: Party) -> Result {
    let mut installed = INSTALLED.lock().await;
    let wanted = match party {
        Party::Alone | Party::AsInstalled => AccessControl::Disabled,
        Party::UnderAccessControl => {
            install_once(cluster, &mut installed).await?;
            AccessControl::Enforced
        }
    };
    if installed.is_none_or(|now| now == wanted) {
        return Ok(());
    }
    // Whatever comes of it, it is no longer as it was.
    *installed = None;
    let mut object = meshconfig();
    if wanted == AccessControl::Enforced {
        merge(&mut object["spec"], enforced());
    }
    apply_meshconfig(cluster, &object).await?;
    ready(cluster, seconds(60)).await?;
    *installed = Some(wanted);
    Ok(())
}

/// What the spec of a MeshConfig says to let nothing pass but what is allowed.
pub fn enforced() -> Value {
    json!({ "accessControl": "Enforced" })
}

/// What it says to answer what is not allowed with this status.
pub fn denied_with(status: u16) -> Value {
    json!({ "deniedStatus": status })
}

/// Takes Weft away, for a test that wants to install it itself.
pub async fn absent(cluster: &Cluster) -> Result {
    let mut installed = INSTALLED.lock().await;
    *installed = None;
    uninstall(cluster).await
}

/// Runs Helm; what it printed.
pub async fn helm(args: &[&str]) -> Result<String> {
    let output = tokio::process::Command::new("helm").args(args).output().await;
    let output = output.map_err(|error| format!("helm cannot be run, is it on PATH? {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    Err(format!("helm {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr)).into())
}

/// Installs the chart into a namespace that enforces Pod Security `restricted`, without a MeshConfig.
pub async fn install(cluster: &Cluster) -> Result {
    install_into(cluster, NAMESPACE, &["smi.metrics.enabled=true"]).await
}

/// The same in another namespace, with these values.
pub async fn install_into(cluster: &Cluster, name: &str, values: &[&str]) -> Result {
    restricted(cluster, name).await?;
    helm_release("install", CHART, name, &image_tag(), values).await
}

/// Makes our namespace.
pub async fn namespace(cluster: &Cluster) -> Result {
    restricted(cluster, NAMESPACE).await
}

async fn restricted(cluster: &Cluster, name: &str) -> Result {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name,
            "labels": { "pod-security.kubernetes.io/enforce": "restricted", MADE_BY_A_TEST: "true" } },
    });
    let params = PatchParams::apply("weft-tests").force();
    cluster.all::<Namespace>().patch(name, &params, &Patch::Apply(namespace)).await?;
    Ok(())
}

/// The chart of this checkout.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/weft");

/// `helm install` or `helm upgrade` of a chart with the images of `tag`, and nothing else.
pub async fn release(command: &str, chart: &str, tag: &str) -> Result {
    helm_release(command, chart, NAMESPACE, tag, &["smi.metrics.enabled=true"]).await
}

async fn helm_release(command: &str, chart: &str, namespace: &str, tag: &str, values: &[&str]) -> Result {
    let (registry, tag) = (format!("image.registry={}", image_registry()), format!("image.tag={tag}"));
    let mut args = vec![command, NAME, chart, "--namespace", namespace, "--wait", "--timeout", "90s"];
    for value in [&*registry, &*tag].iter().chain(values) {
        args.extend(["--set", value]);
    }
    helm(&args).await.map(|_| ())
}

/// On a cluster of somebody's own: whether the Weft there is one that only tests need.
async fn may_be_taken_away(cluster: &Cluster) -> Result {
    if Embedded::is_under_test() {
        return Ok(());
    }
    let there = cluster.all::<Namespace>().get_opt(NAMESPACE).await?;
    if there.is_some_and(|namespace| !namespace.labels().contains_key(MADE_BY_A_TEST)) {
        return Err(format!(
            "namespace {NAMESPACE} was made by no test: the tests install and remove Weft, its CRD and with it every MeshConfig of the \
             cluster. Use another cluster; or, if nobody needs this Weft: kubectl label namespace {NAMESPACE} {MADE_BY_A_TEST}=true"
        )
        .into());
    }
    Ok(())
}

/// Uninstalls the release, if there is one, and removes the namespace and the CRD, which Helm leaves.
pub async fn uninstall(cluster: &Cluster) -> Result {
    may_be_taken_away(cluster).await?;
    let releases = helm(&["list", "--all", "--short", "--namespace", NAMESPACE]).await?;
    if releases.lines().any(|release| release == NAME) {
        helm_uninstall().await?;
    }
    remove_namespace(cluster, NAMESPACE).await?;
    let crds = cluster.all::<CustomResourceDefinition>();
    if crds.get_opt(CRD).await?.is_some() {
        crds.delete(CRD, &DeleteParams::default()).await?;
    }
    // Those that a test has put in the place of others, and did not come to take away.
    let of_tests = ListParams::default().labels(MADE_BY_A_TEST);
    crds.delete_collection(&DeleteParams::default(), &of_tests).await?;
    wait::until("the CRD is gone", seconds(30), async || {
        let left = crds.get_opt(CRD).await?;
        Ok(Seen::when(left.is_none(), (), || "it is still there".to_owned()))
    })
    .await
}

/// `helm uninstall`, and nothing else.
pub async fn helm_uninstall() -> Result {
    uninstall_from(NAMESPACE).await
}

/// The same of the release in another namespace.
pub async fn uninstall_from(namespace: &str) -> Result {
    helm(&["uninstall", NAME, "--namespace", namespace, "--wait", "--timeout", "120s"]).await.map(|_| ())
}

/// The MeshConfig of the tests: drains are short and new proxies are not looked at for long, so that the tests are short.
pub fn meshconfig() -> Value {
    json!({
        "apiVersion": "weft.mesh/v1alpha1",
        "kind": "MeshConfig",
        "metadata": { "name": NAME },
        "spec": { "proxy": {
            "drain": { "acceptWindowSeconds": 5, "deadlineSeconds": 20 },
            "rollout": { "observeSeconds": 1 },
        } },
    })
}

/// Runs `body` while the MeshConfig of the tests has these fields in its spec as well.
pub async fn while_configured(cluster: &Cluster, spec: Value, body: impl AsyncFnOnce() -> Result) -> Result {
    let mut changed = meshconfig();
    merge(&mut changed["spec"], spec);
    let changed = async {
        apply_meshconfig(cluster, &changed).await?;
        ready(cluster, seconds(90)).await?;
        body().await
    };
    afterwards(changed, async {
        apply_meshconfig(cluster, &meshconfig()).await?;
        ready(cluster, seconds(90)).await
    })
    .await
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// `MeshConfigs` in the mesh's namespace.
pub fn meshconfigs(cluster: &Cluster) -> Api<DynamicObject> {
    meshconfigs_of(cluster, NAMESPACE)
}

/// `MeshConfigs` in another namespace.
pub fn meshconfigs_of(cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("weft.mesh", "v1alpha1", "MeshConfig"));
    Api::namespaced_with(cluster.client.clone(), namespace, &kind)
}

/// Applies a MeshConfig as a user would.
pub async fn apply_meshconfig(cluster: &Cluster, object: &Value) -> Result {
    let name = object["metadata"]["name"].as_str().ok_or("a MeshConfig without a name")?;
    meshconfigs(cluster).patch(name, &PatchParams::apply("weft-tests"), &Patch::Apply(object)).await?;
    Ok(())
}

/// Deletes the MeshConfig and waits until it is gone.
pub async fn delete_meshconfig(cluster: &Cluster) -> Result {
    let api = meshconfigs(cluster);
    api.delete(NAME, &DeleteParams::default()).await?;
    wait::until("the MeshConfig is gone", seconds(60), async || {
        let left = api.get_opt(NAME).await?;
        Ok(Seen::when(left.is_none(), (), || json!(left).to_string()))
    })
    .await
}

/// Waits until the MeshConfig is Ready for its current generation, and every node has its new proxy.
pub async fn ready(cluster: &Cluster, deadline: Duration) -> Result {
    let api = meshconfigs(cluster);
    wait::until("the MeshConfig is Ready", deadline, async || {
        let object = api.get(NAME).await?;
        let status = &object.data["status"];
        let current = status["observedGeneration"].as_i64() == object.metadata.generation;
        let ready = condition(status, "Ready") == Some("True");
        // Ready all the while, since every node is served.
        let rolling = reason(status, "RolloutPaused") == Some("Rolling");
        Ok(Seen::when(current && ready && !rolling, (), || format!("{status:#}")))
    })
    .await
}

/// A condition's status.
pub fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a str> {
    field(status, kind, "status")
}

/// A condition's reason.
pub fn reason<'a>(status: &'a Value, kind: &str) -> Option<&'a str> {
    field(status, kind, "reason")
}

/// What a condition says to people.
pub fn message<'a>(status: &'a Value, kind: &str) -> Option<&'a str> {
    field(status, kind, "message")
}

fn field<'a>(status: &'a Value, kind: &str, field: &str) -> Option<&'a str> {
    status["conditions"].as_array()?.iter().find(|one| one["type"] == kind)?[field].as_str()
}

/// Waits until the MeshConfig `name` of `namespace` has a condition `kind` for `reason`; what it says.
pub async fn says(
    cluster: &Cluster,
    (namespace, name): (&str, &str),
    kind: &str,
    reason: &str,
    deadline: Duration,
) -> Result<String> {
    let api = meshconfigs_of(cluster, namespace);
    wait::until(&format!("MeshConfig {namespace}/{name} says {kind} {reason}"), deadline, async || {
        let status = api.get(name).await?.data["status"].clone();
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|one| one["type"] == kind && one["reason"] == reason);
        let message = found.and_then(|one| one["message"].as_str()).map(str::to_owned);
        Ok(Seen::when(message.is_some(), message.unwrap_or_default(), || format!("{status:#}")))
    })
    .await
}

/// The MeshConfig's status.
pub async fn status(cluster: &Cluster) -> Result<Value> {
    Ok(meshconfigs(cluster).get(NAME).await?.data["status"].clone())
}

/// Pods of the proxies, those on their way out included.
pub async fn proxies(cluster: &Cluster) -> Result<Vec<Pod>> {
    Ok(cluster.api::<Pod>(NAMESPACE).list(&ListParams::default().labels(PROXIES)).await?.items)
}

/// The proxy of `node` that is Ready and stays.
pub async fn proxy_on(cluster: &Cluster, node: &str) -> Result<Pod> {
    let stays = |pod: &Pod| {
        pod.metadata.deletion_timestamp.is_none()
            && is_ready(pod)
            && pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node))
    };
    let found = proxies(cluster).await?.into_iter().find(stays);
    found.ok_or_else(|| format!("{node} has no ready proxy").into())
}

/// Waits until every node has one Ready proxy, none of the pods named `not` and none on its way out.
pub async fn proxies_settled(cluster: &Cluster, not: &[String], deadline: Duration) -> Result {
    wait::until("every node has one Ready proxy", deadline, async || {
        let pods = proxies(cluster).await?;
        let state: Vec<_> = pods
            .iter()
            .map(|pod| {
                let leaving = if pod.metadata.deletion_timestamp.is_some() { ", leaving" } else { "" };
                format!("{} ready: {}{leaving}", pod.name_any(), is_ready(pod))
            })
            .collect();
        let settled = pods.len() == cluster.nodes.len()
            && pods.iter().all(|pod| {
                is_ready(pod) && pod.metadata.deletion_timestamp.is_none() && !not.contains(&pod.name_any())
            });
        Ok(Seen::when(settled, (), || state.join("; ")))
    })
    .await
}

/// Pods of the operator.
pub async fn operators(cluster: &Cluster) -> Result<Vec<Pod>> {
    Ok(cluster.api::<Pod>(NAMESPACE).list(&ListParams::default().labels(OPERATORS)).await?.items)
}

/// Who holds the operator's Lease.
pub async fn leader(cluster: &Cluster) -> Result<String> {
    let lease = cluster.api::<Lease>(NAMESPACE).get("weft-operator").await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    if holder.is_empty() { Err("nobody holds the Lease".into()) } else { Ok(holder) }
}

/// The shadow Service of `namespace/name`, if there is one.
pub async fn shadow_of(cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<Service>> {
    let labels = format!("weft.mesh/service-namespace={namespace},weft.mesh/service-name={name}");
    let list = cluster.api::<Service>(NAMESPACE).list(&ListParams::default().labels(&labels)).await?;
    Ok(list.items.into_iter().next())
}

/// Every shadow Service's ports: `shadow:port` to listen port.
pub async fn ports(cluster: &Cluster) -> Result<BTreeMap<String, i32>> {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    let params = ListParams::default().labels("weft.mesh/shadow=true");
    let mut ports = BTreeMap::new();
    for shadow in cluster.api::<Service>(NAMESPACE).list(&params).await? {
        let name = shadow.name_any();
        for port in shadow.spec.and_then(|spec| spec.ports).unwrap_or_default() {
            if let Some(IntOrString::Int(listen)) = port.target_port {
                ports.insert(format!("{name}:{}", port.port), listen);
            }
        }
    }
    Ok(ports)
}

/// What has another listen port than it had `before`; Services of tests before this one may have gone meanwhile.
pub fn ports_that_changed(before: &BTreeMap<String, i32>, after: &BTreeMap<String, i32>) -> Vec<String> {
    let other = |(port, listen): &(&String, &i32)| after.get(*port).is_some_and(|now| now != *listen);
    before.iter().filter(other).map(|(port, listen)| format!("{port} had {listen}")).collect()
}

/// What a proxy says it holds.
pub async fn proxy_status(cluster: &Cluster, pod: &Pod) -> Result<weft_config::status::ProxyStatus> {
    use weft_config::contract::{ADMIN_PORT, STATUS_PATH};
    let path =
        format!("/api/v1/namespaces/{NAMESPACE}/pods/{}:{ADMIN_PORT}/proxy{STATUS_PATH}", pod.name_any());
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(cluster.client.request(request).await?)
}

/// A pod of ours for [`crate::exec`] and [`crate::workloads::pod_ready`].
pub fn pod_ref(pod: &Pod) -> PodRef {
    PodRef { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() }
}

/// Restarts a Deployment as `kubectl rollout restart` does.
pub async fn restart_operators(cluster: &Cluster) -> Result {
    cluster.api::<Deployment>(NAMESPACE).restart("weft-operator").await?;
    Ok(())
}

/// Restarts the DaemonSet as `kubectl rollout restart` does.
pub async fn restart_proxies(cluster: &Cluster) -> Result {
    cluster.api::<DaemonSet>(NAMESPACE).restart("weft-proxy").await?;
    Ok(())
}
