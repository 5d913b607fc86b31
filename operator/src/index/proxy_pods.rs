//! What is kept of the proxies' own pods beyond [`super::pods`]: how far each has come, for the rollout.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::jiff::Timestamp;
use weft_config::contract::PROXY_SERVICE_ACCOUNT;

use crate::smi::Name;

/// Label of the proxies' pods: a hash of the template they were made from.
pub const TEMPLATE_LABEL: &str = "weft.mesh/template";
/// The annotation of a template by which `kubectl rollout restart` asks for new pods of the same.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Which template a pod was made from, as one word: its hash, and when a restart was asked for.
pub fn template_key(hash: &str, restarted_at: Option<&str>) -> String {
    restarted_at.map_or_else(|| hash.to_owned(), |at| format!("{hash}@{at}"))
}

/// Why a container waits that is merely on its way.
const ON_ITS_WAY: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// A pod of the proxies' DaemonSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyFacts {
    /// Its name.
    pub name: Arc<str>,
    /// The object's uid.
    pub uid: Arc<str>,
    /// When it was made, by the API server's clock, to the second.
    pub created: Timestamp,
    /// The node it is on, or is meant for.
    pub node: Arc<str>,
    /// Its address, once it has one and until it has run to its end.
    pub address: Option<IpAddr>,
    /// Which template it was made from: see [`template_key`].
    pub template: String,
    /// Its image.
    pub image: Arc<str>,
    /// It is being deleted, or has run to its end.
    pub leaving: bool,
    /// It is ready.
    pub ready: bool,
    /// Why it cannot run: a reason and a sentence.
    pub trouble: Option<(String, String)>,
    /// How often its container was started again.
    pub restarts: u32,
}

impl ProxyFacts {
    /// Reads a pod. `None`: it is none of the proxies.
    pub fn of(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let mut owners = meta.owner_references.iter().flatten();
        owners.find(|owner| owner.kind == "DaemonSet" && owner.name == PROXY_SERVICE_ACCOUNT)?;
        let spec = pod.spec.as_ref()?;
        let status = pod.status.clone().unwrap_or_default();
        let hash = meta.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_LABEL));
        let restarted = meta.annotations.as_ref().and_then(|annotations| annotations.get(RESTARTED_AT));
        let template =
            template_key(hash.map(String::as_str).unwrap_or_default(), restarted.map(String::as_str));
        let container = status.container_statuses.iter().flatten().next();
        let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let address = status.pod_ip.as_deref().and_then(|text| text.parse().ok());
        Some(Self {
            name: meta.name.as_deref()?.into(),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
            node: node(spec).unwrap_or_default().into(),
            address: address.filter(|_| !finished),
            template,
            image: spec.containers.first().and_then(|one| one.image.as_deref()).unwrap_or_default().into(),
            leaving: meta.deletion_timestamp.is_some() || finished,
            ready: holds(&status, "Ready"),
            trouble: container.and_then(trouble).or_else(|| unscheduled(&status)),
            restarts: container.map_or(0, |one| u32::try_from(one.restart_count).unwrap_or(0)),
        })
    }
}

/// A DaemonSet's pod says for which node it is meant before it is on it.
fn node(spec: &PodSpec) -> Option<&str> {
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == "metadata.name")?;
    field.values.as_ref()?.first().map(String::as_str)
}

fn holds(status: &PodStatus, condition: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|one| one.type_ == condition && one.status == "True")
}

fn trouble(container: &ContainerStatus) -> Option<(String, String)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| !ON_ITS_WAY.contains(reason))?;
    let ended = container.last_state.as_ref().and_then(|last| last.terminated.as_ref()).map(|last| {
        let why = last.reason.as_deref().unwrap_or("Error");
        format!("it ended with exit code {} ({why})", last.exit_code)
    });
    let message = waiting.message.clone().filter(|message| !message.is_empty());
    Some((reason.to_owned(), ended.or(message).unwrap_or_else(|| "its container cannot run".to_owned())))
}

fn unscheduled(status: &PodStatus) -> Option<(String, String)> {
    let mut conditions = status.conditions.iter().flatten();
    let scheduled = conditions.find(|one| one.type_ == "PodScheduled" && one.status == "False")?;
    let message = scheduled.message.clone().unwrap_or_default();
    Some((scheduled.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned()), message))
}

/// The proxies' pods there are.
#[derive(Debug, Default)]
pub(super) struct ProxyPods(HashMap<Arc<str>, Arc<ProxyFacts>>);

impl ProxyPods {
    /// Takes a pod of any namespace; whether a proxy is another than it was, came or went.
    pub(super) fn update(&mut self, ours: &str, name: &Name, pod: Option<&Pod>) -> bool {
        if &*name.namespace != ours {
            return false;
        }
        let before = match pod.and_then(ProxyFacts::of) {
            Some(facts) => self.0.insert(Arc::clone(&name.name), Arc::new(facts)),
            None => self.0.remove(&name.name),
        };
        before.as_ref() != self.0.get(&name.name)
    }

    /// Those on their way out.
    pub(super) fn leaving(&self) -> Vec<Arc<ProxyFacts>> {
        self.0.values().filter(|pod| pod.leaving).cloned().collect()
    }

    /// All, by name.
    pub(super) fn all(&self) -> Vec<Arc<ProxyFacts>> {
        let mut all: Vec<_> = self.0.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    use super::super::Index;
    use super::super::pods::PodKind;
    use super::*;

    fn pod(spec: &Value, status: &Value) -> Pod {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "weft-proxy", "uid": "d", "controller": true}]);
        let metadata = json!({"namespace": "weft-system", "name": "weft-proxy-1", "uid": "u", "ownerReferences": owner,
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"weft.mesh/template": "abc"}});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn containers() -> Value {
        json!([{"name": "proxy", "image": "weft-proxy:1"}])
    }

    #[test]
    fn a_pod_that_is_ready() {
        let status = json!({"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
            {"name": "proxy", "image": "", "imageID": "", "ready": true, "restartCount": 2, "state": {"running": {}}}]});
        let facts =
            ProxyFacts::of(&pod(&json!({"nodeName": "n1", "containers": containers()}), &status)).unwrap();
        assert_eq!((&*facts.node, &*facts.template, &*facts.image), ("n1", "abc", "weft-proxy:1"));
        assert!(facts.ready && !facts.leaving && facts.trouble.is_none());
        assert_eq!((facts.restarts, facts.address), (2, Some([10, 0, 0, 1].into())));
        assert_eq!(facts.created.to_string(), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn why_a_pod_cannot_run() {
        let waiting = |reason: &str, last: &Value| {
            let status = json!({"containerStatuses": [{"name": "proxy", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                "state": {"waiting": {"reason": reason, "message": "back-off"}}, "lastState": last}]});
            ProxyFacts::of(&pod(&json!({"nodeName": "n1", "containers": containers()}), &status))
                .unwrap()
                .trouble
        };
        assert_eq!(waiting("ContainerCreating", &json!({})), None);
        assert_eq!(
            waiting("ImagePullBackOff", &json!({})),
            Some(("ImagePullBackOff".into(), "back-off".into()))
        );
        let crashed =
            waiting("CrashLoopBackOff", &json!({"terminated": {"exitCode": 101, "reason": "Error"}}));
        assert_eq!(crashed, Some(("CrashLoopBackOff".into(), "it ended with exit code 101 (Error)".into())));
    }

    #[test]
    fn a_pod_without_room_says_for_which_node_it_is_meant() {
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]}}});
        let status = json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu"}]});
        let facts = ProxyFacts::of(&pod(&json!({"affinity": affinity, "containers": containers()}), &status))
            .unwrap();
        assert_eq!(&*facts.node, "n2");
        assert_eq!(facts.trouble, Some(("Unschedulable".into(), "Insufficient cpu".into())));
    }

    #[test]
    fn a_proxy_is_there_with_its_address_until_it_has_ended() {
        let index = Index::new("weft-system");
        let take = |phase: &str| {
            let status = json!({"phase": phase, "podIP": "10.0.0.1"});
            let pod = pod(&json!({"nodeName": "n1", "containers": containers()}), &status);
            let listed = ProxyFacts::of(&pod).into_iter().collect();
            index.take(&PodKind, Event::Apply(pod), &mut None);
            let addresses = |index: &Index, listed| -> Vec<_> {
                index.proxies_and(listed).into_iter().map(|holder| holder.address).collect()
            };
            let told = addresses(&index, Vec::new());
            assert_eq!(addresses(&Index::new("weft-system"), listed), told, "a list tells the same");
            told
        };
        assert_eq!(take("Running"), [IpAddr::from([10, 0, 0, 1])]);
        assert!(take("Failed").is_empty() && index.proxies().is_empty());
    }

    #[test]
    fn only_the_daemon_set_s_own_pods_of_our_namespace_count() {
        let mut pods = ProxyPods::default();
        let one = pod(&json!({"nodeName": "n1", "containers": containers()}), &json!({}));
        assert!(!pods.update("weft-system", &Name::new("shop", "weft-proxy-1"), Some(&one)));
        assert!(pods.all().is_empty(), "of another namespace");
        let mut forged = one.clone();
        forged.metadata.owner_references = None;
        let name = Name::new("weft-system", "weft-proxy-1");
        assert!(!pods.update("weft-system", &name, Some(&forged)));
        assert!(pods.all().is_empty(), "labels alone make no proxy");
        assert!(pods.update("weft-system", &name, Some(&one)));
        assert!(!pods.update("weft-system", &name, Some(&one)), "nothing is new");
        assert_eq!(pods.all().len(), 1);
        assert!(pods.update("weft-system", &name, None));
        assert!(pods.all().is_empty());
    }
}
