//! What a replica does besides serving: it watches, compiles, takes part in the election and, while it leads, reconciles. The
//! servers are started by `main`; a test starts a replica without them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::context::Context;
use crate::lease::{self, Fence};
use crate::{index, reconcile};

/// How long a removal that is under way holds up the end: longer than it may take, shorter than the pod's grace period.
const REMOVAL: Duration = Duration::from_secs(50);
/// How long giving the Lease back may take.
const RESIGNATION: Duration = Duration::from_secs(6);
/// How long a replica may take to end.
pub const LONGEST_END: Duration =
    Duration::from_secs(REMOVAL.as_secs() + RESIGNATION.as_secs() + LINGERING.as_secs());
/// For so long a replica answers that does nothing else any more: kube-proxy still sends DNS queries, questions for traffic and
/// proxies to who has been told to end, and a query that is lost costs its asker seconds.
pub const LINGERING: Duration = Duration::from_secs(5);

/// A task ended that has no end.
#[derive(Debug, thiserror::Error)]
#[error("a task of the operator ended: {0:?}")]
pub struct Ended(Result<(), JoinError>);

/// Works until told to stop, gives the Lease back then, and is up to date for `lingering` more. Dropped, all it has started ends at
/// its next await. `fence` is the one that `ctx.writer` looks at.
pub async fn replica(
    ctx: Context,
    fence: Fence,
    mut stopping: watch::Receiver<bool>,
    lingering: Duration,
) -> Result<(), Ended> {
    let mut tasks = JoinSet::new();
    index::watch::start(&ctx.index, &ctx.client, &mut tasks);
    tasks.spawn(ctx.publisher.clone().run(ctx.index.clone(), Arc::clone(&ctx.metrics)));
    let (leading_set, leading) = watch::channel(false);
    tasks.spawn(lead(ctx.clone(), leading.clone()));
    let (stop, stopped) = watch::channel(false);
    let (client, namespace, pod) = (ctx.client.clone(), Arc::clone(&ctx.namespace), Arc::clone(&ctx.pod));
    let contact = ctx.contact.clone();
    let work = async move {
        let leads = leading_set.clone();
        lease::take_part(client, &namespace, &pod, fence, contact, leads, stopped).await;
        // Who is told how that stands waits on until the end.
        let _leading_set = leading_set;
        tokio::time::sleep(lingering).await;
    };
    let end = async {
        // Nobody who could tell us is left: that is an end as well.
        let _ = stopping.wait_for(|stopping| *stopping).await;
        finish_removal(&ctx, leading).await;
        stop.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = work => Ok(()),
        Some(ended) = tasks.join_next() => Err(Ended(ended)),
        () = end => Ok(()),
    }
}

/// A leader that removes a mesh finishes first: with it may go the last who has the right to.
async fn finish_removal(ctx: &Context, mut leading: watch::Receiver<bool>) {
    let mut leaving = ctx.index.leaving();
    if !*leading.borrow() || !*leaving.borrow() {
        return;
    }
    tracing::info!("finishing the removal first");
    let finished = async {
        tokio::select! {
            biased;
            _ = leaving.wait_for(|leaving| !*leaving) => {}
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
        ctx.metrics.conditions.clear();
    }
}
