//! Changes that are seen by traffic: a Service leads to one server or to the other, and a client on every node asks it all
//! the time through the mesh. As in `propagation`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use weft_tests::Result;
use weft_tests::cluster::Cluster;
use weft_tests::probe::{Probe, now_us};
use weft_tests::traffic::reaches;
use weft_tests::wait::seconds;
use weft_tests::workloads::{self, Server};

use super::figures::millis;

const NS: &str = "bench-scale-flip";
/// How often the clients ask, in milliseconds.
const EVERY_MS: u32 = 5;

/// Of each change, in milliseconds.
#[derive(Default)]
pub(crate) struct Times {
    /// From when the write was due to the first answer of the last client. One that comes late since the one before took long is as
    /// late as that.
    pub(crate) seen: Vec<f64>,
    /// Until the API server had answered the write.
    pub(crate) written: Vec<f64>,
    /// From then on to the first answer of the last client; 0: that was there before.
    pub(crate) after: Vec<f64>,
}

pub(crate) struct Flips {
    cluster: Cluster,
    /// Names and addresses of the servers.
    servers: Vec<(String, String)>,
    probes: Vec<Probe>,
    turn: usize,
}

impl Flips {
    pub(crate) async fn start(cluster: &Cluster) -> Result<Self> {
        workloads::namespace(cluster, NS).await?;
        Server::new("server", 2).deploy(cluster, NS).await?;
        let service =
            json!({"metadata": {"name": "flip"}, "spec": {"ports": [{"name": "http", "port": 80}]}});
        cluster.api::<Service>(NS).create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        let pods = cluster.api::<Pod>(NS).list(&ListParams::default().labels("app=server")).await?;
        let address = |pod: &Pod| {
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            Ok((pod.name_any(), address.ok_or("a server without an address")?))
        };
        let servers = pods.iter().map(address).collect::<Result<Vec<_>>>()?;
        let slice = json!({
            "metadata": {"name": "flip", "labels": {"kubernetes.io/service-name": "flip"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints(&servers[0].1),
        });
        cluster
            .api::<EndpointSlice>(NS)
            .create(&PostParams::default(), &serde_json::from_value(slice)?)
            .await?;
        let url = format!("http://flip.{NS}.weft.mesh/");
        let mut probes = Vec::new();
        for client in &workloads::clients(cluster, NS).await? {
            reaches(cluster, client, &url, "server", seconds(60)).await?;
            probes.push(Probe::start_every(cluster, client, &url, EVERY_MS).await?);
        }
        Ok(Self { cluster: cluster.clone(), servers, probes, turn: 0 })
    }

    /// Times `count` changes, each `pause` after the one before.
    pub(crate) async fn time(&mut self, count: usize, pause: Duration) -> Result<Times> {
        let slices = self.cluster.api::<EndpointSlice>(NS);
        let mut times = Times::default();
        let mut every = tokio::time::interval(pause.max(Duration::from_millis(1)));
        for _ in 0..count {
            let due = every.tick().await;
            self.turn += 1;
            let (pod, address) = &self.servers[self.turn % 2];
            let before: Vec<_> = self.probes.iter().map(Probe::count).collect();
            let began = now_us()?;
            // Without a pause each is due when the one before was seen.
            let late = if pause.is_zero() { 0 } else { u64::try_from(due.elapsed().as_micros())? };
            let patch = Patch::Merge(json!({"endpoints": endpoints(address)}));
            slices.patch("flip", &PatchParams::default(), &patch).await?;
            let written = now_us()?;
            let mut last = began;
            for (probe, before) in self.probes.iter().zip(before) {
                let is_it = |change: &weft_tests::probe::Change| change.pod() == Some(pod);
                let seen = probe.sees_after(before, pod, began, seconds(60), is_it).await?;
                last = last.max(seen.answered_us);
            }
            times.seen.push(millis(last - began + late));
            times.written.push(millis(written - began));
            times.after.push(millis(last.saturating_sub(written)));
        }
        Ok(times)
    }

    pub(crate) async fn end(self) -> Result {
        for probe in self.probes {
            probe.stop().await?;
        }
        workloads::remove_namespace(&self.cluster, NS).await
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
