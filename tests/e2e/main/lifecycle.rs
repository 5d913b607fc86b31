//! Two whole lives of Weft beside a user who does not use it: installed, used, changed and removed, once by deleting the MeshConfig
//! and uninstalling, once by uninstalling alone; while he calls plain names and asks the cluster's DNS, a hundred times a second
//! each. They are lived once; each test looks at one thing that must not have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use kube::discovery::{Discovery, Scope, verbs};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use weft_tests::cluster::{self, Cluster, dns};
use weft_tests::exec::PodRef;
use weft_tests::node::Embedded;
use weft_tests::traffic::{DnsReport, Load, LoadReport, Mode, Queries, reaches};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{self, Server};
use weft_tests::{Result, mesh};

/// What was before and after.
struct Life {
    queries: DnsReport,
    /// Of one who calls plain names from before the first installation until after the last removal.
    bystander: Vec<LoadReport>,
    corefile: [String; 2],
    coredns: [BTreeMap<String, i32>; 2],
    users: [BTreeMap<String, Value>; 2],
    /// Whether the Corefile had our block meanwhile, without which all the rest proves nothing.
    told: bool,
    /// How many objects there were, and in what the cluster differs after all.
    objects: usize,
    different: Vec<String>,
}

static LIFE: OnceCell<Life> = OnceCell::const_new();
const NS: &str = "e2e-lifecycle";

async fn life(cluster: &Cluster) -> Result<&'static Life> {
    LIFE.get_or_try_init(|| live(cluster)).await
}

async fn live(cluster: &Cluster) -> Result<Life> {
    mesh::absent(cluster).await?;
    workloads::namespace(cluster, NS).await?;
    Server::new("whoami", 2).deploy(cluster, NS).await?;
    workloads::service(cluster, NS, "whoami", "whoami", &[("http", 80, json!("http"))]).await?;
    let clients = workloads::clients(cluster, NS).await?;
    let plain = format!("whoami.{NS}.svc.cluster.local");
    let names = ["kubernetes.default.svc.cluster.local", &plain, "nobody.default.svc.cluster.local=NXDOMAIN"];

    let corefile = dns::corefile(cluster).await?;
    let coredns = dns::pods(cluster).await?;
    let users = settled_users_objects(cluster).await?;
    let before = wait::until("nothing of an earlier mesh is left", seconds(60), async || {
        let all = inventory(cluster).await?;
        let ours = all.iter().filter(|(key, said)| is_like_ours(key, said));
        let left: Vec<_> = ours.map(|(key, _)| key.clone()).collect();
        Ok(Seen::when(left.is_empty(), all, || left.join(", ")))
    })
    .await?;
    let bystander = format!("http://{plain}/");
    reaches(cluster, &clients[0], &bystander, "whoami", seconds(30)).await?;
    let bystander = Load::start(cluster, &clients[0], &bystander, "whoami", 50, Mode::Both).await?;
    let queries = Queries::start(cluster, &clients[1], 100, &names).await?;

    let told = used(cluster, &clients[0], &corefile).await?;
    mesh::delete_meshconfig(cluster).await?;
    mesh::helm_uninstall().await?;
    let mut different = difference(cluster, &before).await;
    // The queries go on until CoreDNS must have noticed.
    dns::is_gone(cluster, &clients[0], &format!("whoami.{NS}.weft.mesh")).await?;
    // And once more with the MeshConfig still there: the hook of the uninstallation must take it out.
    let told = used(cluster, &clients[0], &corefile).await? && told;
    mesh::helm_uninstall().await?;
    different.extend(difference(cluster, &before).await);

    let queries = queries.stop().await?;
    let bystander = bystander.stop().await?;
    let life = Life {
        queries,
        bystander,
        corefile: [corefile, dns::corefile(cluster).await?],
        coredns: [coredns, dns::pods(cluster).await?],
        users: [users, users_objects(cluster).await?],
        told,
        objects: before.len(),
        different,
    };
    workloads::remove_namespace(cluster, NS).await?;
    Ok(life)
}

/// Weft is installed, used under load, and changed; whether the Corefile had our block.
async fn used(cluster: &Cluster, client: &PodRef, corefile: &str) -> Result<bool> {
    mesh::install(cluster).await?;
    mesh::apply_meshconfig(cluster, &mesh::meshconfig()).await?;
    mesh::ready(cluster, seconds(60)).await?;
    let told = dns::corefile(cluster).await? != corefile;
    let url = format!("http://whoami.{NS}.weft.mesh/");
    reaches(cluster, client, &url, "whoami", seconds(30)).await?;
    let load = Load::start(cluster, client, &url, "whoami", 100, Mode::KeepAlive).await?;
    let mut changed = mesh::meshconfig();
    changed["spec"]["domains"] = json!(["weft.mesh", "traefik.mesh"]);
    mesh::apply_meshconfig(cluster, &changed).await?;
    mesh::ready(cluster, seconds(90)).await?;
    load.stop_without_failures(100).await?;
    Ok(told)
}

/// The user's Service and pods, and of the Deployment and the namespace they are in.
async fn users_objects(cluster: &Cluster) -> Result<BTreeMap<String, Value>> {
    let mut objects = BTreeMap::new();
    let namespace = cluster.all::<Namespace>().get(NS).await?;
    objects.insert("namespace".to_owned(), json!(namespace));
    let service = cluster.api::<Service>(NS).get("whoami").await?;
    objects.insert("service".to_owned(), json!(service));
    let deployment = cluster.api::<Deployment>(NS).get("whoami").await?;
    objects.insert("deployment".to_owned(), json!(deployment));
    for pod in cluster.api::<Pod>(NS).list(&ListParams::default().labels("app=whoami")).await? {
        objects.insert(format!("pod {}", pod.name_any()), json!(pod));
    }
    Ok(objects)
}

/// The same once nothing has changed for a while: a kubelet writes the last of a new pod up to 8 s after it is Ready (seen).
async fn settled_users_objects(cluster: &Cluster) -> Result<BTreeMap<String, Value>> {
    let mut last = (Instant::now(), BTreeMap::new());
    wait::until("nothing changes the user's objects", seconds(60), async || {
        let now = users_objects(cluster).await?;
        if now != last.1 {
            last = (Instant::now(), now);
        }
        let quiet = last.0.elapsed() >= seconds(12);
        Ok(Seen::when(quiet, last.1.clone(), || {
            format!("changed {:.1} s ago", last.0.elapsed().as_secs_f64())
        }))
    })
    .await
}

/// Whether an object of the inventory is ours by name, label or place.
fn is_like_ours(key: &str, said: &Value) -> bool {
    key.contains("weft") || said["metadata"]["labels"]["app.kubernetes.io/part-of"] == "weft"
}

/// Everything in the cluster: what is said of each object, without what the API server and the object's own controller say. Not the
/// objects of tests, nor those that come and go by themselves; in a cluster in which others work as well only what is like ours.
async fn inventory(cluster: &Cluster) -> Result<BTreeMap<String, Value>> {
    let whole = Embedded::needed_for("that nothing at all differs").is_some();
    let discovery = Discovery::new(cluster.client.clone()).run().await?;
    let mut found = BTreeMap::new();
    for group in discovery.groups() {
        for (kind, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST) || kind.kind == "Event" {
                continue;
            }
            let api = kube::Api::<DynamicObject>::all_with(cluster.client.clone(), &kind);
            let namespaced = capabilities.scope == Scope::Namespaced;
            for object in api.list(&ListParams::default()).await? {
                let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
                let of_a_test = namespace.starts_with("e2e-") || (!namespaced && name.starts_with("e2e-"));
                let of_others = kind.kind == "Lease" && namespace != mesh::NAMESPACE;
                if of_a_test || of_others || stays(&kind.kind, &namespace, &name, namespaced) {
                    continue;
                }
                let mut said = json!(object);
                if let Some(said) = said.as_object_mut() {
                    said.remove("status");
                    let metadata = said.get_mut("metadata").and_then(Value::as_object_mut);
                    let metadata = metadata.ok_or("an object without metadata")?;
                    for of_the_server in ["resourceVersion", "managedFields", "generation"] {
                        metadata.remove(of_the_server);
                    }
                }
                let key = format!("{} {namespace}/{name}", kind.kind);
                if whole || is_like_ours(&key, &said) {
                    found.insert(key, said);
                }
            }
        }
    }
    Ok(found)
}

/// The CRDs are meant to stay, those of SMI among them, with what the API server makes of them; the namespace and what Kubernetes puts
/// into it are the user's.
fn stays(kind: &str, namespace: &str, name: &str, namespaced: bool) -> bool {
    let of_smi = name.ends_with(".smi-spec.io") && !name.ends_with("metrics.smi-spec.io");
    let ours = !namespaced || namespace == mesh::NAMESPACE;
    matches!(kind, "CustomResourceDefinition" | "APIService") && of_smi
        || ours
            && matches!(
                (kind, name, namespaced),
                ("CustomResourceDefinition", "meshconfigs.weft.mesh", false)
                    | ("APIService", "v1alpha1.weft.mesh" | "v1beta1.weft.mesh", false)
                    | ("Namespace", mesh::NAMESPACE, false)
                    | ("ServiceAccount", "default", true)
                    | ("ConfigMap", "kube-root-ca.crt", true)
            )
}

/// What is there now and was not, is gone, or says something else. What depends on what was deleted goes a moment later: the garbage
/// collector is waited for.
async fn difference(cluster: &Cluster, before: &BTreeMap<String, Value>) -> Vec<String> {
    let mut different = Vec::new();
    let gone = wait::until("the cluster is as it was", seconds(45), async || {
        let after = inventory(cluster).await?;
        let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let differs = |key: &&&String| before.get(**key) != after.get(**key);
        let [was, is] =
            [before, &after].map(|all| move |key: &str| all.get(key).cloned().unwrap_or_default());
        different = keys
            .iter()
            .filter(differs)
            .map(|key| format!("{key}: {}", differences(&was(key), &is(key))))
            .collect();
        Ok(Seen::when(different.is_empty(), (), || different.join("; ")))
    })
    .await;
    match gone {
        Ok(()) => Vec::new(),
        Err(error) if different.is_empty() => vec![error.to_string()],
        Err(_) => different,
    }
}

#[test]
fn installing_and_removing_fail_no_dns_query() {
    cluster::test(|cluster| async move {
        let queries = &life(&cluster).await?.queries;
        eprintln!("  {} queries, {} failed", queries.sent, queries.failed);
        assert!(queries.sent > 1000, "{queries:?}");
        assert_eq!(queries.failed, 0, "{queries:?}");
        Ok(())
    });
}

#[test]
fn installing_and_removing_fail_no_request_to_a_plain_name() {
    cluster::test(|cluster| async move {
        for report in &life(&cluster).await?.bystander {
            eprintln!("  {}: {} requests, {} failed", report.mode, report.sent, report.failed);
            assert!(report.sent > 500 && report.failed == 0, "{report:?}");
            assert!(report.dns_failures.is_empty(), "{report:?}");
        }
        Ok(())
    });
}

#[test]
fn coredns_is_not_restarted() {
    cluster::test(|cluster| async move {
        let [before, after] = &life(&cluster).await?.coredns;
        assert!(!before.is_empty());
        assert_eq!(before, after);
        Ok(())
    });
}

#[test]
fn the_corefile_is_byte_for_byte_as_before() {
    cluster::test(|cluster| async move {
        let life = life(&cluster).await?;
        let [before, after] = &life.corefile;
        assert!(life.told, "the Corefile was never changed");
        assert_eq!(before, after);
        Ok(())
    });
}

#[test]
fn the_users_objects_are_as_they_were() {
    cluster::test(|cluster| async move {
        let [before, after] = &life(&cluster).await?.users;
        assert!(before.len() >= 5, "{before:?}");
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (name, object) in before {
            for field in ["resourceVersion", "managedFields"] {
                let [was, is] = [object, &after[name]].map(|object| &object["metadata"][field]);
                assert_eq!(
                    was,
                    is,
                    "{field} of {name}, which differs in{}",
                    differences(object, &after[name])
                );
            }
        }
        Ok(())
    });
}

/// The lines in which two objects differ.
fn differences(before: &Value, after: &Value) -> String {
    let [before, after] = [before, after].map(|object| format!("{object:#}"));
    let lines = |text: &str, other: &str, sign: &str| -> String {
        text.lines()
            .filter(|line| !other.lines().any(|its| its == *line))
            .map(|line| format!("\n{sign} {line}"))
            .collect()
    };
    lines(&before, &after, "-") + &lines(&after, &before, "+")
}

#[test]
fn the_cluster_differs_in_nothing_but_the_crds() {
    cluster::test(|cluster| async move {
        let life = life(&cluster).await?;
        if Embedded::needed_for("that nothing at all differs").is_some() {
            assert!(life.objects > 100, "only {} objects were looked at", life.objects);
        }
        assert!(life.different.is_empty(), "{:#?}", life.different);
        Ok(())
    });
}
