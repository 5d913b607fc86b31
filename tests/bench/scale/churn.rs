//! Changes that come all the time: 50 endpoints a second, each of another Service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use weft_tests::Result;
use weft_tests::cluster::Cluster;
use weft_tests::probe::now_us;

use super::fill;

const EVERY: Duration = Duration::from_millis(20);
/// Steps from Service to Service: no divisor of their number, so that every one has its turn.
const STEP: usize = 7919;

pub(crate) struct Churn {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<usize>>,
}

impl Churn {
    pub(crate) fn start(cluster: &Cluster, services: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(run(cluster.clone(), services, Arc::clone(&stop)));
        Self { stop, task }
    }

    /// How many changes there were. An error when one failed, or when half of them or more could not be made in time.
    pub(crate) async fn stop(self) -> Result<usize> {
        self.stop.store(true, SeqCst);
        self.task.await?
    }
}

async fn run(cluster: Cluster, services: usize, stop: Arc<AtomicBool>) -> Result<usize> {
    let mut tick = interval(EVERY);
    // What is late is made up for: the rate is the claim.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    // Others than those an earlier run has left.
    let seed = usize::try_from(now_us()? / 1_000_000 * 50)?;
    let under_way = Arc::new(AtomicUsize::new(0));
    let mut changes = Vec::new();
    let mut turn = 0;
    while !stop.load(SeqCst) {
        tick.tick().await;
        turn += 1;
        if under_way.load(SeqCst) >= 50 {
            return Err("the API server is a second behind with 50 changes a second".into());
        }
        under_way.fetch_add(1, SeqCst);
        let (cluster, under_way) = (cluster.clone(), Arc::clone(&under_way));
        changes.push(tokio::spawn(async move {
            let changed = change(&cluster, turn * STEP % services, seed + turn).await;
            under_way.fetch_sub(1, SeqCst);
            changed
        }));
    }
    for changed in join_all(changes).await {
        changed??;
    }
    Ok(turn)
}

async fn change(cluster: &Cluster, number: usize, spare: usize) -> Result {
    let patch = json!({"endpoints": fill::endpoints_of(number, Some(spare), &cluster.nodes)});
    let slices = cluster.api::<EndpointSlice>(&fill::namespace_of(number));
    slices.patch(&fill::name_of(number), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}
