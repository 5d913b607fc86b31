//! What is ours comes back, whatever somebody does to it, at once and not at the next look; what is not ours is left alone.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weft_tests::cluster::{self, Cluster, dns};
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::traffic::{Load, Mode};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{self, Server};
use weft_tests::{Result, mesh};

/// Sooner than anything is looked at by the clock.
const SOON: Duration = seconds(8);
const METRICS: &str = "v1alpha1.metrics.smi-spec.io";

/// One object of ours, and the part of it that must come back.
struct Kept<K> {
    api: Api<K>,
    name: &'static str,
    part: &'static str,
}

impl<K> Kept<K>
where
    K: kube::Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    /// Its uid and the part; both are nothing while it is not there.
    async fn read(&self) -> Result<(Value, Value)> {
        let object = serde_json::to_value(self.api.get_opt(self.name).await?)?;
        let part = |pointer| object.pointer(pointer).cloned().unwrap_or_default();
        Ok((part("/metadata/uid"), part(self.part)))
    }

    /// Does `harm` and waits until it is undone; what was `deleted` lingers for a moment and must come back as another object.
    async fn comes_back(
        &self,
        what: &str,
        deleted: bool,
        harm: impl AsyncFnOnce(&Api<K>) -> Result,
    ) -> Result {
        let before = self.read().await?;
        assert!(!before.1.is_null(), "{what}: there is nothing at {}", self.part);
        harm(&self.api).await?;
        let began = std::time::Instant::now();
        wait::until(&format!("{what}: it is as before"), SOON, async || {
            let now = self.read().await?;
            let is_back = now.1 == before.1 && (now.0 != before.0) == deleted;
            Ok(Seen::when(is_back, (), || format!("{now:?}")))
        })
        .await?;
        eprintln!("  {what}: back after {} ms", began.elapsed().as_millis());
        Ok(())
    }

    async fn comes_back_when_deleted(&self, what: &str) -> Result {
        // Its pods stay, where it has any.
        self.comes_back(what, true, async |api| {
            api.delete(self.name, &DeleteParams::orphan()).await?;
            Ok(())
        })
        .await
    }

    async fn comes_back_when_edited(&self, what: &str, patch: Value) -> Result {
        self.comes_back(what, false, async |api| {
            api.patch(self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            Ok(())
        })
        .await
    }
}

#[test]
fn what_somebody_edits_or_deletes_comes_back_at_once() {
    cluster::test(|cluster| async move {
        let (server, service) = (Server::new("whoami", 2), UserService::http("whoami", "whoami"));
        let stage = Stage::new(&cluster, "e2e-drift", &[server], &[service]).await?;
        stage.reaches("whoami", "whoami").await?;
        let load = Load::start(&cluster, stage.client(), &stage.url("whoami", "/"), "whoami", 50, Mode::Both)
            .await?;

        let ca: Kept<Secret> = Kept { api: cluster.api(mesh::NAMESPACE), name: "weft-ca", part: "/data" };
        ca.comes_back_when_deleted("the CA's Secret, deleted").await?;
        ca.comes_back_when_edited("the CA's Secret, damaged", json!({ "data": { "ca.key": "bm8=" } }))
            .await?;
        let ca: Kept<ConfigMap> = Kept { api: cluster.api(mesh::NAMESPACE), name: "weft-ca", part: "/data" };
        ca.comes_back_when_deleted("the CA's ConfigMap, deleted").await?;
        ca.comes_back_when_edited("the CA's ConfigMap, edited", json!({ "data": { "ca.crt": "no" } }))
            .await?;

        let proxies: Kept<Service> =
            Kept { api: cluster.api(mesh::NAMESPACE), name: "weft-proxy", part: "/spec/selector" };
        proxies
            .comes_back_when_edited(
                "the proxies' Service, edited",
                json!({ "spec": { "selector": { "app.kubernetes.io/name": "no" } } }),
            )
            .await?;
        proxies.comes_back_when_deleted("the proxies' Service, deleted").await?;
        let set: Kept<DaemonSet> =
            Kept { api: cluster.api(mesh::NAMESPACE), name: "weft-proxy", part: "/metadata/labels" };
        set.comes_back_when_edited(
            "the DaemonSet, edited",
            json!({ "metadata": { "labels": { "app.kubernetes.io/part-of": "no" } } }),
        )
        .await?;
        set.comes_back_when_deleted("the DaemonSet, deleted").await?;

        let metrics: Kept<APIService> = Kept { api: cluster.all(), name: METRICS, part: "/spec/caBundle" };
        metrics
            .comes_back_when_edited("the APIService, edited", json!({ "spec": { "caBundle": "bm8=" } }))
            .await?;
        let lease: Kept<Lease> =
            Kept { api: cluster.api(mesh::NAMESPACE), name: "weft-operator", part: "/spec/holderIdentity" };
        lease.comes_back_when_deleted("the Lease, deleted").await?;

        shadow(&cluster, &stage.ns).await?;
        corefile(&cluster).await?;
        mesh::proxies_settled(&cluster, &[], seconds(60)).await?;
        mesh::ready(&cluster, seconds(60)).await?;
        load.stop_without_failures(100).await?;
        stage.strike().await
    });
}

async fn shadow(cluster: &Cluster, ns: &str) -> Result {
    // Another Service, so that what is called stays untouched.
    workloads::service(cluster, ns, "drifts", "whoami", &[("http", 80, json!("http"))]).await?;
    wait::until("the shadow is there", seconds(30), async || {
        let shadow = mesh::shadow_of(cluster, ns, "drifts").await?;
        Ok(Seen::when(shadow.is_some(), (), || "none".to_owned()))
    })
    .await?;
    let name = "drifts-weft-e2e-drift";
    let selector: Kept<Service> = Kept { api: cluster.api(mesh::NAMESPACE), name, part: "/spec/selector" };
    selector
        .comes_back_when_edited("a shadow, edited", json!({ "spec": { "selector": { "app": "no" } } }))
        .await?;
    let target: Kept<Service> =
        Kept { api: cluster.api(mesh::NAMESPACE), name, part: "/spec/ports/0/targetPort" };
    target.comes_back_when_deleted("a shadow, deleted").await?;
    let labels: Kept<Service> = Kept { api: cluster.api(mesh::NAMESPACE), name, part: "/metadata/labels" };
    labels
        .comes_back_when_edited(
            "a shadow without its label",
            json!({ "metadata": { "labels": { "weft.mesh/shadow": null } } }),
        )
        .await
}

async fn corefile(cluster: &Cluster) -> Result {
    let map: Kept<ConfigMap> =
        Kept { api: cluster.api("kube-system"), name: "coredns", part: "/data/Corefile" };
    let text = dns::corefile(cluster).await?;
    let with = |text: String| json!({ "data": { "Corefile": text } });
    let within =
        text.replace("rewrite stop name regex .* no-such-name", "rewrite stop name regex .* such-a-name");
    assert_ne!(within, text);
    map.comes_back_when_edited("our block, edited within", with(within)).await?;
    let begin = text.find("# BEGIN weft.mesh").ok_or("there is no block")?;
    map.comes_back_when_edited("our block, taken out", with(text[..begin].to_owned())).await
}

#[test]
fn what_is_not_ours_is_left_alone_whatever_it_looks_like() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let ns = workloads::namespace(&cluster, "e2e-foreign").await?;
        // In the mesh's own namespace, under the name that a shadow would have, and with a shadow's labels.
        let theirs = cluster.api::<Service>(mesh::NAMESPACE);
        let name = format!("cart-weft-{ns}");
        let object = json!({
            "metadata": { "name": name, "labels": { "weft.mesh/shadow": "true", "weft.mesh/service-namespace": ns,
                "weft.mesh/service-name": "cart", "app.kubernetes.io/managed-by": "weft-operator" } },
            "spec": { "selector": { "app": "theirs" }, "ports": [{ "port": 80 }] },
        });
        let made = theirs.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        let untouched = async || -> Result {
            let now = theirs.get(&name).await?;
            assert_eq!(now.metadata.resource_version, made.metadata.resource_version, "{now:?}");
            Ok(())
        };
        let told = async {
            workloads::service(&cluster, &ns, "cart", "none", &[("http", 80, json!(80))]).await?;
            let weft = (mesh::NAMESPACE, "weft");
            let message = mesh::says(&cluster, weft, "Degraded", "ShadowServices", seconds(20)).await?;
            assert!(message.contains(&format!("Service weft-system/{name} is there already")), "{message}");
            untouched().await?;
            workloads::remove_namespace(&cluster, &ns).await?;
            mesh::says(&cluster, weft, "Degraded", "AllWell", seconds(20)).await?;
            untouched().await
        };
        weft_tests::afterwards::afterwards(told, async {
            theirs.delete(&name, &DeleteParams::default()).await?;
            Ok(())
        })
        .await
    });
}
