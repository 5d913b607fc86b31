//! Who owns what where there are several: two releases with one domain, a MeshConfig under another name. Each ends in a clear
//! condition or in a working mesh, never in a fight.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use weft_tests::afterwards::afterwards;
use weft_tests::audit::Write;
use weft_tests::cluster::{self, Cluster, dns};
use weft_tests::node::Embedded;
use weft_tests::servers::Server;
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::traffic::{Load, Mode, reaches};
use weft_tests::wait::seconds;
use weft_tests::{Result, mesh, workloads};

const OTHER: &str = "weft-other";
/// The domain of the second, once it is another.
const SECOND: &str = "second.mesh";

async fn apply(cluster: &Cluster, spec: Value) -> Result {
    let mut object = mesh::meshconfig();
    object["spec"] = spec;
    let api = mesh::meshconfigs_of(cluster, OTHER);
    api.patch("weft", &PatchParams::apply("weft-tests").force(), &Patch::Apply(object)).await?;
    Ok(())
}

#[test]
fn of_two_releases_with_one_domain_the_newer_says_so_and_touches_nothing() {
    cluster::test(|cluster| async move {
        let (server, service) = (Server::new("whoami", 2), UserService::http("whoami", "whoami"));
        let stage = Stage::new(&cluster, "e2e-two", &[server], &[service]).await?;
        stage.reaches("whoami", "whoami").await?;
        let (corefile, ports) = (dns::corefile(&cluster).await?, mesh::ports(&cluster).await?);
        let load = Load::start(&cluster, stage.client(), &stage.url("whoami", "/"), "whoami", 50, Mode::Both)
            .await?;
        let second = async {
            // By the same name, in another namespace.
            mesh::install_into(&cluster, OTHER, &["operator.replicas=1"]).await?;
            let since = SystemTime::now();
            apply(&cluster, json!({})).await?;
            let message = mesh::says(&cluster, (OTHER, "weft"), "Ready", "DomainTaken", seconds(30)).await?;
            assert!(message.contains("MeshConfig weft-system/weft has weft.mesh"), "{message}");

            assert_eq!(without_the_second(&dns::corefile(&cluster).await?), corefile);
            // To the first, Services of the second are Services like any other.
            let after = mesh::ports(&cluster).await?;
            let changed = mesh::ports_that_changed(&ports, &after);
            assert!(changed.is_empty(), "{changed:?}, now {after:?}");
            assert!(after.keys().any(|port| port.contains(&*stage.ns)), "{after:?}");
            let proxies = cluster.api::<DaemonSet>(OTHER).list(&ListParams::default()).await?;
            assert!(proxies.items.is_empty(), "{:?}", proxies.items);
            let meshconfig = mesh::meshconfigs_of(&cluster, OTHER).get("weft").await?;
            assert_eq!(meshconfig.finalizers(), [""; 0]);
            let status = mesh::status(&cluster).await?;
            assert_eq!(mesh::condition(&status, "Ready"), Some("True"), "{status:#}");
            no_fight(since).await?;

            apply(&cluster, json!({"domains": [SECOND]})).await?;
            mesh::says(&cluster, (OTHER, "weft"), "Ready", "Ready", seconds(120)).await?;
            both_carry(&cluster, &stage).await?;
            mesh::uninstall_from(OTHER).await?;
            assert_eq!(
                without_the_second(&dns::corefile(&cluster).await?),
                corefile,
                "its end is not the end of the first"
            );
            Ok(())
        };
        afterwards(second, workloads::remove_namespace(&cluster, OTHER)).await?;
        load.stop_without_failures(100).await?;
        stage.strike().await
    });
}

/// Of the user's Services both have shadows, and of each other's none.
async fn both_carry(cluster: &Cluster, stage: &Stage) -> Result {
    let url = format!("http://whoami.{}.{SECOND}/", stage.ns);
    reaches(cluster, stage.client(), &url, "whoami", seconds(60)).await?;
    stage.reaches("whoami", "whoami").await?;
    let shadows = cluster.all::<Service>().list(&ListParams::default().labels("weft.mesh/shadow")).await?;
    let mut of_whoami = 0;
    for shadow in shadows {
        let label = |key: &str| shadow.labels().get(key).cloned().unwrap_or_default();
        let (namespace, name) = (label("weft.mesh/service-namespace"), label("weft.mesh/service-name"));
        of_whoami += usize::from(namespace == stage.ns && name == "whoami");
        if [mesh::NAMESPACE, OTHER].contains(&&*namespace) {
            let own = ["weft-operator", "weft-dns", "weft-smi-metrics"].contains(&&*name);
            assert!(own, "a shadow of {namespace}/{name}, which no user has made");
        }
    }
    assert_eq!(of_whoami, 2);
    Ok(())
}

/// What the first has in the Corefile, but for the names of the second's own Services.
fn without_the_second(corefile: &str) -> String {
    let name = format!(".{OTHER}.weft.mesh");
    corefile.split_inclusive('\n').filter(|line| !line.contains(&name)).collect()
}

/// Neither operator has written over what the other wrote: the second tells its own MeshConfig's status and nothing else, and nothing
/// is written again and again.
async fn no_fight(since: SystemTime) -> Result {
    let Some(embedded) = Embedded::needed_for("that two operators do not fight") else { return Ok(()) };
    let objects = async |namespace: &str| -> Result<Vec<Write>> {
        let mut writes = embedded.writes_by(namespace, "weft-operator", since).await?;
        writes.retain(|write| write.is_of_object() && write.resource() != "events");
        Ok(writes)
    };
    let (first, second) = (objects(mesh::NAMESPACE).await?, objects(OTHER).await?);
    let told = |writes: &[Write]| writes.iter().map(Write::describe).collect::<Vec<_>>();
    let of_its_own = |write: &Write| matches!(&*write.object(), "meshconfigs/status weft");
    assert!(!second.is_empty() && second.iter().all(of_its_own), "{:#?}", told(&second));
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for write in first.iter().chain(&second) {
        *times.entry(write.object()).or_default() += 1;
    }
    // A first word of each, one for each change, and what was under way.
    assert!(times.values().all(|times| *times <= 6), "{times:#?}, {:#?}", told(&first));
    Ok(())
}

#[test]
fn a_meshconfig_under_another_name_makes_the_same_mesh_again() {
    cluster::test(|cluster| async move {
        let (server, service) = (Server::new("whoami", 2), UserService::http("whoami", "whoami"));
        let stage = Stage::new(&cluster, "e2e-rename", &[server], &[service]).await?;
        stage.reaches("whoami", "whoami").await?;
        let api = mesh::meshconfigs(&cluster);
        // Both at a time, as `kubectl replace` or a GitOps tool would: the new one waits for the old one's end.
        let mut renamed = mesh::meshconfig();
        renamed["metadata"]["name"] = json!("renamed");
        let rename = async {
            mesh::apply_meshconfig(&cluster, &renamed).await?;
            api.delete("weft", &DeleteParams::default()).await?;
            mesh::says(&cluster, (mesh::NAMESPACE, "renamed"), "Ready", "Ready", seconds(120)).await?;
            assert!(api.get_opt("weft").await?.is_none());
            stage.reaches("whoami", "whoami").await?;
            let shadow = mesh::shadow_of(&cluster, &stage.ns, "whoami").await?.ok_or("no shadow")?;
            assert_eq!(shadow.owner_references().len(), 1);
            assert_eq!(shadow.owner_references()[0].name, "renamed");
            let ports = mesh::ports(&cluster).await?;
            let distinct: std::collections::BTreeSet<_> = ports.values().collect();
            assert_eq!(distinct.len(), ports.len(), "{ports:?}");
            Ok(())
        };
        afterwards(rename, async {
            mesh::apply_meshconfig(&cluster, &mesh::meshconfig()).await?;
            if api.get_opt("renamed").await?.is_some() {
                api.delete("renamed", &DeleteParams::default()).await?;
            }
            mesh::ready(&cluster, seconds(120)).await
        })
        .await?;
        stage.reaches("whoami", "whoami").await?;
        stage.strike().await
    });
}
