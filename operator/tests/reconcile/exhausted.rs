//! More ports than listen ports: what can be carried is, and what nobody needs any more is given to who waits for it.

use std::net::SocketAddr;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use k8s_openapi::jiff::Timestamp;
use weft_config::Resource;
use weft_config::status::ProxyStatus;
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

/// A proxy that holds the ports that are published, and this one besides, where somebody is still connected.
struct OneProxy {
    publisher: Publisher,
    /// It says that it holds them by a configuration that this publisher does not know.
    behind: bool,
    leaving: u16,
}

impl Outside for OneProxy {
    fn ask_dns<'a>(&'a self, server: SocketAddr, domain: &'a str) -> BoxFuture<'a, Answer> {
        Network.ask_dns(server, domain).boxed()
    }

    fn own_dns(&self) -> Option<SocketAddr> {
        Network.own_dns()
    }

    fn ask_proxies(&self, _: Vec<ProxyPod>) -> BoxFuture<'_, Vec<Told>> {
        let digest = if self.behind { "00ff".to_owned() } else { self.publisher.digest() };
        let mut status = ProxyStatus { digest, ..ProxyStatus::default() };
        for entry in self.publisher.configuration() {
            if let Resource::Service(service) = &*entry.resource {
                status.listen_ports.extend(service.ports.iter().map(|port| port.listen_port));
            }
        }
        status.listen_ports.push(self.leaving);
        let pod = ProxyPod { node: "node1".into(), address: [10, 244, 1, 9].into(), ready: true };
        ready(vec![(pod, Some(status))]).boxed()
    }

    fn time(&self) -> Timestamp {
        Network.time()
    }
}

/// Somebody gives an older shadow the listen port of another, which therefore does not have it by the record, while there is no
/// leader. The older one gives it back when there is one, and the proxy holds it all the time. In the end the other one's Service
/// has been changed.
async fn a_claimed_listen_port(proxy: impl FnOnce(Publisher) -> OneProxy) -> (ApiServer, Operator) {
    let (api, client) = cluster().await;
    api.put(CART, a_service("10.96.0.20", &(80..95).collect::<Vec<_>>()));
    api.put(MESH, a_mesh(&sixteen()));
    let before = operator(client.clone());
    until("fifteen ports", &api, || (ports_of(&api)?.len() == 15).then_some(())).await;
    let service = "/api/v1/namespaces/shop/services/pay";
    api.put(service, a_service("10.96.0.21", &[80]));
    until("the sixteenth", &api, || api.get(PAY)).await;
    drop(before);

    api.edit(SHADOW, |shadow| shadow["spec"]["ports"][14]["targetPort"] = json!(10015));
    api.put(CART, a_service("10.96.0.20", &(80..94).collect::<Vec<_>>()));
    api.edit(service, |pay| pay["spec"]["ports"][0]["name"] = json!("renamed"));
    let publisher = Publisher::default();
    let after = operator_among(client, publisher.clone(), proxy(publisher));
    until("fourteen ports", &api, || (ports_of(&api)?.len() == 14).then_some(())).await;
    (api, after)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listen_port_that_another_shadow_had_claimed_is_its_owners_again() {
    let proxy = |publisher| OneProxy { publisher, behind: false, leaving: 10014 };
    let (api, _operator) = a_claimed_listen_port(proxy).await;
    let changed = || api.get(PAY).filter(|shadow| shadow["spec"]["ports"][0]["name"] == "renamed");
    let shadow = until("its own change", &api, changed).await;
    assert_eq!(target_ports(&shadow), [(80, 10015)]);
    until("not Degraded", &api, || degraded(&api).is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listen_port_that_may_be_held_for_another_is_not_given_back() {
    let proxy = |publisher| OneProxy { publisher, behind: true, leaving: 10014 };
    let (api, operator) = a_claimed_listen_port(proxy).await;
    until("Degraded", &api, || degraded(&api)?.contains("shop/pay port 80 waits").then_some(())).await;
    two_more_looks(&api, &operator).await;
    assert_ne!(api.get(PAY).unwrap()["spec"]["ports"][0]["name"], "renamed");
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
