//! Whether proxies that are to end are still offered by shadow Services: as long as one's EndpointSlice has such a proxy as ready,
//! connections are sent there. Kubernetes writes a slice for each shadow Service, one after the other; with thousands of them that
//! takes minutes. Nothing is asked while no proxy is about to end. See `docs/decisions/0024-when-a-proxy-may-end.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::ListParams;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::context::Context;
use crate::index::facts::{SHADOW_LABEL, SLICE_SERVICE_LABEL};
use crate::index::proxy_pods::ProxyFacts;
use crate::listed;

/// How often is looked whether a proxy is about to end: at what is known, nobody is asked.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is said again that a proxy is offered; what is said holds for 20 s.
const AGAIN: Duration = Duration::from_secs(5);
/// After a list that took some time comes a pause of so many times that; at least a second.
const PAUSE: u32 = 10;
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Of proxies that are to end, by their pods' names: whether they are still offered.
pub type Offered = BTreeMap<Arc<str>, bool>;

/// Tells until dropped.
pub async fn follow(ctx: &Context, offered: &watch::Sender<Offered>) {
    // Before, no shadow seems to be there.
    ctx.index.synced().await;
    let free = Mutex::default();
    tokio::join!(tell(ctx, &free, offered), ask(ctx, &free));
}

/// The proxies, by their pods' names, that are about to end and that nobody offers. None is offered again.
type Free = Mutex<BTreeSet<Arc<str>>>;

fn lock(free: &Free) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says at once that a proxy which is about to end is offered, until it is known that it is not.
async fn tell(ctx: &Context, free: &Free, offered: &watch::Sender<Offered>) {
    let mut last = Instant::now();
    loop {
        sleep(LOOK).await;
        // With the namespace everything goes; nobody waits for anybody.
        let is_ending = ctx.index.is_ending();
        let offers = |pod: &ProxyFacts| !is_ending && !lock(free).contains(&pod.name);
        let ending = ctx.index.leaving_proxies();
        let now: Offered = ending.iter().map(|pod| (Arc::clone(&pod.name), offers(pod))).collect();
        let again = last.elapsed() >= AGAIN && now.values().any(|still| *still);
        if again || now != *offered.borrow() {
            last = Instant::now();
            offered.send_replace(now);
        }
    }
}

/// Finds out which proxies are not offered any more.
async fn ask(ctx: &Context, free: &Free) {
    loop {
        let ending = ctx.index.leaving_proxies();
        lock(free).retain(|name| ending.iter().any(|pod| pod.name == *name));
        if ending.iter().all(|pod| lock(free).contains(&pod.name)) {
            sleep(LOOK).await;
            continue;
        }
        let began = Instant::now();
        match look(ctx, &ending).await {
            Ok(now) => lock(free).extend(now),
            Err(error) => {
                tracing::warn!(%error, "the EndpointSlices of the shadow Services cannot be listed");
            }
        }
        sleep((began.elapsed() * PAUSE).max(SHORTEST_PAUSE)).await;
    }
}

/// The pods of `ending` that no shadow Service offers.
async fn look(ctx: &Context, ending: &[Arc<ProxyFacts>]) -> kube::Result<Vec<Arc<str>>> {
    let addresses: BTreeSet<_> = ending.iter().filter_map(|pod| pod.address).collect();
    let slices = ListParams::default().labels(&format!("{SHADOW_LABEL}=true"));
    let offered = |slice: &EndpointSlice| {
        // One whose Service is gone leads nobody anywhere; it goes soon.
        let service = slice.metadata.labels.as_ref()?.get(SLICE_SERVICE_LABEL)?;
        let offered = offers(slice, &addresses);
        (!offered.is_empty() && ctx.index.is_shadow(service)).then_some(offered)
    };
    let offered: BTreeSet<_> = listed::each(ctx, slices, offered).await?.into_iter().flatten().collect();
    let is_offered = |pod: &ProxyFacts| pod.address.is_some_and(|address| offered.contains(&address));
    let free = ending.iter().filter(|pod| !is_offered(pod));
    Ok(free.map(|pod| Arc::clone(&pod.name)).collect())
}

/// Those of `addresses` that `slice` has as ready.
fn offers(slice: &EndpointSlice, addresses: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    // Not known is ready (`discovery.k8s.io/v1`, `EndpointConditions`).
    let is_ready =
        |one: &&Endpoint| one.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false);
    let ready = slice.endpoints.iter().flatten().filter(is_ready);
    let ready = ready.flat_map(|one| &one.addresses).filter_map(|address| address.parse().ok());
    ready.filter(|address| addresses.contains(address)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn who_is_ready_or_may_be_is_offered() {
        let addresses = BTreeSet::from([IpAddr::from([10, 0, 0, 1])]);
        let offers = |address: &str, conditions: Value| {
            let endpoint = json!({"addresses": [address], "conditions": conditions});
            let slice = json!({"metadata": {}, "addressType": "IPv4", "endpoints": [endpoint]});
            offers(&serde_json::from_value(slice).unwrap(), &addresses).len()
        };
        assert_eq!(offers("10.0.0.1", json!({"ready": true})), 1);
        assert_eq!(offers("10.0.0.1", json!({})), 1);
        assert_eq!(offers("10.0.0.1", json!({"ready": false, "serving": true, "terminating": true})), 0);
        assert_eq!(offers("10.0.0.2", json!({"ready": true})), 0, "another proxy");
    }
}
