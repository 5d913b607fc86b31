//! Traffic metrics: every resource of the API tells a known load, to whoever may read it and to nobody else.

use http::Request;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Client;
use kube::api::PostParams;
use serde_json::{Value, json};
use weft_tests::Result;
use weft_tests::cluster;
use weft_tests::smi::split;
use weft_tests::stage::Stage;
use weft_tests::wait::{self, Seen, seconds};

use crate::scene;

const METRICS: &str = "/apis/metrics.smi-spec.io/v1alpha1";
/// Requests that go well, and such that do not.
const LOAD: (u64, u64) = (200, 10);
/// Longer than a window and the period that is not over yet.
const WINDOW: u64 = 45;

async fn read_as(client: &Client, path: &str) -> Result<Value> {
    Ok(client.request(Request::get(format!("{METRICS}{path}")).body(Vec::new())?).await?)
}

/// The counts of the item that has them.
fn counts(item: &Value) -> (u64, u64) {
    let count = |name: &str| {
        let metrics = item["metrics"].as_array().into_iter().flatten();
        let value =
            metrics.filter(|metric| metric["name"] == name).find_map(|metric| metric["value"].as_str());
        value.and_then(|value| value.parse().ok()).unwrap_or(u64::MAX)
    };
    (count("success_count"), count("failure_count"))
}

/// The counts of all items of a list, added up.
fn sum(list: &Value) -> (u64, u64) {
    let items = list["items"].as_array().into_iter().flatten().map(counts);
    items.fold((0, 0), |(successes, failures), (more, failed)| (successes + more, failures + failed))
}

/// Requests to `web`, which are answered by `v1`, after a window in which there were none.
async fn known_load(stage: &Stage) -> Result {
    let path = format!("/namespaces/{}/services/web", stage.ns);
    let told = async |what: &str, wanted: (u64, u64)| {
        wait::until(what, seconds(WINDOW), async || {
            let item = read_as(&stage.cluster.client, &path).await?;
            Ok(Seen::when(counts(&item) == wanted, (), || item.to_string()))
        })
        .await
    };
    told("a window without requests", (0, 0)).await?;
    stage.get_all("web", "/", &["-n", &LOAD.0.to_string()]).await?;
    stage.get_all("web", "/?status=503", &["-n", &LOAD.1.to_string()]).await?;
    told("the load is told", LOAD).await
}

/// Fails with `shown` unless `told` is what was `wanted`.
#[allow(clippy::needless_pass_by_value, reason = "most of what is compared is made on the spot")]
fn same<T: PartialEq + std::fmt::Debug>(told: T, wanted: T, shown: impl std::fmt::Display) -> Result {
    if told == wanted { Ok(()) } else { Err(format!("{told:?} instead of {wanted:?}: {shown}").into()) }
}

#[test]
fn every_resource_tells_a_known_load() {
    cluster::side_by_side(|cluster| async move {
        let stage = scene::split(&cluster, "e2e-smi-metrics").await?;
        stage.apply(&[split("canary", "web", &[("v1", 3), ("v2", 0)])]).await?;
        scene::settles(&stage, "web", &[], &["v1"]).await?;
        // From the first request to the last look no more than a window may pass, and a busy machine may take longer: then once
        // more, with another load.
        wait::until("every resource tells the load", seconds(6 * WINDOW), async || {
            every_resource(&stage).await.map(Seen::Done)
        })
        .await?;
        stage.strike().await
    });
}

/// Makes a load, and looks at every resource before it is over.
async fn every_resource(stage: &Stage) -> Result {
    known_load(stage).await?;
    let read = async |path: &str| read_as(&stage.cluster.client, path).await;
    let here = format!("/namespaces/{}", stage.ns);

    let one = read(&format!("{here}/deployments/v1")).await?;
    same(counts(&one), LOAD, &one)?;
    same((&one["kind"], &one["window"]), (&json!("TrafficMetrics"), &json!("30s")), &one)?;
    same(one["metrics"].as_array().map(Vec::len), Some(5), &one)?;
    let idle = read(&format!("{here}/deployments/web")).await?;
    same(counts(&idle), (0, 0), &idle)?;

    for (path, wanted) in [
        ("/pods?labelSelector=app%3Dv1", LOAD),
        ("/pods?labelSelector=app%3Dv2", (0, 0)),
        ("/pods", LOAD),
        ("/deployments", LOAD),
        ("/replicasets", LOAD),
        ("/services", LOAD),
        ("/trafficsplits", LOAD),
        ("/statefulsets", (0, 0)),
        ("/daemonsets", (0, 0)),
        ("/jobs", (0, 0)),
        ("/replicationcontrollers", (0, 0)),
    ] {
        let list = read(&format!("{here}{path}")).await?;
        same((&list["kind"], sum(&list)), (&json!("TrafficMetricsList"), wanted), format!("{path}: {list}"))?;
    }
    let namespace = read(&here).await?;
    same(counts(&namespace), LOAD, &namespace)?;
    // Others are at work beside us.
    for path in ["/nodes", "/namespaces", "/pods", "/services"] {
        let all = read(path).await?;
        same(sum(&all).0 >= LOAD.0, true, format!("{path}: {all}"))?;
    }

    let shares = read(&format!("{here}/trafficsplits/canary")).await?;
    let share = shares["items"].as_array().into_iter().flatten().find(|item| item["backend"]["name"] == "v1");
    let share = share.ok_or_else(|| shares.to_string())?;
    same(&share["backend"], &json!({"apex": "web", "name": "v1", "weight": 3}), &shares)?;
    same(counts(share), LOAD, &shares)?;

    let client = &stage.client().name;
    for (path, direction, peer) in [
        ("/deployments/v1/edges".to_owned(), "from", client.as_str()),
        (format!("/pods/{client}/edges"), "to", "v1-"),
        ("/services/web/edges".to_owned(), "from", client),
        ("/trafficsplits/canary/edges".to_owned(), "from", client),
        ("/edges".to_owned(), "from", &stage.ns),
    ] {
        let edges = read(&format!("{here}{path}")).await?;
        let found = edges["items"].as_array().into_iter().flatten().find(|item| {
            let edge = &item["edge"];
            edge["direction"] == direction
                && edge["resource"]["name"].as_str().is_some_and(|name| name.starts_with(peer))
        });
        same(found.map(counts), Some(LOAD), format!("{path}: {edges}"))?;
    }
    Ok(())
}

#[test]
fn who_may_view_a_namespace_may_see_its_traffic() {
    cluster::side_by_side(|cluster| async move {
        let stage = scene::split(&cluster, "e2e-smi-metrics-rights").await?;
        let user = "jane@e2e-smi-metrics-rights";
        let jane = cluster.client_as(user).await?;
        let pods = format!("/namespaces/{}/pods", stage.ns);
        let refused = read_as(&jane, &pods).await.err().ok_or("jane may see what she has no right to")?;
        assert!(refused.to_string().contains("orbidden"), "{refused}");
        let binding = json!({
            "metadata": { "name": "jane" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
        });
        let bindings = cluster.api::<RoleBinding>(&stage.ns);
        bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
        wait::until("jane sees her namespace", seconds(30), async || {
            let list = read_as(&jane, &pods).await?;
            Ok(Seen::when(list["kind"] == "TrafficMetricsList", (), || list.to_string()))
        })
        .await?;
        read_as(&jane, &format!("/namespaces/{}/edges", stage.ns)).await?;
        let refused = read_as(&jane, "/nodes").await.err().ok_or("jane may see all nodes")?;
        assert!(refused.to_string().contains("orbidden"), "{refused}");
        stage.strike().await
    });
}
