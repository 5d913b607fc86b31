//! A bad image of the proxies: it stops at one node, the MeshConfig says why, and the former one puts it right.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::ResourceExt;
use serde_json::{Value, json};
use weft_tests::afterwards::afterwards;
use weft_tests::cluster::{self, Cluster};
use weft_tests::mixed::Mixed;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{image, lab_image};
use weft_tests::{Result, mesh};

/// Within this the former MeshConfig must have put everything right.
const BACK: Duration = Duration::from_secs(60);

/// The MeshConfig of the tests with another image, looked at for long enough to be found out beside the old proxy.
fn with_image(image: &str) -> Value {
    let mut object = mesh::meshconfig();
    object["spec"]["proxy"]["image"] = json!(image);
    object["spec"]["proxy"]["rollout"] = json!({ "observeSeconds": 5, "patienceSeconds": 16 });
    object
}

/// Waits until the rollout is stopped; what the condition says.
async fn stopped(cluster: &Cluster) -> Result<String> {
    wait::until("the rollout is stopped", seconds(60), async || {
        let status = mesh::status(cluster).await?;
        let paused = mesh::condition(&status, "RolloutPaused") == Some("True");
        let message = mesh::message(&status, "RolloutPaused").unwrap_or_default().to_owned();
        Ok(Seen::when(paused, message, || format!("{:#}", status["conditions"])))
    })
    .await
}

async fn names(cluster: &Cluster) -> Result<BTreeSet<String>> {
    Ok(mesh::proxies(cluster).await?.iter().map(ResourceExt::name_any).collect())
}

/// The image is applied, stops with all of `words` in the condition, and the former MeshConfig puts it right. The proxies there
/// were carry on all the while.
async fn stops_and_comes_back(cluster: &Cluster, image: &str, words: &[&str]) -> Result {
    mesh::proxies_settled(cluster, &[], seconds(60)).await?;
    let before = names(cluster).await?;
    let bad = async {
        mesh::apply_meshconfig(cluster, &with_image(image)).await?;
        let message = stopped(cluster).await?;
        eprintln!("  {message}");
        for word in words.iter().chain([&image]) {
            assert!(message.contains(word), "{word} is not in: {message}");
        }
        let named = |node: &&String| message.contains(&format!("on node {node} "));
        assert_eq!(cluster.nodes.iter().filter(named).count(), 1, "{message}");
        let status = mesh::status(cluster).await?;
        assert_eq!(mesh::condition(&status, "Ready"), Some("True"), "every node is served: {status:#}");
        assert_eq!(mesh::reason(&status, "Degraded"), Some("RolloutPaused"), "{status:#}");
        // What failed goes, and nothing else does.
        wait::until("the old proxies are alone", seconds(30), async || {
            let now = names(cluster).await?;
            Ok(Seen::when(now == before, (), || format!("{now:?} instead of {before:?}")))
        })
        .await
    };
    afterwards(bad, async {
        mesh::apply_meshconfig(cluster, &mesh::meshconfig()).await?;
        mesh::ready(cluster, BACK).await?;
        let status = mesh::status(cluster).await?;
        assert_eq!(mesh::reason(&status, "RolloutPaused"), Some("Complete"), "{status:#}");
        mesh::proxies_settled(cluster, &[], BACK).await
    })
    .await?;
    assert_eq!(names(cluster).await?, before, "nobody was replaced");
    Ok(())
}

#[test]
fn an_image_that_does_not_exist_and_one_that_ends_at_once_cost_no_request() {
    cluster::test(|cluster| async move {
        let stage = Mixed::stage(&cluster, "e2e-bad-image").await?;
        let load = Mixed::start(&stage).await?;
        let nowhere = "localhost/nobody-made-this:dev";
        stops_and_comes_back(&cluster, nowhere, &["ImagePull"]).await?;
        // Given a proxy's flags the lab ends with an error.
        stops_and_comes_back(&cluster, &lab_image(), &["CrashLoopBackOff", "exit code"]).await?;
        load.stop_without_failures().await?;
        stage.strike().await
    });
}

/// Such a proxy takes connections beside the old one of its node until it is found out, so requests do fail here: on one node,
/// for seconds.
#[test]
fn a_proxy_that_is_ready_and_refuses_its_configuration_or_fails_requests_is_found_out_beside_the_old_one() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let refuses = image("weft-proxy-that-refuses");
        stops_and_comes_back(&cluster, &refuses, &["ConfigRejected", "Service lab/pretended"]).await?;
        let fails = image("weft-proxy-that-fails");
        stops_and_comes_back(&cluster, &fails, &["RequestsFail", "50.0 %"]).await
    });
}
