//! Life after life: Weft is installed, changed and removed while the cluster's DNS is asked two hundred times a second for names of
//! the cluster and for others. `CYCLES` says how many lives; two without it.

use serde_json::json;
use weft_tests::cluster::{self, Cluster};
use weft_tests::exec::PodRef;
use weft_tests::node::Embedded;
use weft_tests::traffic::{DnsReport, Queries, reaches};
use weft_tests::wait::seconds;
use weft_tests::workloads::{self, Server};
use weft_tests::{Result, dns, mesh};

const NS: &str = "e2e-dns-cycles";

#[test]
fn installing_changing_and_removing_over_and_over_fails_no_dns_query_and_restarts_no_coredns() {
    cluster::test(|cluster| async move {
        let cycles: u32 = std::env::var("CYCLES").ok().map_or(Ok(2), |cycles| cycles.parse())?;
        mesh::absent(&cluster).await?;
        workloads::namespace(&cluster, NS).await?;
        Server::new("web", 1).deploy(&cluster, NS).await?;
        workloads::service(&cluster, NS, "web", "web", &[("http", 80, json!("http"))]).await?;
        let clients = workloads::clients(&cluster, NS).await?;
        let (corefile, pods) = (dns::corefile(&cluster).await?, dns::pods(&cluster).await?);
        let (mut sent, mut failed) = (0, 0);
        for cycle in 1..=cycles {
            let reports = live(&cluster, &clients).await?;
            for report in &reports {
                sent += report.sent;
                failed += report.failed;
            }
            eprintln!("  cycle {cycle} of {cycles}: {sent} queries, {failed} failed");
            assert!(reports.iter().all(|report| report.failed == 0 && report.sent > 500), "{reports:?}");
            assert_eq!(dns::corefile(&cluster).await?, corefile, "byte for byte as before");
            assert_eq!(dns::pods(&cluster).await?, pods, "CoreDNS was restarted");
        }
        mesh::absent(&cluster).await?;
        workloads::remove_namespace(&cluster, NS).await
    });
}

/// One life beside the queries, which begin before it and end after it.
async fn live(cluster: &Cluster, clients: &[PodRef]) -> Result<Vec<DnsReport>> {
    let plain = format!("web.{NS}.svc.cluster.local");
    let mut names =
        vec!["kubernetes.default.svc.cluster.local", &plain, "nobody.default.svc.cluster.local=NXDOMAIN"];
    // What the resolver outside of another cluster knows is not known here.
    if Embedded::needed_for("that names outside of the cluster resolve all the while").is_some() {
        names.extend(["host.external.test", "nobody.elsewhere.test=NXDOMAIN"]);
    }
    let mut queries = Vec::new();
    for client in &clients[..2] {
        queries.push(Queries::start(cluster, client, 100, &names).await?);
    }
    mesh::install(cluster).await?;
    mesh::apply_meshconfig(cluster, &mesh::meshconfig()).await?;
    mesh::ready(cluster, seconds(90)).await?;
    reaches(cluster, &clients[0], &format!("http://web.{NS}.weft.mesh/"), "web", seconds(30)).await?;
    let mut changed = mesh::meshconfig();
    changed["spec"]["domains"] = json!(["weft.mesh", "traefik.mesh"]);
    mesh::apply_meshconfig(cluster, &changed).await?;
    mesh::ready(cluster, seconds(90)).await?;
    reaches(cluster, &clients[1], &format!("http://web.{NS}.traefik.mesh/"), "web", seconds(30)).await?;
    // The hook of the uninstallation deletes the MeshConfig.
    mesh::helm_uninstall().await?;
    // The queries go on until CoreDNS must have noticed.
    dns::is_gone(cluster, &clients[0], &format!("web.{NS}.weft.mesh")).await?;
    let mut reports = Vec::new();
    for asked in queries {
        reports.push(asked.stop().await?);
    }
    Ok(reports)
}
