//! Asks every proxy pod, at its admin port, what it holds, whichever replica serves its stream. [`crate::traffic`] asks them
//! in the same way who called whom.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use weft_config::ServiceId;
use weft_config::contract::{ADMIN_PORT, HOLDERS_OF, STATUS_PATH};
use weft_config::status::ProxyStatus;

use crate::index::ProxyPod;
use crate::ports::HeldFor;

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

/// Asks all of `pods` what they hold, and for whom they hold these listen ports.
pub async fn ask_all(pods: Vec<ProxyPod>, holders_of: &[u16]) -> Vec<Told> {
    let path = if holders_of.is_empty() {
        STATUS_PATH.to_owned()
    } else {
        let ports: Vec<_> = holders_of.iter().map(u16::to_string).collect();
        format!("{STATUS_PATH}?{HOLDERS_OF}{}", ports.join(","))
    };
    ask_each(pods, path, LONGEST).collect().await
}

/// Asks each of `pods` for what is at `path`, in no order; an answer may have `longest` bytes.
pub fn ask_each<T: DeserializeOwned>(
    pods: Vec<ProxyPod>,
    path: impl Into<Arc<str>>,
    longest: usize,
) -> impl Stream<Item = Told<T>> {
    let path = path.into();
    let ask = move |pod: ProxyPod| {
        let path = Arc::clone(&path);
        async move { ask_one(pod, &path, longest).await }
    };
    stream::iter(pods).map(ask).buffer_unordered(AT_A_TIME)
}

async fn ask_one<T: DeserializeOwned>(pod: ProxyPod, path: &str, longest: usize) -> Told<T> {
    let told = tokio::time::timeout(PATIENCE, ask(pod.address, path, longest)).await;
    let told = told.map_err(Into::into).and_then(|told| told);
    let told =
        told.inspect_err(|error| tracing::debug!(node = pod.node, %error, "a proxy does not answer")).ok();
    (pod, told)
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

/// For whom the proxies hold those listen ports that they were asked for. `None` when one did not answer.
pub fn held_for(told: &[Told]) -> Option<HeldFor> {
    let mut held_for = HeldFor::new();
    for (_, status) in told {
        let status = status.as_ref()?;
        let said: BTreeMap<_, _> = status.holders.iter().map(|one| (one.listen_port, one)).collect();
        for listen_port in &status.listen_ports {
            let holder = said
                .get(listen_port)
                .map(|holder| (ServiceId::new(holder.namespace.as_str(), holder.name.as_str()), holder.port));
            match held_for.entry(*listen_port) {
                Entry::Vacant(entry) => _ = entry.insert(holder),
                Entry::Occupied(mut entry) if *entry.get() != holder => _ = entry.insert(None),
                Entry::Occupied(_) => {}
            }
        }
    }
    Some(held_for)
}

#[cfg(test)]
mod tests {
    use weft_config::status::Holder;

    use super::*;

    #[test]
    fn a_silent_proxy_leaves_every_port_in_doubt() {
        let pod = ProxyPod { node: "n".into(), address: [10, 0, 0, 1].into(), ready: true };
        let status = ProxyStatus { listen_ports: vec![1, 2], ..ProxyStatus::default() };
        assert_eq!(held_ports(&[(pod.clone(), Some(status.clone()))]), Some(BTreeSet::from([1, 2])));
        assert_eq!(held_ports(&[(pod.clone(), Some(status)), (pod, None)]), None);
        assert_eq!(held_ports(&[]), Some(BTreeSet::new()), "no proxy holds nothing");
    }

    #[test]
    fn a_port_is_held_for_one_when_all_who_hold_it_say_the_same() {
        let cart = Holder { listen_port: 1, namespace: "shop".into(), name: "cart".into(), port: 80 };
        let told = |listen_ports: &[u16], holders: &[&Holder]| {
            let pod = ProxyPod { node: "n".into(), address: [10, 0, 0, 1].into(), ready: true };
            let holders = holders.iter().copied().cloned().collect();
            let status =
                ProxyStatus { listen_ports: listen_ports.to_vec(), holders, ..ProxyStatus::default() };
            (pod, Some(status))
        };
        let owner = Some((ServiceId::new("shop", "cart"), 80));
        let says = told(&[1, 2], &[&cart]);
        let one = held_for(&[says.clone(), told(&[], &[])]);
        assert_eq!(one, Some(HeldFor::from([(1, owner), (2, None)])), "who does not hold it does not count");
        let other = Holder { port: 81, ..cart };
        for differs in [told(&[1], &[]), told(&[1], &[&other])] {
            for both in [[says.clone(), differs.clone()], [differs, says.clone()]] {
                assert_eq!(held_for(&both).unwrap()[&1], None);
            }
        }
        assert_eq!(held_for(&[says.clone(), (says.0, None)]), None);
    }
}
