//! More ports than listen ports: what can be carried is, and what nobody needs any more is given to who waits for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use k8s_openapi::jiff::Timestamp;
use weft_config::status::{Holder, ProxyStatus};
use weft_operator::dns::check::Answer;
use weft_operator::index::ProxyPod;
use weft_operator::reconcile::proxies::Told;

use super::*;

const PAY: &str = "/api/v1/namespaces/weft-system/services/pay-weft-shop";

/// Sixteen, the fewest that a MeshConfig may allow.
fn sixteen() -> Value {
    json!({"proxy": {"listenPorts": {"from": 10000, "to": 10015}}})
}

fn ports_of(api: &ApiServer) -> Option<Vec<u64>> {
    Some(target_ports(&api.get(SHADOW)?).into_iter().map(|(port, _)| port).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn exhausted_ports_name_the_service() {
    let (api, client) = cluster().await;
    api.put(MESH, a_mesh(&json!({"proxy": {"listenPorts": {"from": 10000, "to": 10000}}})));
    let _operator = operator(client);
    let message = until("Degraded", &api, || degraded(&api)).await;
    assert!(message.contains("Service shop/cart port 81") && message.contains("listenPorts"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_too_many_ports_has_as_many_carried_as_there_are() {
    let (api, _operator) = standing_mesh(sixteen()).await;
    let all: Vec<u16> = (80..98).collect();
    api.put(CART, a_service("10.96.0.20", &all));
    let message = until("Degraded", &api, || degraded(&api)).await;
    assert!(message.contains("Service shop/cart port 96 gets no listen port"), "{message}");
    until("sixteen ports", &api, || (ports_of(&api)? == (80..96).collect::<Vec<_>>()).then_some(())).await;

    // The first two go: the last two get theirs.
    api.put(CART, a_service("10.96.0.20", &all[2..]));
    until("the last sixteen", &api, || (ports_of(&api)? == (82..98).collect::<Vec<_>>()).then_some(())).await;
    until("not Degraded", &api, || degraded(&api).is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_ports_all_change_gets_its_own_old_listen_ports_when_there_are_no_others() {
    let (api, _operator) = standing_mesh(sixteen()).await;
    let before: Vec<u16> = (80..96).collect();
    api.put(CART, a_service("10.96.0.20", &before));
    until("sixteen ports", &api, || (ports_of(&api)?.len() == 16).then_some(())).await;
    let after: Vec<u16> = (180..196).collect();
    api.put(CART, a_service("10.96.0.20", &after));
    until("all others", &api, || (ports_of(&api)? == (180..196).collect::<Vec<_>>()).then_some(())).await;
    until("not Degraded", &api, || degraded(&api).is_none().then_some(())).await;
}

/// Its shadow cannot be made, since somebody has a Service of that name: it must not keep listen ports from others for that.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_shadow_gives_back_what_it_no_longer_wants() {
    let (api, client) = cluster().await;
    api.put(SHADOW, a_service("10.96.0.99", &[80]));
    api.put(CART, a_service("10.96.0.20", &(80..96).collect::<Vec<_>>()));
    api.put(MESH, a_mesh(&sixteen()));
    let operator = operator(client);
    let message = until("Degraded", &api, || degraded(&api)).await;
    assert!(message.contains("cart-weft-shop is there already"), "{message}");
    api.put("/api/v1/namespaces/shop/services/pay", a_service("10.96.0.21", &[80]));
    until("another word", &api, || (degraded(&api)? != message).then_some(())).await;
    two_more_looks(&api, &operator).await;
    assert_eq!(api.get(PAY), None, "there is no listen port for it");
    api.put(CART, a_service("10.96.0.20", &[80]));
    until("the other's shadow", &api, || api.get(PAY)).await;
}

/// A proxy that goes on with ports 80 to 94 of cart at 10000 to 10014 and with port 80 of pay at 10015, whatever is published: where
/// anything else is asked of it, it is refused, since another Service has the port.
#[derive(Default, Clone)]
struct OneProxy {
    silent: Arc<AtomicBool>,
    /// It does not say for whom it holds them: older ones do not.
    older: bool,
}

impl Outside for OneProxy {
    fn ask_dns<'a>(&'a self, server: SocketAddr, domain: &'a str) -> BoxFuture<'a, Answer> {
        Network.ask_dns(server, domain).boxed()
    }

    fn own_dns(&self) -> Option<SocketAddr> {
        Network.own_dns()
    }

    fn ask_proxies(&self, _: Vec<ProxyPod>, holders_of: Vec<u16>) -> BoxFuture<'_, Vec<Told>> {
        let holder = |listen_port: u16| {
            let (name, port) = if listen_port == 10015 { ("pay", 80) } else { ("cart", listen_port - 9920) };
            Holder { listen_port, namespace: "shop".into(), name: name.into(), port }
        };
        let holders = holders_of.into_iter().filter(|_| !self.older).map(holder).collect();
        let status =
            ProxyStatus { listen_ports: (10000..=10015).collect(), holders, ..ProxyStatus::default() };
        let pod = ProxyPod { node: "node1".into(), address: [10, 244, 1, 9].into(), ready: true };
        ready(vec![(pod, Some(status).filter(|_| !self.silent.load(SeqCst)))]).boxed()
    }

    fn time(&self) -> Timestamp {
        Network.time()
    }
}

/// All listen ports are in use, and while there is no leader somebody makes an `edit`. Then there is one.
async fn edited(edit: impl Fn(&ApiServer), proxy: OneProxy) -> (ApiServer, Operator) {
    let (api, client) = cluster().await;
    api.put(CART, a_service("10.96.0.20", &(80..95).collect::<Vec<_>>()));
    api.put(MESH, a_mesh(&sixteen()));
    let before = operator(client.clone());
    until("fifteen ports", &api, || (ports_of(&api)?.len() == 15).then_some(())).await;
    api.put("/api/v1/namespaces/shop/services/pay", a_service("10.96.0.21", &[80]));
    until("the sixteenth", &api, || api.get(PAY)).await;
    drop(before);
    edit(&api);
    let after = operator_among(client, Publisher::default(), proxy);
    (api, after)
}

/// Somebody gives the last port of cart's shadow the listen port of pay.
fn the_older_claims(api: &ApiServer) {
    api.edit(SHADOW, |shadow| shadow["spec"]["ports"][14]["targetPort"] = json!(10015));
}

/// Somebody gives pay's shadow the last listen port of cart.
fn the_younger_claims(api: &ApiServer) {
    api.edit(PAY, |shadow| shadow["spec"]["ports"][0]["targetPort"] = json!(10014));
}

async fn everybody_has_what_he_had(api: &ApiServer) {
    let has = |shadow, last| api.get(shadow).is_some_and(|it| target_ports(&it).last() == Some(&last));
    until("cart's own", api, || has(SHADOW, (94, 10014)).then_some(())).await;
    until("pay's own", api, || has(PAY, (80, 10015)).then_some(())).await;
    until("not Degraded", api, || degraded(api).is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_shadows_that_claim_a_listen_port_the_one_has_it_for_which_it_is_held() {
    for claims in [the_older_claims, the_younger_claims] {
        let (api, _operator) = edited(claims, OneProxy::default()).await;
        everybody_has_what_he_had(&api).await;
    }
}

/// One may be wrong, and nobody knows which: what was not edited must go on.
#[tokio::test(flavor = "multi_thread")]
async fn while_a_proxy_is_silent_who_claims_a_listen_port_stays_as_he_is() {
    let proxy = OneProxy::default();
    proxy.silent.store(true, SeqCst);
    let edit = |api: &ApiServer| {
        the_older_claims(api);
        // It has something to do besides, for which there may be no listen port either.
        api.put(CART, a_service("10.96.0.20", &(79..95).collect::<Vec<_>>()));
    };
    let (api, operator) = edited(edit, proxy.clone()).await;
    let claimed = "has listen port 10015 by its shadow, and so has another";
    until("Degraded", &api, || degraded(&api)?.contains(claimed).then_some(())).await;
    two_more_looks(&api, &operator).await;
    let last = |shadow| target_ports(&api.get(shadow).unwrap()).last().copied();
    assert_eq!((last(SHADOW), last(PAY)), (Some((94, 10015)), Some((80, 10015))));
    assert_eq!(ports_of(&api).unwrap(), (80..95).collect::<Vec<_>>());
    api.put(CART, a_service("10.96.0.20", &(80..95).collect::<Vec<_>>()));
    proxy.silent.store(false, SeqCst);
    everybody_has_what_he_had(&api).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn among_older_proxies_the_older_shadow_has_what_two_claim_and_nothing_is_given_to_the_other() {
    let proxy = OneProxy { older: true, ..OneProxy::default() };
    let (api, operator) = edited(the_older_claims, proxy).await;
    until("Degraded", &api, || degraded(&api)?.contains("shop/pay port 80 waits").then_some(())).await;
    two_more_looks(&api, &operator).await;
    let last = |shadow| target_ports(&api.get(shadow).unwrap()).last().copied();
    assert_eq!((last(SHADOW), last(PAY)), (Some((94, 10015)), Some((80, 10015))));
}

/// By then the Service whose shadow was edited no longer has that port.
#[tokio::test(flavor = "multi_thread")]
async fn a_listen_port_that_another_shadow_had_claimed_is_its_owners_again() {
    let edit = |api: &ApiServer| {
        the_older_claims(api);
        api.put(CART, a_service("10.96.0.20", &(80..94).collect::<Vec<_>>()));
        let pay = "/api/v1/namespaces/shop/services/pay";
        api.edit(pay, |pay| pay["spec"]["ports"][0]["name"] = json!("renamed"));
    };
    let (api, _operator) = edited(edit, OneProxy::default()).await;
    let changed = || api.get(PAY).filter(|shadow| shadow["spec"]["ports"][0]["name"] == "renamed");
    let shadow = until("its own change", &api, changed).await;
    assert_eq!(target_ports(&shadow), [(80, 10015)]);
    until("fourteen ports", &api, || (ports_of(&api)?.len() == 14).then_some(())).await;
    until("not Degraded", &api, || degraded(&api).is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_narrower_range_has_no_room_for_goes_on_where_it_was() {
    let (api, _operator) = standing_mesh(json!({})).await;
    api.put(CART, a_service("10.96.0.20", &(80..98).collect::<Vec<_>>()));
    until("eighteen ports", &api, || (ports_of(&api)?.len() == 18).then_some(())).await;
    let before = target_ports(&api.get(SHADOW).unwrap());
    api.edit(MESH, |mesh| mesh["spec"] = sixteen());
    let message = until("Degraded", &api, || degraded(&api)).await;
    assert!(message.contains("Service shop/cart port 96 goes on at listen port 10016"), "{message}");
    assert_eq!(target_ports(&api.get(SHADOW).unwrap()), before);

    // There is room for all of them elsewhere.
    let wider = json!({"proxy": {"listenPorts": {"from": 10001, "to": 10030}}});
    api.edit(MESH, |mesh| mesh["spec"] = wider.clone());
    until("not Degraded", &api, || degraded(&api).is_none().then_some(())).await;
    let now = target_ports(&api.get(SHADOW).unwrap());
    assert_eq!(now[1..], before[1..]);
    assert_ne!(now[0], before[0]);
}
