//! What the debug API tells of the mesh is what is there, and nobody else is told.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use weft_config::contract::{ADMIN_PORT, CONFIG_PATH, DEBUG_PORT};
use weft_tests::servers::Server;
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::{Result, cluster, debug, mesh, traffic};

async fn stage(cluster: &cluster::Cluster, namespace: &str) -> Result<Stage> {
    let services =
        [UserService::http("web", "web").ask("retry-attempts", "many"), UserService::http("empty", "nobody")];
    let stage = Stage::new(cluster, namespace, &[Server::new("web", 2)], &services).await?;
    stage.reaches("web", "web").await?;
    Ok(stage)
}

/// What the operator says of a Service, once its two endpoints are known.
async fn web(stage: &Stage) -> Result<Value> {
    wait::until("the operator knows both endpoints", seconds(30), async || {
        let web = debug::json(&stage.cluster, &format!("/debug/services/{}/web", stage.ns)).await?;
        Ok(Seen::when(web["endpoints"]["ready"] == 2, web.clone(), || web.to_string()))
    })
    .await
}

#[test]
fn a_service_is_shown_with_its_shadow_endpoints_and_problems() {
    cluster::side_by_side(|cluster| async move {
        let stage = stage(&cluster, "e2e-state-service").await?;
        let web = web(&stage).await?;
        assert_eq!((&web["inMesh"], &web["trafficType"]), (&json!(true), &json!("http")), "{web:#}");
        assert_eq!(web["shadow"]["clusterIP"], json!(stage.address("web").await?), "{web:#}");
        assert_eq!(web["endpoints"], json!({"ready": 2, "draining": 0, "total": 2}), "{web:#}");
        assert_eq!(web["problems"][0]["annotation"], "weft.mesh/retry-attempts", "{web:#}");
        assert_eq!(web["errors"], json!([]), "{web:#}");
        let empty = debug::json(&cluster, &format!("/debug/services/{}/empty", stage.ns)).await?;
        assert!(empty["errors"][0].as_str().unwrap_or_default().contains("no endpoints"), "{empty:#}");
        let dns = debug::json(&cluster, "/debug/services/kube-system/kube-dns").await?;
        assert_eq!(dns, json!({"inMesh": false, "because": "its namespace is never in the mesh"}));
        stage.strike().await
    });
}

#[test]
fn every_node_is_shown_with_what_it_holds_and_who_serves_it() {
    cluster::side_by_side(|cluster| async move {
        // Something to hold: without a Service in the mesh there is nothing.
        let stage = stage(&cluster, "e2e-state-nodes").await?;
        let nodes = wait::until("every node is in step", seconds(30), async || {
            let nodes = debug::json(&cluster, "/debug/nodes").await?;
            let all = nodes.as_array().ok_or("no list")?.clone();
            let well = all.len() == cluster.nodes.len() && all.iter().all(|node| node["inSync"] == true);
            Ok(Seen::when(well, all, || nodes.to_string()))
        })
        .await?;
        let operators: Vec<_> =
            mesh::operators(&cluster).await?.into_iter().filter_map(|pod| pod.metadata.name).collect();
        for (node, name) in nodes.iter().zip(&cluster.nodes) {
            assert_eq!((&node["node"], &node["connected"]), (&json!(name), &json!(true)), "{node:#}");
            let operator = node["operator"].as_str().unwrap_or_default();
            assert!(operators.iter().any(|pod| pod == operator), "{operator} is none of {operators:?}");
            assert_eq!((&node["answers"], &node["rejections"]), (&json!(true), &json!([])), "{node:#}");
            assert!(node["resources"].as_u64() > Some(0) && node["digest"].is_string(), "{node:#}");
        }
        stage.strike().await
    });
}

#[test]
fn a_proxy_tells_the_operator_what_it_holds_and_nobody_else() {
    cluster::side_by_side(|cluster| async move {
        let stage = stage(&cluster, "e2e-state-node").await?;
        let compiled = web(&stage).await?["resources"].clone();
        assert!(compiled.as_array().is_some_and(|all| all.len() == 2), "{compiled:#}");
        for node in &cluster.nodes {
            let path = format!("/debug/nodes/{node}/configuration?service={}/web", stage.ns);
            wait::until(&format!("{node} holds what was compiled"), seconds(30), async || {
                let held = debug::json(&cluster, &path).await?;
                Ok(Seen::when(held["resources"] == compiled, (), || held.to_string()))
            })
            .await?;
        }
        for pod in mesh::proxies(&cluster).await? {
            let address = address(&pod)?;
            let url = format!("http://{address}:{ADMIN_PORT}{CONFIG_PATH}");
            let answers = traffic::get(&cluster, stage.client(), &url, &[]).await?;
            assert_eq!(answers.first().and_then(|answer| answer.status), Some(401), "{answers:?}");
        }
        stage.strike().await
    });
}

#[test]
fn nobody_reads_the_debug_api_over_the_network() {
    cluster::side_by_side(|cluster| async move {
        let stage = stage(&cluster, "e2e-state-port").await?;
        for pod in mesh::operators(&cluster).await? {
            let url = format!("http://{}:{DEBUG_PORT}/debug", address(&pod)?);
            let answers = traffic::get(&cluster, stage.client(), &url, &[]).await?;
            assert_eq!(answers.first().and_then(|answer| answer.status), None, "{answers:?}");
            assert!(
                answers[0].error.as_deref().is_some_and(|error| error.contains("refused")),
                "{answers:?}"
            );
        }
        stage.strike().await
    });
}

/// The API server's own table, which `kubectl get -o wide` prints.
#[test]
fn one_line_tells_how_the_mesh_is() {
    cluster::side_by_side(|cluster| async move {
        let stage = stage(&cluster, "e2e-state-line").await?;
        let path = format!("/apis/weft.mesh/v1alpha1/namespaces/{}/meshconfigs/weft", mesh::NAMESPACE);
        let nodes = cluster.nodes.len();
        wait::until("the line tells it", seconds(30), async || {
            let request = http::Request::get(&path)
                .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
                .body(Vec::new())?;
            let table: Value = cluster.client.request(request).await?;
            let names = table["columnDefinitions"].as_array().ok_or("no columns")?.iter();
            let cells = table["rows"][0]["cells"].as_array().ok_or("no row")?.iter();
            let line: BTreeMap<_, _> =
                names.filter_map(|column| column["name"].as_str()).zip(cells).collect();
            let wanted = [
                ("Ready", json!("True")),
                ("Proxies", json!(format!("{nodes}/{nodes}"))),
                ("DNS", json!("True")),
                ("Synced", json!("True")),
                ("In sync", json!(nodes)),
                ("Rollout", json!("Complete")),
            ];
            // Whether other tests have something that needs a person is theirs.
            let told = line.get("Degraded").is_some_and(|degraded| degraded.is_string())
                && wanted.iter().all(|(name, value)| line.get(name) == Some(&value));
            Ok(Seen::when(told, (), || format!("{line:?}")))
        })
        .await?;
        stage.strike().await
    });
}

fn address(pod: &Pod) -> Result<String> {
    Ok(pod.status.as_ref().and_then(|status| status.pod_ip.clone()).ok_or("a proxy without an address")?)
}
