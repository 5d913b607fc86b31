//! Backends come and go; callers notice only when none is left.

use serde_json::json;
use weft_tests::traffic::{Load, Mode, get_until, reaches};
use weft_tests::wait::seconds;
use weft_tests::workloads::{self, Server, scale};
use weft_tests::{cluster, mesh};

#[test]
fn scaling_1_5_1_under_500_rps_loses_no_request() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let ns = workloads::namespace(&cluster, "e2e-scale").await?;
        Server::new("whoami", 1).deploy(&cluster, &ns).await?;
        workloads::service(&cluster, &ns, "whoami", "whoami", &[("http", 80, json!("http"))]).await?;
        let clients = workloads::clients(&cluster, &ns).await?;
        let url = format!("http://whoami.{ns}.weft.mesh/");
        for client in &clients {
            reaches(&cluster, client, &url, "whoami", seconds(30)).await?;
        }

        // 500 a second together: half from either node, half of that on kept connections.
        let mut loads = Vec::new();
        for client in &clients[..2] {
            loads.push(Load::start(&cluster, client, &url, "whoami", 125, Mode::Both).await?);
        }
        scale(&cluster, &ns, "whoami", 5).await?;
        workloads::available(&cluster, &ns, "whoami").await?;
        for load in &loads {
            load.let_run(seconds(2)).await?;
        }
        scale(&cluster, &ns, "whoami", 1).await?;
        workloads::available(&cluster, &ns, "whoami").await?;
        for load in &loads {
            load.let_run(seconds(2)).await?;
        }
        for load in loads {
            for report in load.stop_without_failures(500).await? {
                assert_eq!(report.pods.len(), 5, "each of the five took part: {:?}", report.pods);
            }
        }
        workloads::remove_namespace(&cluster, &ns).await
    });
}

#[test]
fn without_endpoints_the_caller_is_told_which_service_and_why() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let ns = workloads::namespace(&cluster, "e2e-empty").await?;
        Server::new("whoami", 1).deploy(&cluster, &ns).await?;
        workloads::service(&cluster, &ns, "whoami", "whoami", &[("http", 80, json!("http"))]).await?;
        let clients = workloads::clients(&cluster, &ns).await?;
        let url = format!("http://whoami.{ns}.weft.mesh/");
        reaches(&cluster, &clients[0], &url, "whoami", seconds(30)).await?;

        scale(&cluster, &ns, "whoami", 0).await?;
        let answer =
            get_until(&cluster, &clients[0], &url, "503", seconds(30), |answer| answer.status == Some(503))
                .await?;
        let body = answer.body.as_str().unwrap_or_default();
        assert!(body.contains(&format!("{ns}/whoami")), "the Service is not named: {body}");
        assert!(body.contains("no ready endpoint"), "the reason is not told: {body}");
        assert_eq!(answer.node(), Some(cluster.nodes[0].as_str()), "who says so is not told: {answer:?}");

        scale(&cluster, &ns, "whoami", 1).await?;
        reaches(&cluster, &clients[0], &url, "whoami", seconds(30)).await?;
        workloads::remove_namespace(&cluster, &ns).await
    });
}
