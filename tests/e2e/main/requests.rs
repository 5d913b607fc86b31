//! Requests of every form find their Service: the port a connection arrives on names it, never the request.

use std::collections::BTreeSet;

use kube::api::PostParams;
use serde_json::json;
use weft_tests::traffic::{get, reaches};
use weft_tests::wait::seconds;
use weft_tests::workloads::{self, Server};
use weft_tests::{cluster, mesh};

#[test]
fn any_host_header_http_1_0_and_h2c() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let ns = workloads::namespace(&cluster, "e2e-requests").await?;
        Server::new("whoami", 1).deploy(&cluster, &ns).await?;
        Server::new("other", 1).deploy(&cluster, &ns).await?;
        for app in ["whoami", "other"] {
            workloads::service(&cluster, &ns, app, app, &[("http", 80, json!("http"))]).await?;
        }
        let clients = workloads::clients(&cluster, &ns).await?;
        let url = format!("http://whoami.{ns}.weft.mesh/a/b?c=d");
        reaches(&cluster, &clients[0], &url, "whoami", seconds(30)).await?;

        // The Host of another Service must not lead there either.
        let other = format!("other.{ns}.weft.mesh");
        for host in ["elsewhere.example", "elsewhere.example:8443", "10.1.2.3", "localhost", &other] {
            for more in [&[][..], &["--http10"], &["--h2c"]] {
                let args = [&["--host", host], more].concat();
                let answer = get(&cluster, &clients[0], &url, &args).await?.remove(0);
                answer.assert_from("whoami");
                assert_eq!(answer.told("path"), "/a/b?c=d");
                assert_eq!(answer.received("host"), Some(host), "{args:?}: the backend sees the Host sent");
                assert!(answer.node().is_some(), "{args:?} bypassed the mesh");
            }
        }
        let without = get(&cluster, &clients[0], &url, &["--http10", "--no-host"]).await?.remove(0);
        without.assert_from("whoami");
        assert!(without.node().is_some());
        let h2c = get(&cluster, &clients[0], &url, &["--h2c", "-n", "3"]).await?;
        assert!(h2c.iter().all(|answer| answer.version == "HTTP/2.0"), "{h2c:?}");
        workloads::remove_namespace(&cluster, &ns).await
    });
}

#[test]
fn several_ports_named_target_ports_and_target_ports_that_differ_per_pod() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let ns = workloads::namespace(&cluster, "e2e-ports").await?;
        // Two Deployments behind one Service: the same name stands for another number in each.
        let low = Server::new("low", 1).ports(&[("web", 8080), ("admin", 8081)]).label("side", "both");
        let high = Server::new("high", 1).ports(&[("web", 9090), ("admin", 9091)]).label("side", "both");
        low.deploy(&cluster, &ns).await?;
        high.deploy(&cluster, &ns).await?;
        let ports = [("web", 80, json!("web")), ("admin", 81, json!("admin")), ("number", 9000, json!(8081))];
        let service = workloads::service_manifest("both", &json!({ "side": "both" }), &ports);
        cluster
            .api::<k8s_openapi::api::core::v1::Service>(&ns)
            .create(&PostParams::default(), &serde_json::from_value(service)?)
            .await?;
        let clients = workloads::clients(&cluster, &ns).await?;
        let url = |port: u16| format!("http://both.{ns}.weft.mesh:{port}/");
        reaches(&cluster, &clients[0], &url(81), "low", seconds(30)).await?;

        let wanted: [(u16, [(&str, u64); 2]); 2] =
            [(80, [("high", 9090), ("low", 8080)]), (81, [("high", 9091), ("low", 8081)])];
        for (port, wanted) in wanted {
            let answers = get(&cluster, &clients[0], &url(port), &["-n", "40"]).await?;
            let seen: BTreeSet<_> = answers
                .iter()
                .map(|answer| {
                    assert_eq!(answer.status, Some(200), "{answer:?}");
                    (answer.told("app"), answer.body["port"].as_u64().unwrap_or(0))
                })
                .collect();
            assert_eq!(seen, BTreeSet::from(wanted), "port {port}");
        }
        // A target by number is that number on every pod; only one of the two listens there.
        let answers = get(&cluster, &clients[0], &url(9000), &["-n", "20"]).await?;
        for answer in &answers {
            answer.assert_from("low");
            assert_eq!(answer.body["port"], 8081);
        }
        workloads::remove_namespace(&cluster, &ns).await
    });
}
