//! What this replica serves, leader or not: the config stream over TLS, the traffic metrics API, names of the mesh over DNS,
//! the admin port and the debug API.

pub mod admin;
pub mod auth;
pub mod ca;
pub mod debug;
pub mod dns;
pub mod http;
pub mod metrics;
pub mod offered;
pub mod reader;
pub mod stream;
pub mod traffic;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::context::Context;
use ca::Pair;
use reader::ReaderKeys;
use stream::ConfigServer;

/// How soon something that failed is tried again.
const LOOK: Duration = Duration::from_secs(2);
/// How often is looked at what no watch tells of.
const LOOK_AGAIN: Duration = Duration::from_mins(5);
/// When the serving certificate is replaced: well before [`ca::LIFE_DAYS`].
const RENEW: Duration = Duration::from_hours(60 * 24);

/// Serves the config stream on `port` from the moment there is a CA, anew when the CA changes and before the certificate runs
/// out; streams that are open stay so. `serving` says whether callers are taken.
pub async fn config_stream(ctx: Context, port: u16, serving: watch::Sender<bool>, keys: ReaderKeys) {
    let config = ConfigServer::new(
        ctx.client.clone(),
        &ctx.namespace,
        ctx.publisher.clone(),
        Arc::clone(&ctx.metrics),
    );
    let offered = watch::Sender::default();
    let config = Arc::new(
        config
            .telling(&ctx.pod, keys.clone())
            .telling_of_offers(offered.subscribe())
            .in_touch_by(ctx.contact.clone()),
    );
    tokio::join!(offered::follow(&ctx, &offered), serve(&ctx, &config, port, &serving, &keys));
}

async fn serve(
    ctx: &Context,
    config: &Arc<ConfigServer>,
    port: u16,
    serving: &watch::Sender<bool>,
    keys: &ReaderKeys,
) {
    loop {
        let ca = ca_in_force(ctx).await;
        keys.follow(&ca);
        let ended = serve_with(ctx, config, &ca, port, serving).await;
        serving.send_replace(false);
        if let Err(error) = ended {
            tracing::error!(%error, "the config stream is not served");
            sleep(LOOK).await;
        }
    }
}

/// The CA, once there is one.
async fn ca_in_force(ctx: &Context) -> Pair {
    loop {
        let mut known = ctx.index.ca();
        // The index outlives whoever asks it; what the Secret held last serves while somebody has deleted it.
        if let Ok(known) = known.wait_for(|known| known.last.is_some()).await
            && let Some(ca) = known.last.clone()
        {
            return ca;
        }
        sleep(LOOK).await;
    }
}

/// Serves until another certificate is needed.
async fn serve_with(
    ctx: &Context,
    config: &Arc<ConfigServer>,
    ca: &Pair,
    port: u16,
    serving: &watch::Sender<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let pair = ca::issue(ca, &ctx.namespace)?;
    let listener = bind(port).await?;
    serving.send_replace(true);
    tokio::select! {
        ended = Arc::clone(config).serve(listener, &pair) => Ok(ended?),
        () = outdated(ctx, ca) => Ok(()),
    }
}

/// Returns when `ca` is no longer the CA, or what was issued from it just now has become old.
async fn outdated(ctx: &Context, ca: &Pair) {
    let mut known = ctx.index.ca();
    tokio::select! {
        _ = known.wait_for(|known| known.last.as_ref() != Some(ca)) => {
            tracing::info!("the CA changed: serving with a new certificate");
        }
        () = sleep(RENEW) => tracing::info!("serving with a new certificate"),
    }
}

/// Listens on `port` of all addresses, of both families where the node has both.
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}
