//! The mesh domains in DNS servers of all kinds: CoreDNS that imports a user's servers, kube-dns, a NodeLocal DNSCache, and a DNS
//! that is left alone. kube-dns itself is not here; what it would be told is, and who it would ask.

use serde_json::{Value, json};
use weft_tests::afterwards::afterwards;
use weft_tests::clients::ClientPod;
use weft_tests::cluster::{self, Cluster};
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::traffic::{Queries, reaches};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::Server;
use weft_tests::{Result, dns, mesh};

/// Where a CoreDNS that imports servers has ours.
const KEY: &str = "weft.mesh.weft-system.server";
/// What such a CoreDNS has at the end of its Corefile.
const IMPORT: &str = "import custom/*.server\n";

/// A namespace with one Service, and a client on each node.
async fn stage(cluster: &Cluster, namespace: &str) -> Result<Stage> {
    Stage::new(cluster, namespace, &[Server::new("web", 1)], &[UserService::http("web", "web")]).await
}

/// The MeshConfig of the tests with these fields in its spec, and a waiting for the condition `DNSConfigured` to have `reason`.
pub(crate) async fn configure(cluster: &Cluster, spec: Value, reason: &str) -> Result<String> {
    let mut object = mesh::meshconfig();
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    mesh::apply_meshconfig(cluster, &object).await?;
    dns_condition(cluster, reason).await
}

/// Waits until the condition `DNSConfigured` of the current generation has `reason`; gives its message.
pub(crate) async fn dns_condition(cluster: &Cluster, reason: &str) -> Result<String> {
    let api = mesh::meshconfigs(cluster);
    wait::until(&format!("DNSConfigured is {reason}"), seconds(90), async || {
        let object = api.get("weft").await?;
        let conditions = object.data["status"]["conditions"].clone();
        let all = conditions.as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|one| one["type"] == "DNSConfigured").unwrap_or_default();
        let current = found["observedGeneration"].as_i64() == object.metadata.generation;
        let message = found["message"].as_str().unwrap_or_default().to_owned();
        Ok(Seen::when(current && found["reason"] == reason, message, || found.to_string()))
    })
    .await
}

/// The MeshConfig as the other tests need it.
pub(crate) async fn as_it_was(cluster: &Cluster) -> Result {
    mesh::apply_meshconfig(cluster, &mesh::meshconfig()).await?;
    mesh::ready(cluster, seconds(90)).await
}

#[test]
fn where_coredns_imports_a_users_servers_the_lines_stand_there_and_the_corefile_is_not_touched() {
    cluster::test(|cluster| async move {
        let stage = stage(&cluster, "e2e-dns-custom").await?;
        stage.reaches("web", "web").await?;
        let pods = dns::pods(&cluster).await?;
        mesh::delete_meshconfig(&cluster).await?;
        dns::is_gone(&cluster, stage.client(), &stage.host("web")).await?;
        let before = dns::corefile(&cluster).await?;
        let importing = format!("{before}{IMPORT}");
        let body = async {
            dns::write_corefile(&cluster, "weft-tests", &importing).await?;
            let message = configure(&cluster, json!({}), "CoreDNS").await?;
            assert!(
                message.contains(&format!("under {KEY} in ConfigMap kube-system/coredns-custom")),
                "{message}"
            );
            assert_eq!(dns::corefile(&cluster).await?, importing);
            let lines = dns::value(&cluster, "coredns-custom", KEY).await?.unwrap_or_default();
            assert!(lines.contains("weft.mesh:53 {"), "{lines}");
            stage.reaches("web", "web").await?;
            mesh::delete_meshconfig(&cluster).await?;
            assert_eq!(
                dns::value(&cluster, "coredns-custom", KEY).await?,
                None,
                "it was made for us, and goes with us"
            );
            dns::is_gone(&cluster, stage.client(), &stage.host("web")).await?;
            assert_eq!(dns::corefile(&cluster).await?, importing);
            assert_eq!(dns::pods(&cluster).await?, pods, "CoreDNS was restarted");
            Ok(())
        };
        afterwards(body, async {
            dns::write_corefile(&cluster, "weft-tests", &before).await?;
            as_it_was(&cluster).await
        })
        .await?;
        stage.reaches("web", "web").await?;
        stage.strike().await
    });
}

#[test]
fn kube_dns_is_told_of_a_resolver_through_which_mesh_names_resolve() {
    cluster::test(|cluster| async move {
        let stage = stage(&cluster, "e2e-dns-kubedns").await?;
        stage.reaches("web", "web").await?;
        let resolver = dns::address(&cluster, mesh::NAMESPACE, "weft-dns").await?;
        let cluster_dns = dns::address(&cluster, dns::NAMESPACE, "kube-dns").await?;
        let body = async {
            // CoreDNS answers here, so that kube-dns is never seen to; what is told it is there all the same.
            configure(
                &cluster,
                json!({ "domains": ["weft.mesh", "second.mesh"], "dns": { "provider": "KubeDNS" } }),
                "Propagating",
            )
            .await?;
            let stubs = dns::value(&cluster, "kube-dns", "stubDomains").await?.unwrap_or_default();
            let stubs: Value = serde_json::from_str(&stubs)?;
            assert_eq!(stubs, json!({ "weft.mesh": [resolver], "second.mesh": [resolver] }));

            // Asked directly.
            let direct = ClientPod::new("direct", &cluster.nodes[0])
                .that_asks(&resolver)
                .start(&cluster, &stage.ns)
                .await?;
            let hosts = [stage.host("web"), format!("web.{}.second.mesh", stage.ns)];
            for host in &hosts {
                reaches(&cluster, &direct, &format!("http://{host}/"), "web", seconds(30)).await?;
            }
            let missing = format!("nobody.{}.weft.mesh=NXDOMAIN", stage.ns);
            let names = [hosts[0].as_str(), "dns-check.weft.mesh", &missing];
            let queries = Queries::start(&cluster, &direct, 100, &names).await?;
            let report = queries.stop().await?;
            assert_eq!(report.failed, 0, "{report:?}");

            // Asked through a server that does with the mesh domains as kube-dns does with stub domains.
            let stub = format!(
                "weft.mesh:53 second.mesh:53 {{\n    forward . {resolver}\n}}\n.:53 {{\n    forward . {cluster_dns}\n}}\n"
            );
            let server = dns::start_server(&cluster, &stage.ns, "stub", &stub).await?;
            let client = ClientPod::new("through", &cluster.nodes[1])
                .that_asks(&server)
                .start(&cluster, &stage.ns)
                .await?;
            for host in [hosts[0].clone(), hosts[1].clone(), format!("web.{}.svc.cluster.local", stage.ns)] {
                reaches(&cluster, &client, &format!("http://{host}/"), "web", seconds(30)).await?;
            }
            Ok(())
        };
        afterwards(body, as_it_was(&cluster)).await?;
        assert_eq!(
            dns::value(&cluster, "kube-dns", "stubDomains").await?,
            None,
            "the ConfigMap was made for us"
        );
        stage.reaches("web", "web").await?;
        stage.strike().await
    });
}

#[test]
fn a_node_local_cache_passes_mesh_names_on_and_is_left_as_it_was() {
    const NAME: &str = "node-local-dns";
    cluster::test(|cluster| async move {
        let stage = stage(&cluster, "e2e-dns-nodelocal").await?;
        stage.reaches("web", "web").await?;
        let cluster_dns = dns::address(&cluster, dns::NAMESPACE, "kube-dns").await?;
        // As Kubespray's, but for the address: a pod's own, since the node's network is not to be changed.
        let cache = format!(
            "cluster.local:53 {{\n    errors\n    cache 30\n    reload 3s 1s\n    bind 0.0.0.0\n    forward . {cluster_dns} {{\n        force_tcp\n    }}\n}}\n.:53 {{\n    errors\n    cache 30\n    reload 3s 1s\n    bind 0.0.0.0\n    forward . /etc/resolv.conf\n}}\n"
        );
        let body = async {
            let server = dns::start_server(&cluster, dns::NAMESPACE, NAME, &cache).await?;
            let client = ClientPod::new("cached", &cluster.nodes[0])
                .that_asks(&server)
                .start(&cluster, &stage.ns)
                .await?;
            reaches(&cluster, &client, &stage.url("web", "/"), "web", seconds(90)).await?;
            let lines = dns::value(&cluster, NAME, "Corefile").await?.unwrap_or_default();
            let ours = lines
                .strip_prefix(cache.as_str())
                .ok_or_else(|| format!("what was there changed: {lines}"))?;
            assert!(ours.contains(&format!("bind 0.0.0.0\n    forward . {cluster_dns} {{")), "{ours}");
            let status = mesh::status(&cluster).await?;
            assert_eq!(status["dns"]["provider"], "CoreDNS behind NodeLocal DNSCache", "{status:#}");
            mesh::ready(&cluster, seconds(30)).await?;

            configure(&cluster, json!({ "dns": { "provider": "None" } }), "Manual").await?;
            assert_eq!(dns::value(&cluster, NAME, "Corefile").await?, Some(cache.clone()), "byte for byte");
            Ok(())
        };
        afterwards(body, async {
            dns::stop_server(&cluster, dns::NAMESPACE, NAME).await?;
            as_it_was(&cluster).await
        })
        .await?;
        stage.strike().await
    });
}

#[test]
fn dns_that_is_left_alone_works_with_the_lines_that_the_status_shows() {
    cluster::test(|cluster| async move {
        let stage = stage(&cluster, "e2e-dns-none").await?;
        stage.reaches("web", "web").await?;
        let body = async {
            let message = configure(&cluster, json!({ "dns": { "provider": "None" } }), "Manual").await?;
            let bare = dns::corefile(&cluster).await?;
            assert!(!bare.contains("weft.mesh"), "{bare}");
            mesh::ready(&cluster, seconds(30)).await?;
            dns::is_gone(&cluster, stage.client(), &stage.host("web")).await?;

            let (_, lines) =
                message.split_once(":\n").ok_or_else(|| format!("no lines are shown: {message}"))?;
            dns::write_corefile(&cluster, "a-person", &format!("{bare}{lines}")).await?;
            stage.reaches("web", "web").await?;
            dns::write_corefile(&cluster, "a-person", &bare).await
        };
        afterwards(body, as_it_was(&cluster)).await?;
        stage.reaches("web", "web").await?;
        stage.strike().await
    });
}
