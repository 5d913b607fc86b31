//! The objects as they are in the cluster, and which Services one of them concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use weft_config::ServiceId;
use weft_crds::smi::{
    self, HttpRouteGroup, Kind, PortRoute, RouteKind, TrafficSplit, TrafficTarget, Unreadable,
};

use super::forest::Forest;
use super::routes::Group;
use super::{Name, Object};

/// All objects of one kind.
pub type All<T> = BTreeMap<Name, Arc<Object<T>>>;

/// All objects of the Service Mesh Interface in the cluster. A copy costs little: the objects are shared.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub(super) targets: All<TrafficTarget>,
    pub(super) groups: All<Group>,
    pub(super) tcp_routes: All<PortRoute>,
    pub(super) udp_routes: All<PortRoute>,
    pub(super) splits: All<TrafficSplit>,
    /// By namespace, worked out when somebody asks. A split that changes brings an empty one.
    forests: BTreeMap<Arc<str>, Arc<OnceLock<Forest>>>,
}

/// What is kept of an object's metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// The object's uid.
    pub uid: Arc<str>,
    /// The `apiVersion` it came in.
    pub api_version: Arc<str>,
    /// When it was made, in seconds since the epoch.
    pub created: i64,
}

impl Objects {
    /// Puts an object of `kind` in. Returns whether that changed anything.
    pub fn insert(&mut self, kind: Kind, name: &Name, meta: Meta, object: &Value) -> bool {
        match kind {
            smi::TRAFFIC_TARGET => {
                let read = TrafficTarget::read(object, &name.namespace);
                put(&mut self.targets, name, meta, read)
            }
            smi::HTTP_ROUTE_GROUP => {
                put(&mut self.groups, name, meta, HttpRouteGroup::read(object).map(|group| Group::of(&group)))
            }
            smi::TCP_ROUTE => put(&mut self.tcp_routes, name, meta, PortRoute::read(object)),
            smi::UDP_ROUTE => put(&mut self.udp_routes, name, meta, PortRoute::read(object)),
            smi::TRAFFIC_SPLIT => {
                let changed = put(&mut self.splits, name, meta, TrafficSplit::read(object));
                if changed {
                    self.forests.insert(Arc::clone(&name.namespace), Arc::default());
                }
                changed
            }
            _ => false,
        }
    }

    /// Takes an object out. Returns whether it was there.
    pub fn remove(&mut self, kind: Kind, name: &Name) -> bool {
        match kind {
            smi::TRAFFIC_TARGET => self.targets.remove(name).is_some(),
            smi::HTTP_ROUTE_GROUP => self.groups.remove(name).is_some(),
            smi::TCP_ROUTE => self.tcp_routes.remove(name).is_some(),
            smi::UDP_ROUTE => self.udp_routes.remove(name).is_some(),
            smi::TRAFFIC_SPLIT => {
                let there = self.splits.remove(name).is_some();
                if self.splits_in(&name.namespace).next().is_none() {
                    self.forests.remove(&name.namespace);
                } else if there {
                    self.forests.insert(Arc::clone(&name.namespace), Arc::default());
                }
                there
            }
            _ => false,
        }
    }

    /// The names of all objects of `kind`.
    pub fn names(&self, kind: Kind) -> Vec<Name> {
        match kind {
            smi::TRAFFIC_TARGET => self.targets.keys().cloned().collect(),
            smi::HTTP_ROUTE_GROUP => self.groups.keys().cloned().collect(),
            smi::TCP_ROUTE => self.tcp_routes.keys().cloned().collect(),
            smi::UDP_ROUTE => self.udp_routes.keys().cloned().collect(),
            smi::TRAFFIC_SPLIT => self.splits.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// The splits of `namespace`. `None`: it has none.
    pub fn forest(&self, namespace: &str) -> Option<&Forest> {
        let forest = self.forests.get(namespace)?;
        Some(forest.get_or_init(|| Forest::of(self.splits_in(namespace))))
    }

    /// The Services whose traffic may be another when the object `name` of `kind` changes: for a split all that splits connect
    /// with it, since one that comes or goes decides which others are in force.
    pub fn concerned(&self, kind: Kind, name: &Name) -> BTreeSet<ServiceId> {
        match kind {
            smi::TRAFFIC_SPLIT => {
                let read = self.splits.get(name).and_then(|split| split.read.as_ref().ok());
                let root = read.map(|split| ServiceId::new(name.namespace.clone(), split.service.as_str()));
                root.map(|root| self.reach(root, true)).unwrap_or_default()
            }
            smi::HTTP_ROUTE_GROUP => {
                let uses = |split: &&TrafficSplit| split.matches.iter().any(|group| **group == *name.name);
                let splits = self.readable(&name.namespace).filter(uses);
                let roots =
                    splits.map(|split| ServiceId::new(name.namespace.clone(), split.service.as_str()));
                roots.flat_map(|root| self.reach(root, false)).collect()
            }
            _ => BTreeSet::new(),
        }
    }

    /// The roots of splits whose traffic may come to `service`, itself among them when it is one.
    pub fn roots_above(&self, service: &ServiceId) -> BTreeSet<ServiceId> {
        if !self.forests.contains_key(&service.namespace) {
            return BTreeSet::new();
        }
        let mut above = self.reach(service.clone(), false);
        if !self.readable(&service.namespace).any(|split| *split.service == *service.name) {
            above.remove(service);
        }
        above
    }

    /// `from` and the Services from whose splits it is reached; with `down` those its own leads to as well, and so on.
    fn reach(&self, from: ServiceId, down: bool) -> BTreeSet<ServiceId> {
        let namespace = Arc::clone(&from.namespace);
        let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for split in self.readable(&namespace) {
            for backend in &split.backends {
                next.entry(&backend.service).or_default().push(&split.service);
                if down {
                    next.entry(&split.service).or_default().push(&backend.service);
                }
            }
        }
        let mut seen = BTreeSet::from([from.clone()]);
        let mut open = vec![from];
        while let Some(service) = open.pop() {
            for other in next.get(&*service.name).into_iter().flatten() {
                let other = ServiceId::new(Arc::clone(&namespace), *other);
                if seen.insert(other.clone()) {
                    open.push(other);
                }
            }
        }
        seen
    }

    fn splits_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<Object<TrafficSplit>>> {
        let from = Name::new(namespace, "");
        let all = self.splits.range(from.clone()..);
        all.take_while(move |(name, _)| name.namespace == from.namespace).map(|(_, split)| split)
    }

    /// What the splits of `namespace` say that can be read.
    fn readable(&self, namespace: &str) -> impl Iterator<Item = &TrafficSplit> {
        self.splits_in(namespace).filter_map(|split| split.read.as_ref().ok())
    }

    pub(super) fn ports(&self, kind: RouteKind, name: &Name) -> Option<&Arc<Object<PortRoute>>> {
        match kind {
            RouteKind::Tcp => self.tcp_routes.get(name),
            RouteKind::Udp => self.udp_routes.get(name),
            RouteKind::Http => None,
        }
    }
}

fn put<T: PartialEq>(all: &mut All<T>, name: &Name, meta: Meta, read: Result<T, Unreadable>) -> bool {
    let Meta { uid, api_version, created } = meta;
    let object = Arc::new(Object { name: name.clone(), uid, api_version, created, read });
    if all.get(name) == Some(&object) {
        return false;
    }
    all.insert(name.clone(), object);
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_crds::smi::{HTTP_ROUTE_GROUP, TRAFFIC_SPLIT};

    use super::*;

    fn objects(splits: &[(&str, &[&str])]) -> Objects {
        let mut objects = Objects::default();
        for (root, backends) in splits {
            let backends: Vec<_> =
                backends.iter().map(|name| json!({"service": name, "weight": 1})).collect();
            let spec = json!({"service": root, "backends": backends, "matches": [{"kind": "HTTPRouteGroup", "name": root}]});
            objects.insert(TRAFFIC_SPLIT, &Name::new("shop", *root), Meta::default(), &json!({"spec": spec}));
        }
        objects
    }

    fn names(services: BTreeSet<ServiceId>) -> String {
        services.into_iter().map(|id| id.name.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_change_concerns_what_is_connected_with_it_and_nothing_else() {
        let objects = objects(&[("web", &["v1", "v2"]), ("v2", &["v3"]), ("other", &["else"])]);
        let of = |kind, name| names(objects.concerned(kind, &Name::new("shop", name)));
        assert_eq!(of(TRAFFIC_SPLIT, "v2"), "v1 v2 v3 web");
        assert_eq!(of(TRAFFIC_SPLIT, "other"), "else other");
        assert_eq!(of(HTTP_ROUTE_GROUP, "v2"), "v2 web");
        assert_eq!(of(smi::TCP_ROUTE, "v2"), "");
        let above = |name| names(objects.roots_above(&ServiceId::new("shop", name)));
        assert_eq!(above("v3"), "v2 web");
        assert_eq!(above("web"), "web");
        assert_eq!(above("nobody"), "");
        assert_eq!(names(objects.roots_above(&ServiceId::new("shop2", "v3"))), "");
    }

    #[test]
    fn the_same_object_again_is_no_change() {
        let mut objects = Objects::default();
        let (name, object) = (Name::new("shop", "web"), json!({"spec": {"service": "web"}}));
        assert!(objects.insert(TRAFFIC_SPLIT, &name, Meta::default(), &object));
        assert!(!objects.insert(TRAFFIC_SPLIT, &name, Meta::default(), &object));
        let later = Meta { created: 1, ..Meta::default() };
        assert!(objects.insert(TRAFFIC_SPLIT, &name, later, &object), "a younger one of the same name");
        assert!(objects.forest("shop").is_some());
        assert!(objects.remove(TRAFFIC_SPLIT, &name) && !objects.remove(TRAFFIC_SPLIT, &name));
        assert!(objects.forest("shop").is_none());
    }
}
