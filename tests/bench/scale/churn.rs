//! Changes that come all the time: 50 endpoints a second, each of another Service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use weft_tests::Result;
use weft_tests::cluster::Cluster;
use weft_tests::probe::now_us;

use super::fill;

const EVERY: Duration = Duration::from_millis(20);
/// On their way at a time: two seconds of them. An API server that pauses for a moment may make up for it.
const AT_A_TIME: usize = 100;
/// Of a hundred changes that there should be, so many are enough.
const PER_CENT: usize = 90;
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

    /// How many changes there were. An error when one failed, or when the API server could not bear as many.
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
    let room = Arc::new(Semaphore::new(AT_A_TIME));
    let (began, mut changes, mut turn) = (Instant::now(), Vec::new(), 0);
    while !stop.load(SeqCst) {
        tick.tick().await;
        turn += 1;
        let (cluster, room) = (cluster.clone(), Arc::clone(&room).acquire_owned().await?);
        changes.push(tokio::spawn(async move {
            let changed = change(&cluster, turn * STEP % services, seed + turn).await;
            drop(room);
            changed
        }));
    }
    let due = usize::try_from(began.elapsed().as_millis() / EVERY.as_millis())?;
    if turn * 100 < due * PER_CENT {
        return Err(format!("the API server bore {turn} changes of {due}").into());
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
