//! What the operator asks besides the API server: the DNS pods and the proxies, each directly, and the clock on the wall. The
//! reconcilers reach them through [`Outside`], so that a test can answer in their place; nothing else is hidden here.

use std::net::SocketAddr;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;

use crate::dns::check::{self, Answer};
use crate::index::ProxyPod;
use crate::reconcile::proxies::{self, Told};

/// Those who are asked.
pub trait Outside: Send + Sync {
    /// Whether the DNS server at `server` answers for the mesh domain `domain`.
    fn ask_dns<'a>(&'a self, server: SocketAddr, domain: &'a str) -> BoxFuture<'a, Answer>;

    /// The DNS server of this pod.
    fn own_dns(&self) -> Option<SocketAddr>;

    /// What each of `pods` holds, and for whom these listen ports.
    fn ask_proxies(&self, pods: Vec<ProxyPod>, holders_of: Vec<u16>) -> BoxFuture<'_, Vec<Told>>;

    /// What time it is, to be told to people. How long something takes is measured by tokio's clock.
    fn time(&self) -> Timestamp;
}

/// The cluster's network.
pub struct Network;

impl Outside for Network {
    fn ask_dns<'a>(&'a self, server: SocketAddr, domain: &'a str) -> BoxFuture<'a, Answer> {
        check::ask(server, domain).boxed()
    }

    fn own_dns(&self) -> Option<SocketAddr> {
        check::own_server()
    }

    fn ask_proxies(&self, pods: Vec<ProxyPod>, holders_of: Vec<u16>) -> BoxFuture<'_, Vec<Told>> {
        async move { proxies::ask_all(pods, &holders_of).await }.boxed()
    }

    fn time(&self) -> Timestamp {
        Timestamp::now()
    }
}
