//! A MeshConfig is served as v1alpha1 and as v1beta1, and is the same in both.

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};
use weft_tests::afterwards::afterwards;
use weft_tests::cluster::{self, Cluster};
use weft_tests::wait::seconds;
use weft_tests::{Result, mesh};

fn in_version(cluster: &Cluster, version: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("weft.mesh", version, "MeshConfig"));
    Api::namespaced_with(cluster.client.clone(), mesh::NAMESPACE, &kind)
}

/// The object but for what says its version.
async fn read(cluster: &Cluster, version: &str) -> Result<Value> {
    let object = in_version(cluster, version).get("weft").await?;
    assert_eq!(
        object.types.as_ref().map(|types| &*types.api_version),
        Some(&*format!("weft.mesh/{version}"))
    );
    let mut object = json!(object);
    object["apiVersion"] = Value::Null;
    object["metadata"]["managedFields"] = Value::Null;
    Ok(object)
}

#[test]
fn what_is_written_in_one_version_is_read_in_the_other_and_served() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        assert_eq!(read(&cluster, "v1alpha1").await?, read(&cluster, "v1beta1").await?);

        // Written in the newer version, and changed in it with a field nobody knows.
        let written = async {
            let mut object = mesh::meshconfig();
            object["apiVersion"] = json!("weft.mesh/v1beta1");
            object["spec"]["deniedStatus"] = json!(404);
            let (params, beta) = (PatchParams::apply("weft-tests").force(), in_version(&cluster, "v1beta1"));
            beta.patch("weft", &params, &Patch::Apply(&object)).await?;
            let unknown = Patch::Merge(json!({ "spec": { "proxy": { "aFieldNobodyKnows": true } } }));
            beta.patch("weft", &PatchParams::default(), &unknown).await?;
            mesh::ready(&cluster, seconds(60)).await?;
            let (alpha, beta) = (read(&cluster, "v1alpha1").await?, read(&cluster, "v1beta1").await?);
            assert_eq!(alpha, beta);
            assert_eq!(alpha["spec"]["deniedStatus"], 404);
            assert!(alpha["spec"]["proxy"]["aFieldNobodyKnows"].is_null());
            assert_eq!(
                alpha["status"]["observedGeneration"], alpha["metadata"]["generation"],
                "the operator saw it"
            );

            // And back, by way of the older one.
            let patch = Patch::Merge(json!({ "spec": { "deniedStatus": 403 } }));
            in_version(&cluster, "v1alpha1").patch("weft", &PatchParams::default(), &patch).await?;
            assert_eq!(read(&cluster, "v1beta1").await?["spec"]["deniedStatus"], 403);
            Ok(())
        };
        afterwards(written, async {
            mesh::apply_meshconfig(&cluster, &mesh::meshconfig()).await?;
            mesh::ready(&cluster, seconds(60)).await
        })
        .await
    });
}
