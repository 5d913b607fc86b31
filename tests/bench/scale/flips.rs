//! Changes that are seen by traffic: a Service leads to one server or to the other, and a client on every node asks it all
//! the time through the mesh. As in `propagation`. There are several such Services, so that a change that takes long does not hold up
//! the next one, which is somebody else's.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at};
use weft_tests::Result;
use weft_tests::cluster::Cluster;
use weft_tests::exec::PodRef;
use weft_tests::probe::{Change, Probe, now_us};
use weft_tests::traffic::reaches;
use weft_tests::wait::seconds;
use weft_tests::workloads::{self, Server};

use super::figures::millis;

const NS: &str = "bench-scale-flip";
/// How many Services have their turns.
const SERVICES: u32 = 4;
/// How often a client asks each of them, in milliseconds: what asks takes CPU from what is measured.
const EVERY_MS: u32 = 10;

/// Of each change, in milliseconds.
#[derive(Default)]
pub(crate) struct Times {
    /// From when the write was due to the first answer of the last client. One that comes late, since the one before of the same
    /// Service took long, is as late as that.
    pub(crate) seen: Vec<f64>,
    /// Until the API server had answered the write.
    pub(crate) written: Vec<f64>,
    /// From then on to the first answer of the last client; 0: that was there before.
    pub(crate) after: Vec<f64>,
}

pub(crate) struct Flips {
    cluster: Cluster,
    services: Vec<Flip>,
}

/// One Service that changes.
struct Flip {
    cluster: Cluster,
    name: String,
    /// Names and addresses of the servers.
    servers: Vec<(String, String)>,
    probes: Vec<Probe>,
    turn: usize,
}

impl Flips {
    pub(crate) async fn start(cluster: &Cluster) -> Result<Self> {
        workloads::namespace(cluster, NS).await?;
        Server::new("server", 2).deploy(cluster, NS).await?;
        let pods = cluster.api::<Pod>(NS).list(&ListParams::default().labels("app=server")).await?;
        let address = |pod: &Pod| {
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            Ok((pod.name_any(), address.ok_or("a server without an address")?))
        };
        let servers = pods.iter().map(address).collect::<Result<Vec<_>>>()?;
        let clients = workloads::clients(cluster, NS).await?;
        let mut services = Vec::new();
        for number in 0..SERVICES {
            services.push(Flip::start(cluster, format!("flip-{number}"), &servers, &clients).await?);
        }
        Ok(Self { cluster: cluster.clone(), services })
    }

    /// Times `count` changes: without a pause one after the other, else each is due `pause` after the one before.
    pub(crate) async fn time(&mut self, count: usize, pause: Duration) -> Result<Times> {
        if pause.is_zero() {
            return self.services[0].time(count, None).await;
        }
        let (each, began) = (count / self.services.len(), Instant::now());
        let (every, mut turns) = (pause * SERVICES, Vec::new());
        for (flip, first) in self.services.iter_mut().zip(0..) {
            turns.push(flip.time(each, Some((began + pause * first, every))));
        }
        let mut all = Times::default();
        for times in try_join_all(turns).await? {
            all.seen.extend(times.seen);
            all.written.extend(times.written);
            all.after.extend(times.after);
        }
        Ok(all)
    }

    pub(crate) async fn end(self) -> Result {
        for probe in self.services.into_iter().flat_map(|flip| flip.probes) {
            probe.stop().await?;
        }
        workloads::remove_namespace(&self.cluster, NS).await
    }
}

impl Flip {
    async fn start(
        cluster: &Cluster,
        name: String,
        servers: &[(String, String)],
        clients: &[PodRef],
    ) -> Result<Self> {
        let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"name": "http", "port": 80}]}});
        cluster.api::<Service>(NS).create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        let slice = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints(&servers[0].1),
        });
        cluster
            .api::<EndpointSlice>(NS)
            .create(&PostParams::default(), &serde_json::from_value(slice)?)
            .await?;
        let url = format!("http://{name}.{NS}.weft.mesh/");
        let mut probes = Vec::new();
        for client in clients {
            reaches(cluster, client, &url, "server", seconds(60)).await?;
            probes.push(Probe::start_every(cluster, client, &url, EVERY_MS).await?);
        }
        Ok(Self { cluster: cluster.clone(), name, servers: servers.to_vec(), probes, turn: 0 })
    }

    /// Times `count` changes, the first and how long after it the next are due: `None`, when the one before was seen.
    async fn time(&mut self, count: usize, due: Option<(Instant, Duration)>) -> Result<Times> {
        let slices = self.cluster.api::<EndpointSlice>(NS);
        let mut times = Times::default();
        let mut every = due.map(|(first, every)| interval_at(first, every));
        for _ in 0..count {
            let late = match &mut every {
                Some(every) => u64::try_from(every.tick().await.elapsed().as_micros())?,
                None => 0,
            };
            self.turn += 1;
            let (pod, address) = &self.servers[self.turn % 2];
            let before: Vec<_> = self.probes.iter().map(Probe::count).collect();
            let began = now_us()?;
            let patch = Patch::Merge(json!({"endpoints": endpoints(address)}));
            slices.patch(&self.name, &PatchParams::default(), &patch).await?;
            let written = now_us()?;
            let mut last = began;
            for (probe, before) in self.probes.iter().zip(before) {
                let is_it = |change: &Change| change.pod() == Some(pod);
                let seen = probe.sees_after(before, pod, began, seconds(60), is_it).await?;
                last = last.max(seen.answered_us);
            }
            times.seen.push(millis(last - began + late));
            times.written.push(millis(written - began));
            times.after.push(millis(last.saturating_sub(written)));
        }
        Ok(times)
    }
}

fn endpoints(address: &str) -> Value {
    json!([{"addresses": [address], "conditions": {"ready": true}}])
}

/// The smallest that so many per cent do not exceed.
pub(crate) fn percentile(millis: &mut [f64], percent: usize) -> f64 {
    millis.sort_unstable_by(f64::total_cmp);
    millis[(millis.len() * percent).div_ceil(100).max(1) - 1]
}
