//! Services without pods, by the thousand.

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use weft_tests::cluster::Cluster;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::{Failure, Result};

/// Services of one namespace.
const OF_NAMESPACE: usize = 1000;
/// Endpoints of each.
const ENDPOINTS: usize = 5;
/// Requests on their way at a time.
const AT_A_TIME: usize = 24;
/// A label of every namespace made here.
const LABEL: &str = "weft-bench-scale";

/// The namespace of the Service with this number.
pub(crate) fn namespace_of(number: usize) -> String {
    format!("bench-scale-{}", number / OF_NAMESPACE)
}

/// The name of that Service, and of its slice.
pub(crate) fn name_of(number: usize) -> String {
    format!("service-{number:05}")
}

/// Its endpoints; with a `spare` one of them is another. Nobody has these addresses (RFC 6598).
pub(crate) fn endpoints_of(number: usize, spare: Option<usize>, nodes: &[String]) -> Value {
    let endpoint = |one: usize| {
        let (first, host) = match spare.filter(|_| one == 0) {
            Some(spare) => (112, spare % (1 << 20)),
            None => (64, number * 8 + one),
        };
        let address = format!("100.{}.{}.{}", first + (host >> 16), (host >> 8) & 255, host & 255);
        json!({"addresses": [address], "conditions": {"ready": true}, "nodeName": nodes[one % nodes.len()]})
    };
    (0..ENDPOINTS).map(endpoint).collect()
}

/// There are `services` of them, those that were there included.
pub(crate) async fn add(cluster: &Cluster, services: usize) -> Result {
    let mut there = 0;
    for number in (0..services).step_by(OF_NAMESPACE) {
        there += in_namespace(cluster, &namespace_of(number)).await?;
    }
    let made = stream::iter(there..services).map(|number| make(cluster, number)).buffer_unordered(AT_A_TIME);
    let progress = |done: usize, ()| async move {
        if (there + done + 1).is_multiple_of(1000) {
            eprintln!("  {} of {services}", there + done + 1);
        }
        Ok::<_, Failure>(done + 1)
    };
    made.try_fold(0, progress).await?;
    Ok(())
}

/// How many there are; the namespace is made if there is none.
async fn in_namespace(cluster: &Cluster, name: &str) -> Result<usize> {
    let namespaces = cluster.all::<Namespace>();
    if namespaces.get_opt(name).await?.is_none() {
        let object = json!({"metadata": {"name": name, "labels": {LABEL: "true"}}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        return Ok(0);
    }
    let list = cluster.api::<EndpointSlice>(name).list_metadata(&ListParams::default()).await?;
    Ok(list.items.iter().filter(|slice| slice.name_any().starts_with("service-")).count())
}

/// The slice is the last of it: whoever counts slices counts what is whole.
async fn make(cluster: &Cluster, number: usize) -> Result {
    let (namespace, name) = (namespace_of(number), name_of(number));
    let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"name": "http", "port": 80}]}});
    let created = cluster
        .api::<Service>(&namespace)
        .create(&PostParams::default(), &serde_json::from_value(service)?)
        .await;
    match created {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error.into()),
    }
    let slice = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints_of(number, None, &cluster.nodes),
    });
    cluster
        .api::<EndpointSlice>(&namespace)
        .create(&PostParams::default(), &serde_json::from_value(slice)?)
        .await?;
    Ok(())
}

/// All of them go.
pub(crate) async fn remove(cluster: &Cluster) -> Result {
    let namespaces = cluster.all::<Namespace>();
    let ours = ListParams::default().labels(LABEL);
    for namespace in namespaces.list(&ours).await? {
        let name = namespace.name_any();
        let all = ListParams::default();
        cluster.api::<Service>(&name).delete_collection(&DeleteParams::default(), &all).await?;
        cluster.api::<EndpointSlice>(&name).delete_collection(&DeleteParams::default(), &all).await?;
        namespaces.delete(&name, &DeleteParams::default()).await?;
    }
    wait::until_every(seconds(1), "the namespaces are gone", seconds(600), async || {
        let left = namespaces.list(&ours).await?.items.len();
        Ok(Seen::when(left == 0, (), || format!("{left} are left")))
    })
    .await
}
