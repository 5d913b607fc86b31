//! What is kept of a pod, and how pods go into the index.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::ResourceExt;
use weft_config::ServiceId;
use weft_config::contract::PROXY_SERVICE_ACCOUNT;

use super::State;
use super::changes::Changed;
use super::strings::Strings;
use super::watch::Kind;
use crate::smi::Name;

/// As whom a pod runs that does not say (Kubernetes' own).
const DEFAULT_ACCOUNT: &str = "default";

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Namespace and name.
    pub name: Name,
    /// The object's uid.
    pub uid: Arc<str>,
    /// The `ServiceAccount` it runs as, of its own namespace.
    pub service_account: Arc<str>,
    /// Its addresses; none before it has started.
    pub addresses: Vec<IpAddr>,
    /// It has its node's network, and so its node's addresses.
    pub host_network: bool,
    /// The node it is on.
    pub node: Option<Arc<str>>,
    /// It has run to its end: nothing of it runs any more.
    pub finished: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// Kind and name of the controller it belongs to.
    pub owner: Option<(Arc<str>, Arc<str>)>,
    /// Its labels.
    pub labels: Labels,
}

/// Labels, by their keys. There may be a hundred thousand pods: a map of each one's few would be the larger part of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value of the label `key`.
    pub fn get(&self, key: &str) -> Option<&Arc<str>> {
        self.iter().find(|(one, _)| &***one == key).map(|(_, value)| value)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl FromIterator<(Arc<str>, Arc<str>)> for Labels {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Arc<str>)>>(labels: I) -> Self {
        Self(labels.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect())
    }
}

impl PodFacts {
    /// Reads a pod. `None`: it has no name, which only a broken API server sends.
    pub fn of(pod: &Pod) -> Option<Self> {
        let name = Name::new(pod.metadata.namespace.as_deref()?, pod.metadata.name.as_deref()?);
        let spec = pod.spec.as_ref()?;
        let account = spec.service_account_name.as_deref().filter(|name| !name.is_empty());
        let owner =
            pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let labels = pod.metadata.labels.iter().flatten();
        Some(Self {
            name,
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            service_account: account.unwrap_or(DEFAULT_ACCOUNT).into(),
            addresses: pod.status.as_ref().map(addresses).unwrap_or_default(),
            host_network: spec.host_network.unwrap_or(false),
            node: spec.node_name.as_deref().map(Into::into),
            finished: pod.status.as_ref().is_some_and(|status| finished(status, spec.containers.len())),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            owner: owner.map(|owner| (owner.kind.as_str().into(), owner.name.as_str().into())),
            labels: labels.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
        })
    }
}

impl PodFacts {
    /// What other pods have as well is kept once.
    fn share(&mut self, strings: &mut Strings) {
        strings.share(&mut self.name.namespace);
        strings.share(&mut self.service_account);
        if let Some(node) = &mut self.node {
            strings.share(node);
        }
        if let Some((kind, name)) = &mut self.owner {
            strings.share(kind);
            strings.share(name);
        }
        for (key, value) in &mut self.labels.0 {
            strings.share(key);
            strings.share(value);
        }
    }
}

fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|address| address.ip.as_str());
    let all: BTreeSet<IpAddr> =
        all.chain(status.pod_ip.as_deref()).filter_map(|text| text.parse().ok()).collect();
    all.into_iter().collect()
}

/// Whether nothing of the pod's `containers` runs any more. Its phase says so late: the kubelet that knows writes it last.
fn finished(status: &PodStatus, containers: usize) -> bool {
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return true;
    }
    let ended = |one: &ContainerStatus| one.state.as_ref().is_some_and(|state| state.terminated.is_some());
    let runs = |one: &ContainerStatus| one.state.as_ref().is_some_and(|state| state.running.is_some());
    let own = status.container_statuses.as_deref().unwrap_or_default();
    // Sidecars are among the first, and somebody may look into a pod with the last.
    let others = [&status.init_container_statuses, &status.ephemeral_container_statuses];
    !own.is_empty()
        && own.len() == containers
        && own.iter().all(ended)
        && !others.into_iter().flatten().flatten().any(runs)
}

/// Pods.
pub(crate) struct PodKind;

impl Kind for PodKind {
    type Object = Pod;
    type Key = Name;

    fn what(&self) -> &'static str {
        "Pod"
    }

    fn insert(&self, state: &mut State, object: &Pod) -> (Name, Changed) {
        let key = Self::key(object);
        let endpoints = proxies_changed(state, &key, Some(object));
        let Some(mut facts) = PodFacts::of(object) else {
            let mut changed = self.remove(state, &key);
            changed.endpoints.extend(endpoints);
            return (key, changed);
        };
        facts.share(&mut state.strings);
        let facts = Arc::new(facts);
        let before = state.pods.insert(facts.name.clone(), Arc::clone(&facts));
        let accounts = state.identities.update(&key, before.as_deref(), Some(&facts));
        (key, Changed { endpoints, accounts, ..Changed::default() })
    }

    fn remove(&self, state: &mut State, key: &Name) -> Changed {
        let endpoints = proxies_changed(state, key, None);
        let before = state.pods.remove(key);
        let accounts = state.identities.update(key, before.as_deref(), None);
        Changed { endpoints, accounts, ..Changed::default() }
    }

    fn keys(&self, state: &State) -> BTreeSet<Name> {
        state.pods.keys().cloned().collect()
    }

    fn key(object: &Pod) -> Name {
        Name::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

/// The proxies' Service, where what this pod was or is changes what they are.
fn proxies_changed(state: &mut State, key: &Name, pod: Option<&Pod>) -> BTreeSet<ServiceId> {
    let State { namespace, proxy_pods, .. } = state;
    let changed = proxy_pods.update(namespace, key, pod);
    changed.then(|| ServiceId::new(Arc::clone(namespace), PROXY_SERVICE_ACCOUNT)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: &Value, status: &Value) -> PodFacts {
        let metadata = json!({"namespace": "shop", "name": "web-1", "uid": "u", "labels": {"app": "web"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "1"},
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5", "uid": "2", "controller": true}]});
        let object = json!({"metadata": metadata, "spec": spec, "status": status});
        PodFacts::of(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn the_facts_of_a_pod() {
        let spec = json!({"serviceAccountName": "web", "nodeName": "node1", "containers": [{"name": "c"}]});
        let status = json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
        let facts = pod(&spec, &status);
        assert_eq!(facts.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!((&*facts.service_account, facts.node.as_deref()), ("web", Some("node1")));
        assert_eq!(facts.owner, Some(("ReplicaSet".into(), "web-5".into())));
        assert!(!facts.host_network && !facts.finished && !facts.terminating);
        assert_eq!(facts.labels, [("app".into(), "web".into())].into_iter().collect());
        let bare = pod(&json!({"serviceAccountName": "", "hostNetwork": true, "containers": []}), &json!({}));
        assert!(bare.host_network && bare.addresses.is_empty() && &*bare.service_account == "default");
    }

    #[test]
    fn a_pod_has_finished_when_nothing_of_it_runs() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let container = |name: &str, state: &str| {
            let state =
                if state == "terminated" { json!({state: {"exitCode": 0}}) } else { json!({state: {}}) };
            json!({"name": name, "state": state, "image": "", "imageID": "", "ready": false, "restartCount": 0})
        };
        let finished = |states: &[&str], sidecar: &str| {
            let own: Vec<_> = states.iter().map(|state| container("a", state)).collect();
            let status = json!({"phase": "Running", "containerStatuses": own,
                "initContainerStatuses": [container("sidecar", sidecar)]});
            pod(&spec, &status).finished
        };
        assert!(finished(&["terminated", "terminated"], "terminated"));
        assert!(!finished(&["terminated", "running"], "terminated"));
        assert!(!finished(&["terminated", "waiting"], "terminated"));
        assert!(!finished(&["terminated"], "terminated"), "the other is not known yet");
        assert!(!finished(&[], "terminated"));
        assert!(!finished(&["terminated", "terminated"], "running"), "its sidecar runs");
        assert!(pod(&spec, &json!({"phase": "Failed"})).finished);
        assert!(!pod(&spec, &json!({"phase": "Pending"})).finished);
    }
}
