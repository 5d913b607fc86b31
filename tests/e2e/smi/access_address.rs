//! An address that is used again is not the former pod's: pods of one account and of another follow each other at the same
//! address, and ask from their first moment on.

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, LogParams};
use weft_tests::clients::ClientPod;
use weft_tests::cluster::{self, Cluster};
use weft_tests::exec::PodRef;
use weft_tests::node::Embedded;
use weft_tests::probe::changes;
use weft_tests::smi::target;
use weft_tests::stage::Stage;
use weft_tests::traffic::{Answer, get};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{address_of, phase};
use weft_tests::{Failure, Result};

use crate::scene;

/// Pods of each account on each node.
const ROUNDS: usize = 6;
/// How many of those that may not call must have had the address of one that might, to prove anything.
const ENOUGH: usize = 5;

/// Where a pod ran and what it printed, once it has ended.
async fn ended(cluster: &Cluster, pod: &PodRef) -> Result<(String, String)> {
    let api = cluster.api::<Pod>(&pod.namespace);
    let address = wait::until(&format!("pod {} has ended", pod.name), seconds(60), async || {
        let object = api.get(&pod.name).await?;
        let status = object.status.clone().unwrap_or_default();
        let state = phase(&object);
        let address = status.pod_ip.unwrap_or_default();
        Ok(Seen::when(status.phase.as_deref() == Some("Succeeded"), address, || state))
    })
    .await?;
    Ok((address, api.logs(&pod.name, &LogParams::default()).await?))
}

/// Deletes a pod and waits until it is gone, its address with it.
async fn remove(cluster: &Cluster, pod: &PodRef) -> Result {
    let api = cluster.api::<Pod>(&pod.namespace);
    api.delete(&pod.name, &DeleteParams::default()).await?;
    wait::until(&format!("pod {} is gone", pod.name), seconds(30), async || {
        let left = api.get_opt(&pod.name).await?;
        Ok(Seen::when(left.is_none(), (), || left.as_ref().map(phase).unwrap_or_default()))
    })
    .await
}

/// What came of a pod that may not call: whether it had the former pod's address, and whether it was told so.
struct Met {
    the_address: bool,
    denial: bool,
}

/// A pod of alice's on `node` and, at its address if may be, one of bob's.
async fn round(stage: &Stage, embedded: &Embedded, node: &str, number: usize) -> Result<Met> {
    let cluster = &stage.cluster;
    let url = stage.url("api", "/");
    let hers = ClientPod::new(&format!("hers-{node}-{number}"), node).account("alice");
    embedded.give_the_first_free_address(node).await?;
    // One that has ended stays as an object with its address, one that is deleted does not; so bob's meets both.
    let former = if number.is_multiple_of(2) {
        // Each waits for her to be known.
        let pod = hers.that_runs(&["get", &url, "-n", "4"]).create(cluster, &stage.ns).await?;
        let (address, printed) = ended(cluster, &pod).await?;
        let answers = printed.lines().filter_map(|line| serde_json::from_str::<Answer>(line).ok());
        let passed = answers.into_iter().any(|answer| answer.status == Some(200));
        assert!(passed, "{}: alice was never allowed: {printed}", pod.name);
        address
    } else {
        let pod = hers.start(cluster, &stage.ns).await?;
        let address = address_of(cluster, &stage.ns, &pod.name).await?;
        let answers = get(cluster, &pod, &url, &[]).await?;
        assert_eq!(answers[0].status, Some(200), "{}: {answers:?}", pod.name);
        remove(cluster, &pod).await?;
        address
    };
    embedded.give_the_first_free_address(node).await?;
    let his = ClientPod::new(&format!("his-{node}-{number}"), node).account("bob");
    let his = his.that_runs(&["probe", &url, "--every-ms", "5", "--seconds", "4"]);
    let his = his.create(cluster, &stage.ns).await?;
    let (address, printed) = ended(cluster, &his).await?;
    let answers = changes(&printed);
    let passed = answers.iter().find(|change| change.pod().is_some());
    assert!(passed.is_none(), "{} passed at {address}; {former} was alice's: {answers:?}", his.name);
    let denial = answers.iter().any(|change| change.error() == Some("status 403"));
    Ok(Met { the_address: address == former, denial })
}

#[test]
fn an_address_used_again_is_not_the_former_pods() {
    let what = "that an address used again is not the former pod's";
    let Some(embedded) = Embedded::needed_for(what) else { return };
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-reuse").await?;
        stage.apply(&[target("alice", &["alice"], "api", &[])]).await?;
        stage.answers("alice", "api", "/", &[], 200).await?;
        let on_node = async |node: &String| {
            let mut met = Vec::new();
            for number in 0..ROUNDS {
                met.push(round(&stage, &embedded, node, number).await?);
            }
            Ok::<_, Failure>(met)
        };
        let met: Vec<_> =
            try_join_all(cluster.nodes.iter().take(2).map(on_node)).await?.into_iter().flatten().collect();
        let reused = met.iter().filter(|met| met.the_address).count();
        let denied = met.iter().filter(|met| met.denial).count();
        eprintln!("  {} pods: {reused} had the address of the one before; {denied} were told 403", met.len());
        assert!(reused >= ENOUGH, "only {reused} of {} addresses were used again", met.len());
        assert!(denied >= ENOUGH, "only {denied} of {} were denied, the others never asked", met.len());
        stage.strike().await
    });
}
