//! The kinds' definitions come and go while the operator runs: it does without those that are missing, takes those of another
//! tool in whatever version they are served, and goes on with ours.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use weft_tests::afterwards::afterwards;
use weft_tests::cluster::{self, Cluster};
use weft_tests::smi::{self, split};
use weft_tests::stage::Stage;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::{Result, mesh};

use crate::scene::{self, settles};

const NAME: &str = "trafficsplits.split.smi-spec.io";

async fn undefine(cluster: &Cluster) -> Result {
    let crds = cluster.all::<CustomResourceDefinition>();
    if crds.get_opt(NAME).await?.is_some() {
        crds.delete(NAME, &DeleteParams::default()).await?;
    }
    wait::until("the definition is gone", seconds(30), async || {
        let left = crds.get_opt(NAME).await?;
        Ok(Seen::when(left.is_none(), (), || "it is still there".to_owned()))
    })
    .await
}

async fn define(cluster: &Cluster, definition: &CustomResourceDefinition) -> Result {
    let crds = cluster.all::<CustomResourceDefinition>();
    crds.create(&PostParams::default(), definition).await?;
    wait::until("the definition is served", seconds(30), async || {
        let status = crds.get(NAME).await?.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let served = conditions.iter().any(|one| one.type_ == "Established" && one.status == "True");
        Ok(Seen::when(served, (), || format!("{conditions:?}")))
    })
    .await
}

/// Applies an object as soon as its kind can be written: the API server is a moment behind its own word.
async fn applied(stage: &Stage, object: &Value) -> Result {
    wait::until("the object can be written", seconds(20), async || {
        stage.apply([object]).await?;
        Ok(Seen::Done(()))
    })
    .await
}

/// As another tool brought it along: two versions are known, and the older one alone is served.
fn of_another_tool() -> Result<CustomResourceDefinition> {
    let schema =
        json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    Ok(serde_json::from_value(json!({
        "metadata": { "name": NAME, "labels": { mesh::MADE_BY_A_TEST: "true" } },
        "spec": {
            "group": "split.smi-spec.io",
            "scope": "Namespaced",
            "names": { "kind": "TrafficSplit", "listKind": "TrafficSplitList", "plural": "trafficsplits",
                "singular": "trafficsplit", "shortNames": ["ts"] },
            "versions": [
                { "name": "v1alpha1", "served": false, "storage": true, "schema": schema },
                { "name": "v1alpha2", "served": true, "storage": false, "schema": schema },
                { "name": "v1alpha4", "served": false, "storage": false, "schema": schema },
            ],
        },
    }))?)
}

/// The operators' pods, and how often each was started again.
async fn operators(cluster: &Cluster) -> Result<Vec<(String, i32)>> {
    let pods = mesh::operators(cluster).await?;
    let restarts = |pod: &k8s_openapi::api::core::v1::Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        statuses.map_or(0, |all| all.iter().map(|one| one.restart_count).sum())
    };
    let mut all: Vec<_> = pods.iter().map(|pod| (pod.name_any(), restarts(pod))).collect();
    all.sort();
    Ok(all)
}

fn in_version(version: &str, mut object: Value) -> Value {
    object["apiVersion"] = json!(format!("split.smi-spec.io/{version}"));
    object
}

#[test]
fn a_kind_that_comes_late_and_in_an_older_version_is_taken_without_a_restart() {
    cluster::test(|cluster| async move {
        let stage = scene::split(&cluster, "e2e-smi-definitions").await?;
        let before = operators(&cluster).await?;
        let mut ours = cluster.all::<CustomResourceDefinition>().get(NAME).await?;
        // What the API server adds is not for creating it anew; Helm's labels and annotations stay.
        ours.metadata.resource_version = None;
        ours.metadata.uid = None;
        ours.metadata.creation_timestamp = None;
        ours.metadata.generation = None;
        ours.metadata.managed_fields = None;
        ours.status = None;
        stage.apply(&[split("all", "web", &[("v1", 1)])]).await?;
        settles(&stage, "web", &[], &["v1"]).await?;
        let without = async {
            // With its definition every split is gone.
            undefine(&cluster).await?;
            settles(&stage, "web", &[], &["web"]).await?;
            mesh::ready(&cluster, seconds(30)).await?;
            // Those of another tool come, and are used as they are.
            define(&cluster, &of_another_tool()?).await?;
            let older = in_version("v1alpha2", split("all", "web", &[("v2", 1)]));
            applied(&stage, &older).await?;
            settles(&stage, "web", &[], &["v2"]).await?;
            smi::verdict(&cluster, &stage.ns, &older, smi::ACCEPTED).await?;
            smi::told(&cluster, &stage.ns, &older, smi::ACCEPTED, "").await?;
            let newer = in_version("v1alpha4", split("newer", "web", &[("v1", 1)]));
            assert!(stage.apply(&[newer]).await.is_err(), "it is not served");
            Ok(())
        };
        afterwards(without, async {
            undefine(&cluster).await?;
            define(&cluster, &ours).await
        })
        .await?;
        settles(&stage, "web", &[], &["web"]).await?;
        applied(&stage, &split("all", "web", &[("v1", 1)])).await?;
        settles(&stage, "web", &[], &["v1"]).await?;
        assert_eq!(operators(&cluster).await?, before, "an operator was started again");
        stage.strike().await
    });
}
