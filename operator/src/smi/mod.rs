//! The objects of the Service Mesh Interface and what they mean together. Pure: [`Objects`] holds what is in the cluster,
//! [`split`] and [`access`] say what becomes of it, and each has a [`Finding`] for every object that is not, or not wholly,
//! in force. How the objects get here is in [`crate::index`], how findings reach people in [`crate::reconcile`].

pub mod access;
pub mod routes;
pub mod split;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use weft_config::ServiceId;
use weft_crds::smi::{
    self, HttpRouteGroup, Kind, PortRoute, RouteKind, TrafficSplit, TrafficTarget, Unreadable,
};

/// Namespace and name of an object.
pub type Name = ServiceId;

/// An object as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<T> {
    /// Namespace and name.
    pub name: Name,
    /// The object's uid.
    pub uid: Arc<str>,
    /// `apiVersion` it came in.
    pub api_version: Arc<str>,
    /// When it was made, in seconds since the epoch.
    pub created: i64,
    /// What it says, or why that cannot be told.
    pub read: Result<T, Unreadable>,
}

/// All objects of one kind.
pub type All<T> = BTreeMap<Name, Arc<Object<T>>>;

/// All objects of the Service Mesh Interface in the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// `TrafficTarget`s.
    pub targets: All<TrafficTarget>,
    /// `HTTPRouteGroup`s.
    pub groups: All<HttpRouteGroup>,
    /// `TCPRoute`s.
    pub tcp_routes: All<PortRoute>,
    /// `UDPRoute`s.
    pub udp_routes: All<PortRoute>,
    /// `TrafficSplit`s.
    pub splits: All<TrafficSplit>,
}

/// Names one object for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// Its kind.
    pub kind: &'static str,
    /// Its `apiVersion`.
    pub api_version: Arc<str>,
    /// Namespace and name.
    pub name: Name,
    /// Its uid.
    pub uid: Arc<str>,
}

/// Shown as `TrafficSplit shop/web`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// All of it is in force.
    Accepted,
    /// A part of it is not.
    Partly,
    /// Nothing of it is.
    Rejected,
}

/// What became of one object, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object.
    pub about: Subject,
    /// What became of it.
    pub verdict: Verdict,
    /// What its author should know; a sentence each. Empty when all is well.
    pub notes: Vec<String>,
}

impl<T> Object<T> {
    fn subject(&self, kind: Kind) -> Subject {
        Subject {
            kind: kind.kind,
            api_version: Arc::clone(&self.api_version),
            name: self.name.clone(),
            uid: Arc::clone(&self.uid),
        }
    }

    /// A finding: nothing of it is in force without `some`; all of it when there are no notes.
    fn finding(&self, kind: Kind, some: bool, notes: Vec<String>) -> Finding {
        let verdict = match (some, notes.is_empty()) {
            (false, _) => Verdict::Rejected,
            (true, true) => Verdict::Accepted,
            (true, false) => Verdict::Partly,
        };
        Finding { about: self.subject(kind), verdict, notes }
    }
}

impl Objects {
    /// Puts an object of `kind` in. Returns whether that changed anything.
    pub fn insert(&mut self, kind: Kind, name: &Name, meta: Meta, object: &Value) -> bool {
        match kind {
            smi::TRAFFIC_TARGET => {
                let read = TrafficTarget::read(object, &name.namespace);
                put(&mut self.targets, name, meta, read)
            }
            smi::HTTP_ROUTE_GROUP => put(&mut self.groups, name, meta, HttpRouteGroup::read(object)),
            smi::TCP_ROUTE => put(&mut self.tcp_routes, name, meta, PortRoute::read(object)),
            smi::UDP_ROUTE => put(&mut self.udp_routes, name, meta, PortRoute::read(object)),
            smi::TRAFFIC_SPLIT => put(&mut self.splits, name, meta, TrafficSplit::read(object)),
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
            smi::TRAFFIC_SPLIT => self.splits.remove(name).is_some(),
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

    /// The splits of the Service `root`, the one that is in force first: the oldest; of two made in the same second the first
    /// by name. One that cannot be read says nothing, so it is in nobody's way.
    pub fn splits_of(&self, root: &ServiceId) -> Vec<&Arc<Object<TrafficSplit>>> {
        let of_root = |split: &&Arc<Object<TrafficSplit>>| {
            split.name.namespace == root.namespace
                && split.read.as_ref().is_ok_and(|split| *split.service == *root.name)
        };
        let mut splits: Vec<_> = self.splits.values().filter(of_root).collect();
        splits.sort_by_key(|split| (split.created, &split.name));
        splits
    }

    /// The roots of splits in which `service` has a share.
    pub fn roots_with_backend(&self, service: &ServiceId) -> BTreeSet<ServiceId> {
        self.roots(&service.namespace, |split| split.backends.iter().any(|one| *one.service == *service.name))
    }

    /// The Services whose traffic is another when the object `name` of `kind` changes.
    pub fn roots_concerned(&self, kind: Kind, name: &Name) -> BTreeSet<ServiceId> {
        match kind {
            smi::TRAFFIC_SPLIT => {
                let split = self.splits.get(name).and_then(|split| split.read.as_ref().ok());
                let root = split.map(|split| ServiceId::new(name.namespace.clone(), split.service.as_str()));
                root.into_iter().collect()
            }
            smi::HTTP_ROUTE_GROUP => {
                self.roots(&name.namespace, |split| split.matches.iter().any(|group| **group == *name.name))
            }
            _ => BTreeSet::new(),
        }
    }

    fn roots(&self, namespace: &str, is: impl Fn(&TrafficSplit) -> bool) -> BTreeSet<ServiceId> {
        let here = self.splits.values().filter(|split| *split.name.namespace == *namespace);
        let splits = here.filter_map(|split| split.read.as_ref().ok()).filter(|split| is(split));
        splits.map(|split| ServiceId::new(namespace, split.service.as_str())).collect()
    }

    fn ports(&self, kind: RouteKind, name: &Name) -> Option<&Arc<Object<PortRoute>>> {
        match kind {
            RouteKind::Tcp => self.tcp_routes.get(name),
            RouteKind::Udp => self.udp_routes.get(name),
            RouteKind::Http => None,
        }
    }
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

fn put<T: PartialEq>(all: &mut All<T>, name: &Name, meta: Meta, read: Result<T, Unreadable>) -> bool {
    let Meta { uid, api_version, created } = meta;
    let object = Arc::new(Object { name: name.clone(), uid, api_version, created, read });
    if all.get(name) == Some(&object) {
        return false;
    }
    all.insert(name.clone(), object);
    true
}
