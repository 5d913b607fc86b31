//! Whose shadows are to be looked at when Services change.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_config::ServiceId;

use crate::index::Index;
use crate::names::ShadowName;

/// Those that `changed`; of those that have `failed` the ones whose shadows' names somebody's Services had that may be gone now; and
/// those whose shadows somebody has made unrecognizable. By itself such a Service tells nothing of whose it was, and a watch that
/// was broken may have told of it only now.
pub(super) fn affected<'a>(
    index: &Index,
    failed: impl Iterator<Item = &'a ServiceId>,
    mut changed: BTreeSet<ServiceId>,
) -> BTreeSet<ServiceId> {
    let ours = changed.iter().filter(|id| *id.namespace == *index.namespace);
    let names: BTreeSet<_> = ours.map(|id| Arc::clone(&id.name)).collect();
    if names.is_empty() {
        return changed;
    }
    let has_one = |id: &&ServiceId| names.contains(ShadowName::of(id).as_str());
    changed.extend(failed.filter(has_one).cloned());
    if index.strays().iter().any(|stray| names.contains(stray)) {
        changed.extend(index.all_meshed().iter().filter(has_one).cloned());
    }
    changed
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::index::kinds::{MeshKind, ServiceKind};

    fn index() -> Index {
        let index = Index::new("weft-system");
        let mesh = json!({"apiVersion": "weft.mesh/v1alpha1", "kind": "MeshConfig",
            "metadata": {"namespace": "weft-system", "name": "weft"}, "spec": {}});
        index.take(&MeshKind, Event::Apply(serde_json::from_value(mesh).unwrap()), &mut None);
        let ours = json!([{"manager": "weft-operator", "operation": "Apply"}]);
        for (namespace, name, managed) in
            [("shop", "cart", json!([])), ("shop", "pay", json!([])), ("weft-system", "cart-weft-shop", ours)]
        {
            let service: Service = serde_json::from_value(json!({
                "metadata": {"namespace": namespace, "name": name, "managedFields": managed},
                "spec": {"ports": [{"port": 80}]}}))
            .unwrap();
            index.take(&ServiceKind, Event::Apply(service), &mut None);
        }
        index
    }

    #[test]
    fn who_has_lost_his_shadow_or_may_have_it_now_is_looked_at() {
        let (index, cart, pay) = (index(), ServiceId::new("shop", "cart"), ServiceId::new("shop", "pay"));
        let of = |name: &str, failed: &[ServiceId]| {
            let changed = ServiceId::new("weft-system", name);
            let mut all = affected(&index, failed.iter(), BTreeSet::from([changed.clone()]));
            assert!(all.remove(&changed));
            all.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(of("cart-weft-shop", &[]), std::slice::from_ref(&cart), "it is to have it back");
        assert_eq!(of("pay-weft-shop", &[]), [], "nobody says that this one is amiss");
        assert_eq!(of("pay-weft-shop", &[cart, pay.clone()]), std::slice::from_ref(&pay));
        let users = BTreeSet::from([ServiceId::new("shop", "cart-weft-shop")]);
        assert_eq!(affected(&index, [pay].iter(), users.clone()), users);
    }
}
