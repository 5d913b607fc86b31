use kube::runtime::watcher::Event;
use serde_json::json;

use super::super::changes::About;
use super::*;

fn service(namespace: &str, name: &str, port: u16) -> Service {
    let spec = json!({"ports": [{"port": port, "name": "http"}]});
    serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec})).unwrap()
}

fn shadow(namespace: &str, of: &str) -> Service {
    serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": format!("{of}-weft-shop"), "labels": {
            "weft.mesh/shadow": "true", "weft.mesh/service-namespace": "shop", "weft.mesh/service-name": of},
            "ownerReferences": [{"apiVersion": "weft.mesh/v1alpha1", "kind": "MeshConfig", "name": "weft", "uid": "u"}]},
        "spec": {"ports": [{"port": 80, "targetPort": 10001}]}
    }))
    .unwrap()
}

fn index_of(events: impl IntoIterator<Item = Event<Service>>) -> Index {
    let index = Index::new("weft-system");
    let mut listed = None;
    for event in events {
        index.take(&ServiceKind, event, &mut listed);
    }
    index
}

#[test]
fn what_vanished_during_a_disconnect_is_noticed_at_the_next_list() {
    let index = index_of([
        Event::Init,
        Event::InitApply(service("shop", "cart", 80)),
        Event::InitApply(service("shop", "gone", 80)),
        Event::InitApply(shadow("weft-system", "gone")),
        Event::InitDone,
    ]);
    let cart = ServiceId::new("shop", "cart");
    let gone = ServiceId::new("shop", "gone");
    assert!(index.service(&gone).is_some() && index.shadow(&gone).is_some());
    let mut listed = None;
    for event in [Event::Init, Event::InitApply(service("shop", "cart", 80)), Event::InitDone] {
        index.take(&ServiceKind, event, &mut listed);
    }
    assert!(index.service(&cart).is_some());
    assert!(index.service(&gone).is_none() && index.shadow(&gone).is_none());
}

#[tokio::test]
async fn subscribers_hear_of_real_changes_only() {
    let index = index_of([Event::Apply(service("shop", "cart", 80))]);
    let changes = index.changes(About::Everything);
    assert_eq!(
        changes.next().await.services,
        BTreeSet::from([ServiceId::new("shop", "cart")]),
        "the first look gives all"
    );
    let mut listed = None;
    index.take(&ServiceKind, Event::Apply(service("shop", "cart", 80)), &mut listed);
    index.take(&ServiceKind, Event::Apply(service("shop", "pay", 80)), &mut listed);
    index.take(&ServiceKind, Event::Delete(shadow("weft-system", "none")), &mut listed);
    assert_eq!(changes.next().await.services, BTreeSet::from([ServiceId::new("shop", "pay")]));
}

#[test]
fn a_shadow_in_somebody_s_own_namespace_is_no_shadow() {
    let index = index_of([Event::Apply(shadow("evil", "cart"))]);
    assert!(index.shadow(&ServiceId::new("shop", "cart")).is_none());
    assert!(index.service(&ServiceId::new("evil", "cart-weft-shop")).is_some());
}

#[test]
fn a_service_that_only_looks_like_a_shadow_is_somebodys_own() {
    let mut alike = shadow("weft-system", "cart");
    alike.metadata.owner_references = None;
    let index = index_of([Event::Apply(alike)]);
    assert!(index.shadow(&ServiceId::new("shop", "cart")).is_none() && index.shadows().is_empty());
    assert!(index.service(&ServiceId::new("weft-system", "cart-weft-shop")).is_some());
}

#[test]
fn a_mesh_waits_while_an_older_one_elsewhere_has_its_domain_and_an_operator() {
    let mesh = |namespace: &str, second: u32| -> MeshConfig {
        let time = format!("2026-01-01T00:00:{second:02}Z");
        let metadata = json!({"namespace": namespace, "name": "weft", "creationTimestamp": time});
        serde_json::from_value(json!({"apiVersion": "weft.mesh/v1alpha1", "kind": "MeshConfig", "metadata": metadata, "spec": {}}))
            .unwrap()
    };
    let index = Index::new("weft-system");
    index.take(&MeshKind, Event::Apply(mesh("other", 1)), &mut None);
    index.take(&MeshKind, Event::Apply(mesh("weft-system", 2)), &mut None);
    let active = || index.mesh().borrow().is_some();
    assert!(active(), "nobody serves the other");
    index.take(&ServiceKind, Event::Apply(service("other", "weft-operator", 9443)), &mut None);
    assert!(!active());
    assert_eq!(index.rival().borrow().as_ref().unwrap().reason(), "DomainTaken");
    index.take(&MeshKind, Event::Delete(mesh("other", 1)), &mut None);
    assert!(active() && index.rival().borrow().is_none());
}

#[test]
fn labels_that_somebody_edits_leave_nothing_behind() {
    let cart = ServiceId::new("shop", "cart");
    let mut bare = shadow("weft-system", "cart");
    bare.metadata.labels = None;
    let index = index_of([Event::Apply(shadow("weft-system", "cart")), Event::Apply(bare.clone())]);
    assert!(index.shadow(&cart).is_none(), "without its labels it records nothing");
    index.take(&ServiceKind, Event::Apply(shadow("weft-system", "cart")), &mut None);
    assert!(index.shadow(&cart).is_some());
    assert!(
        index.service(&ServiceId::new("weft-system", "cart-weft-shop")).is_none(),
        "it is one or the other"
    );

    let mut misnamed = shadow("weft-system", "cart");
    misnamed.metadata.name = Some("copy".into());
    index.take(&ServiceKind, Event::Apply(misnamed), &mut None);
    index.take(&ServiceKind, Event::Delete(shadow("weft-system", "cart")), &mut None);
    assert!(index.shadow(&cart).is_none(), "a copy under another name stands for nothing");
    assert_eq!(index.strays(), BTreeSet::from(["copy".into()]), "and is to go");

    // With nothing but its owner it may be anybody's; what we applied is ours.
    bare.metadata.name = Some("copy".into());
    index.take(&ServiceKind, Event::Apply(bare.clone()), &mut None);
    assert!(index.strays().is_empty());
    let ours = json!([{"manager": "weft-operator", "operation": "Apply"}]);
    bare.metadata.managed_fields = serde_json::from_value(ours).unwrap();
    let changes = index.changes(About::Services);
    drop(futures::FutureExt::now_or_never(changes.next()));
    index.take(&ServiceKind, Event::Apply(bare.clone()), &mut None);
    assert_eq!(index.strays(), BTreeSet::from(["copy".into()]));
    assert!(futures::FutureExt::now_or_never(changes.next()).is_some(), "somebody has to see to it");
    index.take(&ServiceKind, Event::Delete(bare), &mut None);
    assert!(index.strays().is_empty());
}

fn slice(name: &str, service: &str, address: &str) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"port": 80}, {"port": null, "name": "any"}],
        "endpoints": [{"addresses": [address]}],
    }))
    .unwrap()
}

fn addresses(index: &Index, service: &str) -> Vec<String> {
    let slices = index.slices(&ServiceId::new("shop", service));
    slices.iter().flat_map(|slice| &slice.endpoints).map(|endpoint| endpoint.address.to_string()).collect()
}

#[test]
fn a_slice_belongs_to_one_service_at_a_time() {
    let index = Index::new("weft-system");
    let take = |event| index.take(&SliceKind, event, &mut None);
    take(Event::Apply(slice("one", "cart", "10.0.0.1")));
    take(Event::Apply(slice("two", "cart", "10.0.0.2")));
    assert_eq!(addresses(&index, "cart"), ["10.0.0.1", "10.0.0.2"]);
    take(Event::Apply(slice("one", "pay", "10.0.0.1")));
    assert_eq!(addresses(&index, "cart"), ["10.0.0.2"]);
    assert_eq!(addresses(&index, "pay"), ["10.0.0.1"]);
    let mut orphan = slice("one", "", "10.0.0.1");
    orphan.metadata.labels = None;
    take(Event::Apply(orphan));
    take(Event::Delete(slice("two", "cart", "10.0.0.2")));
    assert!(addresses(&index, "pay").is_empty() && addresses(&index, "cart").is_empty());
}

#[tokio::test]
async fn slices_that_vanished_during_a_disconnect_concern_their_service() {
    let index = Index::new("weft-system");
    let mut listed = None;
    let mut list = |slices: Vec<EndpointSlice>| {
        let all = slices.into_iter().map(Event::InitApply);
        for event in std::iter::once(Event::Init).chain(all).chain([Event::InitDone]) {
            index.take(&SliceKind, event, &mut listed);
        }
    };
    list(vec![
        slice("one", "cart", "10.0.0.1"),
        slice("two", "cart", "10.0.0.2"),
        slice("p", "pay", "10.0.0.3"),
    ]);
    let changes = index.changes(About::Everything);
    assert!(
        changes.next().await.services.is_empty(),
        "there is no Service yet, and the first look says so at once"
    );
    list(vec![slice("two", "cart", "10.0.0.2"), slice("p", "pay", "10.0.0.4")]);
    assert_eq!(addresses(&index, "cart"), ["10.0.0.2"]);
    assert_eq!(
        changes.next().await.endpoints,
        BTreeSet::from([ServiceId::new("shop", "cart"), ServiceId::new("shop", "pay")])
    );
}

/// What writes shadows and statuses is not woken by every pod that comes and goes.
#[tokio::test]
async fn endpoints_concern_those_who_asked_for_them_only() {
    let index = Index::new("weft-system");
    let cart = ServiceId::new("shop", "cart");
    let services = index.changes(About::Services);
    let of_cart = index.changes(About::EndpointsOf(BTreeSet::from([cart.clone()])));
    for changes in [&services, &of_cart] {
        changes.next().await;
    }
    index.take(&SliceKind, Event::Apply(slice("p", "pay", "10.0.0.3")), &mut None);
    assert!(futures::poll!(Box::pin(of_cart.next())).is_pending(), "another's");
    index.take(&SliceKind, Event::Apply(slice("one", "cart", "10.0.0.1")), &mut None);
    assert_eq!(of_cart.next().await, Changed::endpoints(cart));
    assert!(futures::poll!(Box::pin(services.next())).is_pending());
}

#[test]
fn a_deleted_shadow_is_forgotten() {
    let index = index_of([Event::Apply(shadow("weft-system", "cart"))]);
    let cart = ServiceId::new("shop", "cart");
    assert_eq!(index.shadow(&cart).unwrap().ports, [(80, 10001)]);
    index.take(&ServiceKind, Event::Delete(shadow("weft-system", "cart")), &mut None);
    assert!(index.shadow(&cart).is_none());
}
