//! Time from a change of an EndpointSlice to the last proxy using it, measured by traffic: a Service without selector whose
//! slice is flipped between two servers, while a prober on every node asks by the mesh name every other millisecond. A
//! flip is done when the last prober has had its first answer from the new server.
//!
//! Flips are counted from just before the write is sent, so that the API server's part is in the figure. All pods of the
//! embedded cluster share this machine's clock; on another cluster the figure includes the difference of clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde::Deserialize;
use serde_json::{Value, json};
use weft_tests::cluster::{self, Cluster};
use weft_tests::exec::{self, Session};
use weft_tests::traffic::reaches;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{self, Server};
use weft_tests::{Result, mesh};

/// Flips that are measured.
const FLIPS: usize = 200;
const NS: &str = "bench-propagation";

/// One line of `weft-lab probe`.
#[derive(Debug, Deserialize)]
struct Change {
    answered_us: u64,
    answer: Value,
}

/// What one flip took, in microseconds: until the API server had answered, and until the last proxy used it.
struct Flip {
    written: u64,
    used: u64,
}

fn main() -> Result {
    cluster::run(|cluster| async move {
        mesh::installed(&cluster).await?;
        workloads::namespace(&cluster, NS).await?;
        let servers = servers(&cluster).await?;
        let slices = cluster.api::<EndpointSlice>(NS);
        slices.create(&PostParams::default(), &serde_json::from_value(slice(&servers[0].1))?).await?;
        let url = format!("http://flip.{NS}.weft.mesh/");
        let clients = workloads::clients(&cluster, NS).await?;
        let mut probers = Vec::new();
        for client in &clients {
            reaches(&cluster, client, &url, "server", seconds(30)).await?;
            let command = ["/weft-lab", "probe", &url, "--every-ms", "2", "--until-stdin"].map(str::to_owned);
            probers.push(exec::start(&cluster, client, &command).await?);
        }
        all_see(&probers, &servers[0].0, 0).await?;

        let mut flips = Vec::new();
        for number in 1..=FLIPS {
            let (pod, address) = &servers[number % 2];
            let began = unix_micros()?;
            let patch = Patch::Merge(json!({ "endpoints": endpoints(address) }));
            slices.patch("flip", &PatchParams::default(), &patch).await?;
            let written = unix_micros()? - began;
            let used = all_see(&probers, pod, began).await? - began;
            flips.push(Flip { written, used });
            if number % 20 == 0 {
                eprintln!("{number} of {FLIPS}, the last took {:.1} ms", millis(used));
            }
        }
        for mut prober in probers {
            prober.tell_to_end().await?;
            prober.output().await?;
        }
        workloads::remove_namespace(&cluster, NS).await?;
        report(&flips)
    })
}

/// Two server pods and a Service that selects neither; names and addresses of the pods.
async fn servers(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    Server::new("server", 2).deploy(cluster, NS).await?;
    let service =
        json!({ "metadata": { "name": "flip" }, "spec": { "ports": [{ "name": "http", "port": 80 }] } });
    cluster.api::<Service>(NS).create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let pods = cluster.api::<Pod>(NS).list(&ListParams::default().labels("app=server")).await?;
    pods.iter()
        .map(|pod| {
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            Ok((pod.name_any(), address.ok_or("a server without an address")?))
        })
        .collect()
}

fn slice(address: &str) -> Value {
    json!({
        "metadata": { "name": "flip", "labels": { "kubernetes.io/service-name": "flip" } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": endpoints(address),
    })
}

fn endpoints(address: &str) -> Value {
    json!([{ "addresses": [address], "conditions": { "ready": true } }])
}

/// Waits until `pod` has answered every prober since `since`; the time of the last first answer.
async fn all_see(probers: &[Session], pod: &str, since: u64) -> Result<u64> {
    wait::until_every(Duration::from_millis(5), &format!("{pod} answers all"), seconds(20), async || {
        let mut last = 0;
        for prober in probers {
            let printed = prober.printed();
            let changes = printed.lines().filter_map(|line| serde_json::from_str::<Change>(line).ok());
            let first =
                changes.into_iter().find(|change| change.answered_us >= since && change.answer["pod"] == pod);
            match first {
                Some(change) => last = last.max(change.answered_us),
                None => return Ok(Seen::NotYet(printed.lines().last().unwrap_or_default().to_owned())),
            }
        }
        Ok(Seen::Done(last))
    })
    .await
}

fn unix_micros() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}

fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1000.0
}

/// The smallest that so many per cent do not exceed, in milliseconds.
fn percentile(micros: &mut [u64], percent: usize) -> f64 {
    micros.sort_unstable();
    millis(micros[(micros.len() * percent).div_ceil(100).max(1) - 1])
}

fn report(flips: &[Flip]) -> Result {
    let mut used: Vec<_> = flips.iter().map(|flip| flip.used).collect();
    let mut written: Vec<_> = flips.iter().map(|flip| flip.written).collect();
    let figures = |of: &mut Vec<u64>| json!({ "p50_ms": percentile(of, 50), "p99_ms": percentile(of, 99), "max_ms": percentile(of, 100) });
    let result = json!({
        "changes": flips.len(),
        "until_the_last_proxy_uses_it": figures(&mut used),
        "of_which_until_the_api_server_answered": figures(&mut written),
    });
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/propagation.json");
    std::fs::create_dir_all(file.parent().ok_or("no directory")?)?;
    std::fs::write(&file, format!("{result:#}\n"))?;
    println!("{result:#}");
    Ok(())
}
