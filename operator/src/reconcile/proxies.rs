//! Asks every proxy pod, at its admin port, what it holds, whichever replica serves its stream. [`crate::traffic`] asks them
//! in the same way who called whom.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use weft_config::contract::{ADMIN_PORT, STATUS_PATH};
use weft_config::status::ProxyStatus;

use crate::index::ProxyPod;

/// How long a proxy may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long for something long.
const LONGER_PATIENCE: Duration = Duration::from_secs(10);
/// How many are asked at a time.
const AT_A_TIME: usize = 32;
/// The longest answer that is read: every port of a full range and many rejections fit.
const LONGEST: usize = 4 << 20;

/// One proxy and what it said; `None` when it did not answer.
pub type Told<T = ProxyStatus> = (ProxyPod, Option<T>);

/// Asks all of `pods` what they hold.
pub async fn ask_all(pods: Vec<ProxyPod>) -> Vec<Told> {
    ask_each(pods, STATUS_PATH, LONGEST).collect().await
}

/// Asks each of `pods` for what is at `path`, in no order; an answer may have `longest` bytes.
pub fn ask_each<T: DeserializeOwned>(
    pods: Vec<ProxyPod>,
    path: &'static str,
    longest: usize,
) -> impl Stream<Item = Told<T>> {
    let ask = move |pod: ProxyPod| async move {
        let told = tokio::time::timeout(PATIENCE, ask(pod.address, path, longest)).await;
        let told = told.map_err(Into::into).and_then(|told| told);
        let told = told
            .inspect_err(|error| tracing::debug!(node = pod.node, %error, "a proxy does not answer"))
            .ok();
        (pod, told)
    };
    stream::iter(pods).map(ask).buffer_unordered(AT_A_TIME)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn ask<T: DeserializeOwned>(address: IpAddr, path: &str, longest: usize) -> Result<T, Failure> {
    Ok(serde_json::from_slice(&exchange(address, path, None, longest).await?.1)?)
}

/// What the proxy at `address` answers who asks for `path` with this key; at most `longest` bytes.
pub async fn read(
    address: IpAddr,
    path: &str,
    key: Option<&str>,
    longest: usize,
) -> Result<(StatusCode, Bytes), Failure> {
    tokio::time::timeout(LONGER_PATIENCE, exchange(address, path, key, longest)).await?
}

async fn exchange(
    address: IpAddr,
    path: &str,
    key: Option<&str>,
    longest: usize,
) -> Result<(StatusCode, Bytes), Failure> {
    let stream = TcpStream::connect(SocketAddr::new(address, ADMIN_PORT)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(path).header("host", "weft-proxy");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), longest).collect().await?;
        Ok::<_, Failure>((status, body.to_bytes()))
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => Err(ended.err().map_or_else(|| "the connection ended".into(), Into::into)),
    }
}

/// Every listen port that any proxy holds. `None` when one did not answer: it may hold any.
pub fn held_ports(told: &[Told]) -> Option<BTreeSet<u16>> {
    let statuses: Option<Vec<_>> = told.iter().map(|(_, status)| status.as_ref()).collect();
    Some(statuses?.iter().flat_map(|status| status.listen_ports.iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_proxy_leaves_every_port_in_doubt() {
        let pod = ProxyPod { node: "n".into(), address: [10, 0, 0, 1].into(), ready: true };
        let status = ProxyStatus { listen_ports: vec![1, 2], ..ProxyStatus::default() };
        assert_eq!(held_ports(&[(pod.clone(), Some(status.clone()))]), Some(BTreeSet::from([1, 2])));
        assert_eq!(held_ports(&[(pod.clone(), Some(status)), (pod, None)]), None);
        assert_eq!(held_ports(&[]), Some(BTreeSet::new()), "no proxy holds nothing");
    }
}
