//! What the leader makes of the cluster: each file one kind of object, its desired state a pure function.
//!
//! [`meshconfig`] is the controller that people see: proxies, DNS, finalizer, status. [`shadow`] keeps one shadow Service for
//! each Service in the mesh. Both write through [`crate::apply::Writer`] only. [`problems`] and [`findings`] [`tell`] people what
//! became of what they asked for, by Events. [`own`] follows the single objects that are kept.

pub mod apiservice;
pub mod daemonset;
pub mod dns;
pub mod findings;
pub mod meshconfig;
pub mod own;
pub mod problems;
pub mod proxies;
pub mod rollout;
pub mod shadow;
pub mod status;
pub mod tell;

use std::time::Duration;

use crate::context::Context;
use crate::serve::ca::{self, CaError};

/// How soon the CA is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Reconciles until dropped.
pub async fn run(ctx: Context) {
    ctx.index.synced().await;
    let shadows = shadow::Shadows::default();
    let findings = findings::Findings::default();
    tokio::join!(
        own::follow(&ctx),
        keep_ca(&ctx),
        shadow::run(&ctx, &shadows),
        meshconfig::run(ctx.clone(), shadows.clone(), findings.clone()),
        problems::run(&ctx),
        findings::run(&ctx, &findings)
    );
}

/// The CA comes first: without it no proxy gets a configuration. What else trusts it is told of it. Everything concerned is
/// watched, so that nothing is looked at while nothing changes.
async fn keep_ca(ctx: &Context) {
    let (mut known, mut seen, mut ending) = (ctx.index.ca(), ctx.writer.seen().changes(), ctx.index.ending());
    loop {
        seen.mark_unchanged();
        let now = known.borrow_and_update().clone();
        let kept = if *ending.borrow_and_update() {
            if ctx.smi_metrics { apiservice::remove(ctx).await.map_err(CaError::from) } else { Ok(()) }
        } else {
            match ca::keep(ctx, &now).await {
                Ok(Some(ca)) if ctx.smi_metrics => apiservice::ensure(ctx, &ca).await.map_err(CaError::from),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            }
        };
        if let Err(error) = &kept {
            tracing::warn!(%error, "the CA could not be kept");
        }
        tokio::select! {
            biased;
            _ = known.changed() => {}
            _ = seen.changed() => {}
            _ = ending.changed() => {}
            () = tokio::time::sleep(AGAIN), if kept.is_err() => {}
        }
    }
}
