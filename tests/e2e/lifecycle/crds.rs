//! `helm install` and `helm upgrade` bring the CRD to the version of the chart, whoever installed the one that is there, and
//! never take it away.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use weft_tests::cluster::{self, Cluster};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{image_registry, image_tag, remove_namespace};
use weft_tests::{Result, mesh};

const CRD: &str = "meshconfigs.weft.mesh";
const ELSEWHERE: &str = "weft-elsewhere";

async fn definition(cluster: &Cluster) -> Result<Value> {
    Ok(json!(cluster.all::<CustomResourceDefinition>().get(CRD).await?))
}

fn versions(definition: &Value) -> Vec<String> {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    versions.filter_map(|version| version["name"].as_str().map(str::to_owned)).collect()
}

/// As the first chart had it: one version, without the newest field and without our mark.
async fn put_the_first(cluster: &Cluster) -> Result {
    let path = format!("{}/crds/{CRD}.yaml", mesh::CHART);
    let mut first: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(path)?)?;
    first["metadata"]["annotations"] = Value::Null;
    first["spec"]["versions"].as_array_mut().ok_or("no versions")?.truncate(1);
    let spec = &mut first["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    for place in ["/properties/proxy/properties", "/default/proxy"] {
        let fields = spec.pointer_mut(place).and_then(Value::as_object_mut).ok_or(place)?;
        fields.remove("rollout").ok_or(place)?;
    }
    let api = cluster.all::<CustomResourceDefinition>();
    if let Some(there) = api.get_opt(CRD).await? {
        // An older chart is put in the place of a newer one: what Helm never does.
        first["metadata"]["resourceVersion"] = json!(there.metadata.resource_version);
        api.replace(CRD, &PostParams::default(), &serde_json::from_value(first)?).await?;
    } else {
        api.create(&PostParams::default(), &serde_json::from_value(first)?).await?;
    }
    wait::until("the first CRD is in force", seconds(30), async || {
        let definition = definition(cluster).await?;
        let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
        let established =
            conditions.filter(|one| one["type"] == "Established" && one["status"] == "True").count();
        let one = versions(&definition) == ["v1alpha1"];
        Ok(Seen::when(established == 1 && one, (), || definition["status"].to_string()))
    })
    .await
}

async fn is_of_this_chart(cluster: &Cluster) -> Result {
    let definition = definition(cluster).await?;
    assert_eq!(versions(&definition), ["v1alpha1", "v1beta1"]);
    let proxy = "/spec/versions/1/schema/openAPIV3Schema/properties/spec/properties/proxy/properties/rollout";
    assert!(definition.pointer(proxy).is_some(), "the new field is not there");
    assert_eq!(definition["status"]["storedVersions"], json!(["v1alpha1"]));
    Ok(())
}

#[test]
fn helm_alone_installs_upgrades_and_leaves_the_crd() {
    cluster::test(|cluster| async move {
        mesh::absent(&cluster).await?;
        // Left by an older release, which Helm would not touch again.
        put_the_first(&cluster).await?;
        mesh::install(&cluster).await?;
        is_of_this_chart(&cluster).await?;
        let uid = definition(&cluster).await?["metadata"]["uid"].clone();

        mesh::apply_meshconfig(&cluster, &mesh::meshconfig()).await?;
        mesh::ready(&cluster, seconds(60)).await?;
        put_the_first(&cluster).await?;
        mesh::release("upgrade", mesh::CHART, &image_tag()).await?;
        is_of_this_chart(&cluster).await?;
        mesh::ready(&cluster, seconds(60)).await?;

        // That of a newer version is left alone.
        let mark = |version: &str| {
            Patch::Merge(json!({ "metadata": { "annotations": { "weft.mesh/version": version } } }))
        };
        let api = cluster.all::<CustomResourceDefinition>();
        api.patch(CRD, &PatchParams::default(), &mark("99.0.0")).await?;
        let before = definition(&cluster).await?["metadata"]["resourceVersion"].clone();
        mesh::release("upgrade", mesh::CHART, &image_tag()).await?;
        assert_eq!(definition(&cluster).await?["metadata"]["resourceVersion"], before);
        api.patch(CRD, &PatchParams::default(), &mark("0.0.1")).await?;

        mesh::helm_uninstall().await?;
        assert_eq!(definition(&cluster).await?["metadata"]["uid"], uid, "one and the same all the while");
        // Whoever installed it first: a release in another namespace takes it as it is.
        remove_namespace(&cluster, ELSEWHERE).await?;
        let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": ELSEWHERE } }))?;
        cluster.all::<Namespace>().create(&PostParams::default(), &object).await?;
        let images = (format!("image.registry={}", image_registry()), format!("image.tag={}", image_tag()));
        let place = ["--namespace", ELSEWHERE, "--timeout", "90s"];
        let sets = ["--set", &images.0, "--set", &images.1, "--set", "dns.manage=false"];
        mesh::helm(&[&["install", "other", mesh::CHART][..], &place, &sets].concat()).await?;
        is_of_this_chart(&cluster).await?;
        mesh::helm(&[&["uninstall", "other", "--wait"][..], &place].concat()).await?;
        assert_eq!(definition(&cluster).await?["metadata"]["uid"], uid);
        remove_namespace(&cluster, ELSEWHERE).await?;
        // The next test installs anew.
        mesh::absent(&cluster).await
    });
}
