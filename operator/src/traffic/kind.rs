//! The kinds of objects that have traffic metrics, and which object of a kind a pod belongs to.

use serde::Serialize;

use crate::index::pods::PodFacts;

/// On the pods of a Deployment's `ReplicaSet`: the last part of its name (Kubernetes' own).
const TEMPLATE_HASH: &str = "pod-template-hash";

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// As in paths.
    pub plural: &'static str,
    /// As in references.
    pub kind: &'static str,
    /// As in references.
    pub api_version: &'static str,
    /// Its objects are in namespaces.
    pub namespaced: bool,
}

const fn kind(plural: &'static str, kind: &'static str, api_version: &'static str) -> Kind {
    Kind { plural, kind, api_version, namespaced: true }
}

/// Namespaces.
pub(super) const NAMESPACE: Kind = Kind { namespaced: false, ..kind("namespaces", "Namespace", "v1") };
/// Nodes.
pub(super) const NODE: Kind = Kind { namespaced: false, ..kind("nodes", "Node", "v1") };
/// Pods.
pub(super) const POD: Kind = kind("pods", "Pod", "v1");
/// Services: what was called, not who answered.
pub(super) const SERVICE: Kind = kind("services", "Service", "v1");
/// Deployments.
pub(super) const DEPLOYMENT: Kind = kind("deployments", "Deployment", "apps/v1");
/// `TrafficSplit`s: what was called, by the share it got.
pub(super) const TRAFFIC_SPLIT: Kind = kind("trafficsplits", "TrafficSplit", "split.smi-spec.io/v1alpha4");

/// All kinds, in the order of the specification.
pub const KINDS: [Kind; 11] = [
    NAMESPACE,
    NODE,
    POD,
    kind("replicationcontrollers", "ReplicationController", "v1"),
    SERVICE,
    kind("daemonsets", "DaemonSet", "apps/v1"),
    DEPLOYMENT,
    kind("replicasets", "ReplicaSet", "apps/v1"),
    kind("statefulsets", "StatefulSet", "apps/v1"),
    kind("jobs", "Job", "batch/v1"),
    TRAFFIC_SPLIT,
];

impl Kind {
    /// The kind that paths call `plural`.
    pub fn of(plural: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.plural == plural)
    }

    /// The object of this kind that `pod` belongs to; of Services and splits there is none, since an address may belong to many.
    pub fn object_of(self, pod: &PodFacts) -> Option<Reference> {
        let owner =
            |kind: &str| pod.owner.as_ref().filter(|(owner, _)| **owner == *kind).map(|(_, name)| &**name);
        let name = match self {
            NAMESPACE => &*pod.name.namespace,
            NODE => pod.node.as_deref()?,
            POD => &*pod.name.name,
            // Its name is in that of its ReplicaSet: nothing else needs to be watched to know it.
            DEPLOYMENT => owner("ReplicaSet")?
                .strip_suffix(pod.labels.get(TEMPLATE_HASH)?.as_ref())?
                .strip_suffix('-')?,
            SERVICE | TRAFFIC_SPLIT => return None,
            Self { kind, .. } => owner(kind)?,
        };
        Some(self.reference(self.namespaced.then_some(&*pod.name.namespace), name))
    }

    /// A reference to the object `name`.
    pub fn reference(self, namespace: Option<&str>, name: &str) -> Reference {
        Reference {
            kind: self.kind,
            namespace: namespace.map(str::to_owned),
            name: Some(name.to_owned()),
            api_version: self.api_version,
        }
    }
}

/// An `ObjectReference`, of the fields that mean something here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name; `None`: all of the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its group and version.
    pub api_version: &'static str,
}
