//! What of the cluster is needed to say whose traffic it was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use weft_config::ServiceId;
use weft_config::edges::ServiceName;
use weft_crds::smi::TrafficSplit;

use super::kind::{Kind, POD, Reference, SERVICE, TRAFFIC_SPLIT};
use crate::index::Index;
use crate::index::pods::PodFacts;
use crate::smi::{Name, Objects};

/// The cluster at one moment.
pub struct Cluster {
    pods: Vec<Arc<PodFacts>>,
    by_address: HashMap<IpAddr, Arc<PodFacts>>,
    services: BTreeSet<ServiceId>,
    smi: Arc<Objects>,
}

impl Cluster {
    /// What `index` knows.
    pub fn of(index: &Index) -> Self {
        Self::new(index.pods(), index.all_meshed(), index.smi())
    }

    /// From pods, the Services in the mesh and what splits there are.
    ///
    /// Pods in their node's network are left out: their address is the node's, and so nobody's. While two pods that live claim one
    /// address it is nobody's either; one that is being deleted gives way.
    pub fn new(pods: Vec<Arc<PodFacts>>, services: BTreeSet<ServiceId>, smi: Arc<Objects>) -> Self {
        let pods: Vec<_> = pods.into_iter().filter(|pod| !pod.host_network && !pod.finished).collect();
        let mut claims: HashMap<IpAddr, Vec<&Arc<PodFacts>>> = HashMap::new();
        for pod in &pods {
            for address in &pod.addresses {
                claims.entry(address.to_canonical()).or_default().push(pod);
            }
        }
        let holder = |claims: Vec<&Arc<PodFacts>>| {
            let lives: Vec<_> = claims.iter().filter(|pod| !pod.terminating).collect();
            match (&*lives, &*claims) {
                ([only], _) => Some(Arc::clone(only)),
                ([], [only]) => Some(Arc::clone(only)),
                _ => None,
            }
        };
        let by_address =
            claims.into_iter().filter_map(|(address, claims)| Some((address, holder(claims)?))).collect();
        Self { pods, by_address, services, smi }
    }

    /// The pod that has an address.
    pub(super) fn pod_at(&self, address: IpAddr) -> Option<&PodFacts> {
        self.by_address.get(&address.to_canonical()).map(|pod| &**pod)
    }

    /// Every object of `kind`, in `namespace` only if that is given; with the labels of its pods, of kinds that have pods.
    pub(super) fn objects(&self, kind: Kind, namespace: Option<&str>) -> BTreeMap<Reference, Vec<&PodFacts>> {
        let here = |one: &str| namespace.is_none_or(|namespace| namespace == one);
        let named = |name: &Name| (kind.reference(Some(&name.namespace), &name.name), Vec::new());
        match kind {
            SERVICE => self.services.iter().filter(|id| here(&id.namespace)).map(named).collect(),
            TRAFFIC_SPLIT => {
                let splits = self.smi.splits().iter().filter(|(_, object)| object.read.is_ok());
                splits.map(|(name, _)| name).filter(|name| here(&name.namespace)).map(named).collect()
            }
            _ => {
                let mut objects: BTreeMap<_, Vec<&PodFacts>> = BTreeMap::new();
                let pods = self.pods.iter().filter(|pod| !kind.namespaced || here(&pod.name.namespace));
                for pod in pods {
                    if let Some(object) = kind.object_of(pod) {
                        objects.entry(object).or_default().push(pod);
                    }
                }
                objects
            }
        }
    }

    /// What the other end of an edge is called beside an object of `kind`: by the same kind where its pod has an object of it, by
    /// the pod otherwise.
    pub(super) fn peer(&self, kind: Kind, address: IpAddr) -> Option<Reference> {
        let pod = self.pod_at(address)?;
        kind.object_of(pod).or_else(|| POD.object_of(pod))
    }

    /// The split `name`.
    pub(super) fn split(&self, name: &Name) -> Option<&TrafficSplit> {
        self.smi.splits().get(name)?.read.as_ref().ok()
    }

    /// The split of the Service `root` that is in force.
    pub(super) fn split_in_force(&self, root: &ServiceName) -> Option<(&Name, &TrafficSplit)> {
        let id = ServiceId::new(root.namespace.as_str(), root.name.as_str());
        let (object, split) = self.smi.forest(&root.namespace)?.get(&id)?;
        Some((&object.name, split))
    }

    /// Which share of `split` led to the Service `leaf`: that backend, or the one whose own split leads there.
    pub(super) fn share<'a>(&self, name: &Name, split: &'a TrafficSplit, leaf: &str) -> Option<&'a str> {
        let direct = split.backends.iter().find(|backend| backend.service == leaf);
        let through = || {
            split.backends.iter().find(|backend| self.leads(&name.namespace, split, &backend.service, leaf))
        };
        direct.or_else(through).map(|backend| &*backend.service)
    }

    /// Whether the splits in force lead from the Service `from` to the Service `leaf`. `outer` is not followed once more.
    fn leads(&self, namespace: &str, outer: &TrafficSplit, from: &str, leaf: &str) -> bool {
        let Some(forest) = self.smi.forest(namespace) else { return false };
        let mut seen = BTreeSet::from([outer.service.as_str()]);
        let mut open = vec![from];
        while let Some(service) = open.pop() {
            if service == leaf {
                return true;
            }
            if seen.insert(service)
                && let Some((_, split)) = forest.get(&ServiceId::new(namespace, service))
            {
                open.extend(split.backends.iter().map(|backend| backend.service.as_str()));
            }
        }
        false
    }
}
