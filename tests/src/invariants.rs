//! What must hold of a mesh whenever nothing is broken, whatever was before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::Result;
use crate::cluster::{Cluster, dns};
use crate::faults::passes;
use crate::mesh;
use crate::stage::Stage;
use crate::traffic::{self, Queries};
use crate::wait::{self, Seen, seconds};
use crate::workloads;

/// How the first line of our block in a Corefile begins.
const BEGIN: &str = "# BEGIN weft.mesh";

/// Waits until all of it holds on a stage on which each of `apps` is served by a Service of its name.
pub async fn hold(stage: &Stage, apps: &[&str], deadline: Duration) -> Result {
    wait::until("the mesh is as it should be", deadline, async || {
        let wrong = broken(stage, apps).await?;
        Ok(Seen::when(wrong.is_empty(), (), || wrong.join("; ")))
    })
    .await
}

/// A Service made now has its shadow within `limit`: somebody writes.
pub async fn somebody_writes(cluster: &Cluster, ns: &str, name: &str, limit: Duration) -> Result {
    let began = Instant::now();
    wait::until("the API server takes a Service", limit, async || {
        // Where the answer to an earlier try was lost it is there.
        match workloads::service(cluster, ns, name, "none", &[("http", 80, json!(80))]).await {
            Err(error) if !is_there(&*error) => Err(error),
            _ => Ok(Seen::Done(())),
        }
    })
    .await?;
    wait::until(&format!("{name} has its shadow"), limit + seconds(30), async || {
        let shadow = mesh::shadow_of(cluster, ns, name).await?;
        Ok(Seen::when(shadow.is_some(), (), || "none".to_owned()))
    })
    .await?;
    let took = began.elapsed();
    eprintln!("  {name}: {:.1} s", took.as_secs_f64());
    assert!(took <= limit, "{name}: nobody wrote for {took:?}");
    Ok(())
}

fn is_there(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 409)
}

/// A Service made now has its shadow, and every DNS pod knows its mesh name, whatever was before: a DNS pod that lost its watches
/// begins them again up to half a minute late, and until then tells whoever asks that a new name does not exist.
pub async fn is_seen_again(stage: &Stage, limit: Duration) -> Result {
    somebody_writes(&stage.cluster, &stage.ns, "after", limit).await?;
    let name = format!("after.{}.weft.mesh", stage.ns);
    wait::until("every DNS pod knows a new Service", seconds(90), async || {
        let queries = Queries::start(&stage.cluster, stage.client(), 20, &[&name]).await?;
        passes(seconds(2)).await?;
        let report = queries.stop().await?;
        Ok(Seen::when(report.sent > 20 && report.failed == 0, (), || format!("{report:?}")))
    })
    .await
}

/// What does not hold.
async fn broken(stage: &Stage, apps: &[&str]) -> Result<Vec<String>> {
    let mut wrong = conditions(stage).await?;
    wrong.extend(shadows(stage).await?);
    let blocks = dns::corefile(&stage.cluster).await?.matches(BEGIN).count();
    if blocks != 1 {
        wrong.push(format!("the Corefile has our block {blocks} times"));
    }
    wrong.extend(proxies(stage).await?);
    if wrong.is_empty() {
        wrong.extend(answers(stage, apps).await?);
    }
    Ok(wrong)
}

async fn conditions(stage: &Stage) -> Result<Vec<String>> {
    let status = mesh::status(&stage.cluster).await?;
    let wanted = [
        ("Ready", "True"),
        ("ProxiesReady", "True"),
        ("DNSConfigured", "True"),
        ("ConfigSynced", "True"),
        ("Degraded", "False"),
    ];
    let is = |(kind, wanted): (&str, &str)| {
        let is = mesh::condition(&status, kind);
        (is != Some(wanted)).then(|| format!("{kind} is {is:?}: {}", status["conditions"]))
    };
    Ok(wanted.into_iter().filter_map(is).collect())
}

/// One shadow for each Service of the stage, none for what is not there, and no listen port twice in the whole mesh.
async fn shadows(stage: &Stage) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let services = stage.cluster.api::<Service>(&stage.ns).list(&ListParams::default()).await?;
    let services: BTreeSet<_> = services.iter().map(ResourceExt::name_any).collect();
    let of_stage = ListParams::default().labels(&format!("weft.mesh/service-namespace={}", stage.ns));
    let shadows = stage.cluster.api::<Service>(mesh::NAMESPACE).list(&of_stage).await?;
    let mut stand_for: BTreeMap<String, u32> = BTreeMap::new();
    for shadow in &shadows {
        let service = shadow.labels().get("weft.mesh/service-name").cloned().unwrap_or_default();
        *stand_for.entry(service).or_default() += 1;
    }
    for service in &services {
        if stand_for.remove(service) != Some(1) {
            wrong.push(format!("{service} does not have one shadow"));
        }
    }
    wrong.extend(stand_for.into_keys().map(|gone| format!("a shadow of {gone}, which is not there")));
    let ports = mesh::ports(&stage.cluster).await?;
    let distinct: BTreeSet<_> = ports.values().collect();
    if distinct.len() != ports.len() {
        wrong.push(format!("a listen port is used twice: {ports:?}"));
    }
    Ok(wrong)
}

async fn proxies(stage: &Stage) -> Result<Vec<String>> {
    let pods = mesh::proxies(&stage.cluster).await?;
    let staying = pods
        .iter()
        .filter(|pod| crate::workloads::is_ready(pod) && pod.metadata.deletion_timestamp.is_none());
    let (ready, nodes) = (staying.count(), stage.cluster.nodes.len());
    Ok(if ready == nodes { vec![] } else { vec![format!("{ready} proxies are ready on {nodes} nodes")] })
}

/// From every node each mesh name leads to the Service it names, through that node's proxy.
async fn answers(stage: &Stage, apps: &[&str]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (client, node) in stage.clients.iter().zip(&stage.cluster.nodes) {
        for app in apps {
            let answer = traffic::get(&stage.cluster, client, &stage.url(app, "/"), &[]).await?.pop();
            let right = answer.as_ref().is_some_and(|answer| {
                answer.status == Some(200) && answer.told("app") == *app && answer.node() == Some(node)
            });
            if !right {
                wrong.push(format!("{app} from {node}: {answer:?}"));
            }
        }
    }
    Ok(wrong)
}
