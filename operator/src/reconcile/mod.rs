//! What the leader makes of the cluster: each file one kind of object, its desired state a pure function.
//!
//! [`meshconfig`] is the controller that people see: proxies, DNS, finalizer, status. [`shadow`] keeps one shadow Service for
//! each Service in the mesh. [`problems`] tells owners what could not be understood. The first two write through [`crate::apply::Writer`] only.

pub mod daemonset;
pub mod dns;
pub mod meshconfig;
pub mod problems;
pub mod proxies;
pub mod shadow;
pub mod status;

use std::time::Duration;

use crate::context::Context;
use crate::serve::ca;

/// Reconciles until dropped.
pub async fn run(ctx: Context) {
    ctx.index.synced().await;
    let shadows = shadow::Shadows::default();
    tokio::join!(
        keep_ca(&ctx),
        shadow::run(&ctx, &shadows),
        meshconfig::run(ctx.clone(), shadows.clone()),
        problems::run(&ctx)
    );
}

/// The CA comes first: without it no proxy gets a configuration.
async fn keep_ca(ctx: &Context) {
    loop {
        let wait = match ca::ensure(&ctx.client, &ctx.writer, &ctx.namespace).await {
            Ok(_) => Duration::from_secs(300),
            Err(error) => {
                tracing::warn!(%error, "the CA could not be kept");
                Duration::from_secs(2)
            }
        };
        tokio::time::sleep(wait).await;
    }
}
