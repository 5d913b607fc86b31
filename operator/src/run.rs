//! What a replica does besides serving: it watches, compiles, takes part in the election and, while it leads, reconciles. The
//! servers are started by `main`; a test starts a replica without them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use weft_crds::MeshConfig;

use crate::context::Context;
use crate::lease::{self, Fence};
use crate::{index, reconcile};

/// How long a removal that is under way holds up the end: longer than it may take, shorter than the pod's grace period.
const REMOVAL: Duration = Duration::from_secs(50);
/// How long giving the Lease back may take.
const RESIGNATION: Duration = Duration::from_secs(6);
/// How long a replica may take to end.
pub const LONGEST_END: Duration = Duration::from_secs(REMOVAL.as_secs() + RESIGNATION.as_secs());

/// A task ended that has no end.
#[derive(Debug, thiserror::Error)]
#[error("a task of the operator ended: {0:?}")]
pub struct Ended(Result<(), JoinError>);

/// Works until told to stop, and has given the Lease back then. Dropped, all it has started ends at its next await. `fence` is
/// the one that `ctx.writer` looks at.
pub async fn replica(ctx: Context, fence: Fence, mut stopping: watch::Receiver<bool>) -> Result<(), Ended> {
    let mut tasks = JoinSet::new();
    index::watch::start(&ctx.index, &ctx.client, &mut tasks);
    tasks.spawn(ctx.publisher.clone().run(ctx.index.clone(), Arc::clone(&ctx.metrics)));
    let (leading_set, leading) = watch::channel(false);
    tasks.spawn(lead(ctx.clone(), leading.clone()));
    let (stop, stopped) = watch::channel(false);
    let (client, namespace, pod) = (ctx.client.clone(), Arc::clone(&ctx.namespace), Arc::clone(&ctx.pod));
    let election = lease::take_part(client, &namespace, lease::NAME, &pod, fence, leading_set, stopped);
    let end = async {
        // Nobody who could tell us is left: that is an end as well.
        let _ = stopping.wait_for(|stopping| *stopping).await;
        finish_removal(&ctx, leading).await;
        stop.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = election => Ok(()),
        Some(ended) = tasks.join_next() => Err(Ended(ended)),
        () = end => Ok(()),
    }
}

/// A leader that removes a mesh finishes first: with it may go the last who has the right to.
async fn finish_removal(ctx: &Context, mut leading: watch::Receiver<bool>) {
    let mut mesh = ctx.index.mesh();
    let removing = |mesh: &Option<Arc<MeshConfig>>| {
        mesh.as_ref().is_some_and(|mesh| mesh.metadata.deletion_timestamp.is_some())
    };
    if !*leading.borrow() || !removing(&mesh.borrow()) {
        return;
    }
    tracing::info!("finishing the removal first");
    let finished = async {
        tokio::select! {
            biased;
            _ = mesh.wait_for(|mesh| !removing(mesh)) => {}
            _ = leading.wait_for(|leads| !*leads) => {}
        }
    };
    if tokio::time::timeout(REMOVAL, finished).await.is_err() {
        tracing::warn!("the removal is not finished; whoever leads next goes on with it");
    }
}

/// Reconciles while this replica leads.
async fn lead(ctx: Context, mut leading: watch::Receiver<bool>) {
    loop {
        if leading.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        ctx.metrics.leading.set(1);
        // Dropped when the lead is lost: whatever was under way stops at its next await, and the fence stops its writes.
        tokio::select! {
            biased;
            _ = leading.wait_for(|leads| !*leads) => {}
            () = reconcile::run(ctx.clone()) => {}
        }
        ctx.metrics.leading.set(0);
    }
}
