//! One whole life of Weft beside a user who does not use it: installed, used, removed, while the cluster's DNS is asked a
//! hundred times a second. It is lived once; each test looks at one thing that must not have changed.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use kube::discovery::{Discovery, Scope, verbs};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use weft_tests::cluster::{self, Cluster, dns};
use weft_tests::traffic::{DnsReport, Load, Mode, Queries, reaches};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{self, Server};
use weft_tests::{Result, mesh};

/// What was before and after.
struct Life {
    queries: DnsReport,
    corefile: [String; 2],
    coredns: [BTreeMap<String, i32>; 2],
    users: [BTreeMap<String, Value>; 2],
    /// Whether the Corefile had our block meanwhile, without which all the rest proves nothing.
    told: bool,
    left: Vec<String>,
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
    let queries = Queries::start(cluster, &clients[1], 100, &names).await?;

    mesh::install(cluster).await?;
    mesh::apply_meshconfig(cluster, &mesh::meshconfig()).await?;
    mesh::ready(cluster, seconds(60)).await?;
    let told = dns::corefile(cluster).await? != corefile;
    let url = format!("http://whoami.{NS}.weft.mesh/");
    reaches(cluster, &clients[0], &url, "whoami", seconds(30)).await?;
    let load = Load::start(cluster, &clients[0], &url, "whoami", 100, Mode::KeepAlive).await?;
    load.stop_without_failures(100).await?;
    mesh::delete_meshconfig(cluster).await?;
    // CoreDNS notices on its own time; the queries go on until it must have.
    wait::until("the mesh's names are gone from DNS", seconds(60), async || {
        let asked =
            Queries::start(cluster, &clients[0], 20, &[&format!("whoami.{NS}.weft.mesh=NXDOMAIN")]).await?;
        let report = asked.stop().await?;
        Ok(Seen::when(report.sent > 0 && report.failed == 0, (), || format!("{report:?}")))
    })
    .await?;
    // And once more with the MeshConfig still there: the hook of the uninstallation must take it out.
    mesh::apply_meshconfig(cluster, &mesh::meshconfig()).await?;
    mesh::ready(cluster, seconds(60)).await?;
    mesh::helm_uninstall().await?;

    let left = wait_until_nothing_is_left(cluster).await;
    let queries = queries.stop().await?;
    let life = Life {
        queries,
        corefile: [corefile, dns::corefile(cluster).await?],
        coredns: [coredns, dns::pods(cluster).await?],
        users: [users, users_objects(cluster).await?],
        told,
        left,
    };
    workloads::remove_namespace(cluster, NS).await?;
    Ok(life)
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

/// Everything in the cluster that is ours by name, label or place, but for what is meant to stay.
async fn ours(cluster: &Cluster) -> Result<Vec<String>> {
    let discovery = Discovery::new(cluster.client.clone()).run().await?;
    let mut found = Vec::new();
    for group in discovery.groups() {
        for (kind, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST) || kind.kind == "Event" {
                continue;
            }
            let api = kube::Api::<DynamicObject>::all_with(cluster.client.clone(), &kind);
            let namespaced = capabilities.scope == Scope::Namespaced;
            for object in api.list(&ListParams::default()).await? {
                let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
                let labelled =
                    object.labels().get("app.kubernetes.io/part-of").is_some_and(|of| of == "weft");
                // What a test that failed left behind is not Weft's.
                let of_a_test = namespace.starts_with("e2e-");
                let is_ours =
                    !of_a_test && (labelled || name.contains("weft") || namespace == mesh::NAMESPACE);
                if is_ours && !stays(&kind.kind, &name, namespaced) {
                    found.push(format!("{} {namespace}/{name}", kind.kind));
                }
            }
        }
    }
    Ok(found)
}

/// The CRDs are meant to stay, those of SMI among them; the namespace and what Kubernetes puts into each are the user's.
fn stays(kind: &str, name: &str, namespaced: bool) -> bool {
    kind == "CustomResourceDefinition" && name.ends_with(".smi-spec.io")
        || matches!(
            (kind, name, namespaced),
            ("CustomResourceDefinition", "meshconfigs.weft.mesh", false)
                | ("APIService", "v1alpha1.weft.mesh" | "v1beta1.weft.mesh", false)
                | ("Namespace", mesh::NAMESPACE, false)
                | ("ServiceAccount", "default", true)
                | ("ConfigMap", "kube-root-ca.crt", true)
        )
}

/// What depends on what was deleted goes a moment later: the garbage collector is waited for.
async fn wait_until_nothing_is_left(cluster: &Cluster) -> Vec<String> {
    let mut left = Vec::new();
    let gone = wait::until("nothing of ours is left", seconds(45), async || {
        left = ours(cluster).await?;
        Ok(Seen::when(left.is_empty(), (), || left.join(", ")))
    })
    .await;
    match gone {
        Ok(()) => Vec::new(),
        Err(error) if left.is_empty() => vec![error.to_string()],
        Err(_) => left,
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
fn nothing_of_ours_is_left_but_the_crds() {
    cluster::test(|cluster| async move {
        let left = &life(&cluster).await?.left;
        assert!(left.is_empty(), "{left:#?}");
        Ok(())
    });
}
