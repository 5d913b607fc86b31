//! What the leader makes of the cluster: each file one kind of object, its desired state a pure function.
//!
//! [`meshconfig`] is the controller that people see: proxies, DNS, finalizer, status. [`shadow`] keeps one shadow Service for
//! each Service in the mesh. Both write through [`crate::apply::Writer`] only. [`problems`] and [`findings`] [`tell`] people what
//! became of what they asked for, by Events.

pub mod apiservice;
pub mod daemonset;
pub mod dns;
pub mod findings;
pub mod meshconfig;
pub mod problems;
pub mod proxies;
pub mod rollout;
pub mod shadow;
pub mod status;
pub mod tell;

use std::time::Duration;

use crate::context::Context;
use crate::serve::ca::{self, CaError};

/// Reconciles until dropped.
pub async fn run(ctx: Context) {
    ctx.index.synced().await;
    let shadows = shadow::Shadows::default();
    let findings = findings::Findings::default();
    tokio::join!(
        keep_ca(&ctx),
        shadow::run(&ctx, &shadows),
        meshconfig::run(ctx.clone(), shadows.clone(), findings.clone()),
        problems::run(&ctx),
        findings::run(&ctx, &findings)
    );
}

/// The CA comes first: without it no proxy gets a configuration. What else trusts it is told of it.
async fn keep_ca(ctx: &Context) {
    loop {
        let kept = match ca::ensure(&ctx.client, &ctx.writer, &ctx.namespace).await {
            Ok(ca) if ctx.smi_metrics => apiservice::ensure(ctx, &ca).await.map_err(CaError::from),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        let wait = match kept {
            Ok(()) => Duration::from_secs(300),
            Err(error) => {
                tracing::warn!(%error, "the CA could not be kept");
                Duration::from_secs(2)
            }
        };
        tokio::time::sleep(wait).await;
    }
}
