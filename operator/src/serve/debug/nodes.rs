//! The proxies, as they tell of themselves when they are asked at their admin ports.

use std::time::{Duration, SystemTime};

use hyper::body::Bytes;
use serde::Serialize;
use weft_config::contract::CONFIG_PATH;
use weft_config::status::{ProxyStatus, Rejection};

use super::Debug;
use crate::index::ProxyPod;
use crate::reconcile::proxies::{self, Told};

/// A proxy that holds what was current so long ago, or later, is in step: a change may be on its way.
const IN_STEP: Duration = Duration::from_secs(5);
/// The longest configuration that is passed on: 20,000 Services fit several times.
const LONGEST: usize = 128 << 20;

/// One proxy.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeView {
    node: String,
    address: std::net::IpAddr,
    /// Whether its pod is.
    ready: bool,
    /// Whether it answered; without, the rest is not known and left out.
    answers: bool,
    #[serde(flatten)]
    told: Option<ToldView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldView {
    /// Of the proxy.
    version: String,
    /// Whether it holds the current configuration, or did a moment ago.
    in_sync: bool,
    /// Of what it holds.
    digest: String,
    resources: usize,
    listen_ports: usize,
    /// Whether its stream to an operator is up, and which that is.
    connected: bool,
    operator: Option<String>,
    /// How long ago its configuration last changed; absent: not since it started.
    changed_seconds_ago: Option<u64>,
    /// What it refuses, and why; it keeps what it had.
    rejections: Vec<Rejection>,
}

/// Why a proxy's configuration cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("there is no CA yet, and so no key to ask the proxy of node {0} with; the log says why")]
    NoKey(String),
    #[error("the proxy of node {0} does not answer: {1}")]
    Silent(String, Box<dyn std::error::Error + Send + Sync>),
    #[error("the proxy of node {0} does not know the path: it is older than this operator")]
    Older(String),
    #[error(
        "the proxy of node {0} does not know the key: it has not been connected to an operator of this CA since it started"
    )]
    Refused(String),
    #[error("the proxy of node {0} says {1}: {2}")]
    Said(String, u16, String),
}

/// Every proxy.
pub(super) async fn all(debug: &Debug) -> Vec<NodeView> {
    ask(debug, debug.index.proxies()).await
}

/// Those of `node`: two while one replaces the other.
pub(super) async fn of(debug: &Debug, node: &str) -> Vec<NodeView> {
    ask(debug, on(debug, node)).await
}

/// Ready ones first.
fn on(debug: &Debug, node: &str) -> Vec<ProxyPod> {
    let mut pods: Vec<_> = debug.index.proxies().into_iter().filter(|pod| pod.node == node).collect();
    pods.sort_by_key(|pod| !pod.ready);
    pods
}

async fn ask(debug: &Debug, pods: Vec<ProxyPod>) -> Vec<NodeView> {
    let mut told = proxies::ask_all(pods, &[]).await;
    told.sort_by(|(a, _), (b, _)| (&a.node, a.address).cmp(&(&b.node, b.address)));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    told.into_iter().map(|told| view(debug, told, now)).collect()
}

fn view(debug: &Debug, (pod, status): Told, now: u64) -> NodeView {
    let told = |status: ProxyStatus| ToldView {
        version: status.version,
        in_sync: debug.publisher.is_recent(&status.digest, IN_STEP),
        digest: status.digest,
        resources: status.resources,
        listen_ports: status.listen_ports.len(),
        connected: status.connected,
        operator: Some(status.operator).filter(|pod| !pod.is_empty()),
        changed_seconds_ago: Some(status.changed).filter(|at| *at > 0).map(|at| now.saturating_sub(at)),
        rejections: status.rejections,
    };
    let answers = status.is_some();
    NodeView { node: pod.node, address: pod.address, ready: pod.ready, answers, told: status.map(told) }
}

/// What the proxy of `node` holds, as it says it; `query` is passed on. `None`: there is no proxy.
pub(super) async fn configuration(
    debug: &Debug,
    node: &str,
    query: Option<&str>,
) -> Result<Option<Bytes>, Unreadable> {
    let Some(pod) = on(debug, node).into_iter().next() else { return Ok(None) };
    let key = debug.keys.of(node).ok_or_else(|| Unreadable::NoKey(node.to_owned()))?;
    let path = query.map_or_else(|| CONFIG_PATH.to_owned(), |query| format!("{CONFIG_PATH}?{query}"));
    let (status, body) = proxies::read(pod.address, &path, Some(&key), LONGEST)
        .await
        .map_err(|error| Unreadable::Silent(node.to_owned(), error))?;
    match status.as_u16() {
        200 => Ok(Some(body)),
        401 => Err(Unreadable::Refused(node.to_owned())),
        404 => Err(Unreadable::Older(node.to_owned())),
        status => Err(Unreadable::Said(
            node.to_owned(),
            status,
            String::from_utf8_lossy(&body).trim_end().to_owned(),
        )),
    }
}
