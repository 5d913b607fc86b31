//! A MeshConfig is served as v1alpha1 and as v1beta1, and is the same in both.

use fastrand::Rng;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use weft_tests::afterwards::afterwards;
use weft_tests::cluster::{self, Cluster};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::{Result, mesh, number_of, workloads};

/// Objects that go through both versions: `OBJECTS` of them.
const OBJECTS: u64 = 60;
const VERSIONS: [&str; 2] = ["v1alpha1", "v1beta1"];

fn in_version(cluster: &Cluster, namespace: &str, version: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("weft.mesh", version, "MeshConfig"));
    Api::namespaced_with(cluster.client.clone(), namespace, &kind)
}

/// The object but for what says its version.
async fn read(cluster: &Cluster, version: &str) -> Result<Value> {
    let object = in_version(cluster, mesh::NAMESPACE, version).get("weft").await?;
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
            let (params, beta) =
                (PatchParams::apply("weft-tests").force(), in_version(&cluster, mesh::NAMESPACE, "v1beta1"));
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
            in_version(&cluster, mesh::NAMESPACE, "v1alpha1")
                .patch("weft", &PatchParams::default(), &patch)
                .await?;
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

/// Some fields of a spec, each with a value that is allowed.
fn some_spec(rng: &mut Rng) -> Value {
    let choices: [(&str, Vec<Value>); 22] = [
        ("accessControl", vec![json!("Disabled"), json!("Enforced")]),
        ("clusterDomain", vec![json!("cluster.local"), json!("k8s.corp.example")]),
        ("defaultTrafficType", vec![json!("http"), json!("tcp"), json!("udp")]),
        ("defaults/circuitBreaker", vec![json!({ "expression": "NetworkErrorRatio() > 0.5" })]),
        (
            "defaults/rateLimit",
            vec![json!({ "average": 1, "burst": 1_000_000 }), json!({ "average": 50, "burst": 7 })],
        ),
        ("defaults/retry", vec![json!({ "attempts": 1 }), json!({ "attempts": 10 })]),
        (
            "defaults/timeouts",
            vec![json!({}), json!({ "connect": "250ms", "request": "5m" }), json!({ "idle": "1h" })],
        ),
        ("deniedStatus", vec![json!(403), json!(404)]),
        ("dns/provider", ["Auto", "CoreDNS", "KubeDNS", "None"].map(Value::from).to_vec()),
        ("dns/service", vec![json!("kube-dns"), json!("coredns")]),
        ("domains", vec![json!(["weft.mesh"]), json!(["a.mesh", "traefik.mesh"]), json!(["x.y.z"])]),
        ("namespaces/watch", vec![json!([]), json!(["shop", "pay"])]),
        ("namespaces/ignore", vec![json!(["old"])]),
        ("proxy/accessLog", vec![json!("none"), json!("json")]),
        (
            "proxy/drain",
            vec![json!({ "acceptWindowSeconds": 1 }), json!({ "deadlineSeconds": 7, "offeredSeconds": 0 })],
        ),
        ("proxy/image", vec![json!("registry.example:5000/weft-proxy@sha256:0123")]),
        ("proxy/listenPorts", vec![json!({ "from": 20_000 }), json!({ "from": 10_000, "to": 10_500 })]),
        ("proxy/logLevel", ["error", "info", "trace"].map(Value::from).to_vec()),
        ("proxy/nodeSelector", vec![json!({}), json!({ "mesh": "yes", "example.com/a": "" })]),
        (
            "proxy/resources",
            vec![json!({ "limits": { "memory": "1Gi" } }), json!({ "requests": { "cpu": "1.5e3" } })],
        ),
        (
            "proxy/tolerations",
            vec![json!([]), json!([{ "key": "a", "operator": "Exists", "effect": "NoSchedule" }])],
        ),
        ("proxy/rollout", vec![json!({ "observeSeconds": 0 }), json!({ "patienceSeconds": 90 })]),
    ];
    let mut spec = json!({});
    for (path, values) in choices {
        if rng.bool() {
            let field = path.split('/').fold(&mut spec, |at, name| &mut at[name]);
            *field = values[rng.usize(..values.len())].clone();
        }
    }
    spec
}

/// By the API server itself, with its defaults, its pruning and its storage: written in one version, read in both, and what was read
/// in either written again in the other.
#[test]
fn whatever_is_written_in_either_version_comes_back_from_both() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let ns = workloads::namespace(&cluster, "e2e-versions").await?;
        let apis = VERSIONS.map(|version| in_version(&cluster, &ns, version));
        let mut rng = Rng::with_seed(number_of("SEED", 1)?);
        for number in 0..number_of("OBJECTS", OBJECTS)? {
            let (name, spec) = (format!("m{number}"), some_spec(&mut rng));
            let from = rng.usize(..VERSIONS.len());
            let object = json!({ "apiVersion": format!("weft.mesh/{}", VERSIONS[from]), "kind": "MeshConfig",
                "metadata": { "name": name }, "spec": spec });
            let written = apis[from]
                .create(&PostParams::default(), &serde_json::from_value(object)?)
                .await
                .map_err(|error| format!("{spec}: {error}"))?
                .data["spec"]
                .clone();
            for (path, value) in leaves(&spec, "") {
                assert_eq!(written.pointer(&path), Some(&value), "{path} of {spec}");
            }
            for (there, back) in [(0, 1), (1, 0)] {
                // As `kubectl get -o yaml` of one version, edited to name the other, and `kubectl replace`; the operator may write a
                // status in between.
                let (read, again) = wait::until("it is replaced", seconds(20), async || {
                    let mut read = apis[there].get(&name).await?;
                    if let Some(types) = &mut read.types {
                        types.api_version = format!("weft.mesh/{}", VERSIONS[back]);
                    }
                    Ok(Seen::Done((
                        read.clone(),
                        apis[back].replace(&name, &PostParams::default(), &read).await?,
                    )))
                })
                .await?;
                let at = format!("written in {}, read in {}", VERSIONS[from], VERSIONS[there]);
                assert_eq!(read.data["spec"], written, "{at}");
                assert_eq!(again.data["spec"], written, "{at}");
                assert_eq!(again.metadata.generation, read.metadata.generation, "{at}");
            }
        }
        workloads::remove_namespace(&cluster, &ns).await
    });
}

/// Every value that is no object, and where it is.
fn leaves(value: &Value, at: &str) -> Vec<(String, Value)> {
    match value.as_object().filter(|object| !object.is_empty()) {
        Some(object) => object
            .iter()
            .flat_map(|(key, value)| leaves(value, &format!("{at}/{}", key.replace('/', "~1"))))
            .collect(),
        None => vec![(at.to_owned(), value.clone())],
    }
}
