//! What must never happen, looked at with each write and each change of a proxy, and what must be in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use weft_config::ServiceId;
use weft_operator::index::facts::{NAME_LABEL, NAMESPACE_LABEL, SHADOW_LABEL};

use crate::api::Sent;
use crate::cluster::Owner;
use crate::simulated::paths::{CA_MAP, CA_SECRET, DAEMONSET, Key, OURS, Target, key, service};
use crate::simulated::store::{Change, Happened};
use crate::world::{Process, World};

/// What the laws need to know of the past.
#[derive(Default)]
pub(crate) struct Law {
    pub(crate) violations: Vec<String>,
    /// The process that was seen to lead last.
    pub(crate) leader: Option<Process>,
    /// Objects in our namespace that somebody else made, under names that we would use.
    pub(crate) foreign: BTreeSet<Key>,
    /// Listen ports that somebody wrote into a shadow by hand: for what came of that nobody answers but him.
    pub(crate) tainted: BTreeSet<u16>,
    /// The Corefile without our block, as users have left it.
    pub(crate) outside: String,
    /// Somebody has damaged our block.
    pub(crate) damaged: bool,
    /// How often a proxy took from a replica that was behind what has another meaning by now.
    pub(crate) behind: u64,
    /// Writes of the operator, Events among them, the Lease apart; and when the last was.
    pub(crate) writes: u64,
    pub(crate) last_write: u64,
    /// The last of them, for people.
    pub(crate) last_line: String,
}

impl Law {
    pub(crate) fn broken(&mut self, how: String) {
        if self.violations.len() < 20 {
            self.violations.push(how);
        }
    }
}

impl World {
    fn broken(&mut self, how: String) {
        self.note(&how, |_| format!("!!! {how}"));
        self.law.broken(how);
    }

    /// A replica sends something: only while its fence is open.
    pub(crate) fn check_sending(&mut self, process: Process, sent: &Sent) {
        if !sent.is_write() || sent.is_lease() {
            return;
        }
        let replica = &self.replicas[process];
        if !replica.fence.is_open() {
            let how = format!("{} sends {} {} with its fence closed", replica.pod, sent.method, sent.path);
            self.broken(how);
        }
    }

    /// A write of a replica has landed; what happened since `version` is what it did.
    pub(crate) fn check_write(&mut self, process: Process, sent: &Sent, version: u64) {
        if sent.is_lease() {
            return;
        }
        self.law.writes += 1;
        self.law.last_write = self.now();
        self.law.last_line = format!("{} {}", sent.method, sent.path);
        if sent.is_event() {
            return;
        }
        let pod = self.replicas[process].pod.clone();
        if self.law.leader != Some(process) {
            self.broken(format!("{pod}: {} {} lands when another leads", sent.method, sent.path));
        }
        let happened: Vec<_> = self.store.since(version).to_vec();
        for happened in happened {
            if let Err(why) = self.may_write(&happened) {
                self.broken(format!("{pod}: {} {}: {why}", sent.method, sent.path));
            }
            self.check_ports(&happened);
        }
    }

    /// Whether what was written is ours to write.
    fn may_write(&self, happened: &Happened) -> Result<(), String> {
        let Happened { key: written, change, object, before, .. } = happened;
        let object = &**object;
        if self.law.foreign.contains(written) {
            return Err("it is somebody else's".to_owned());
        }
        let nothing = Value::Null;
        let before = before.as_deref().unwrap_or(&nothing);
        let same = |what: &str| before[what] == object[what];
        match (written.0.as_str(), written.1.as_str(), written.2.as_str()) {
            ("/apis/weft.mesh/v1alpha1 meshconfigs", namespace, _) => {
                let finalizers = same_but(&before["metadata"], &object["metadata"], &["finalizers"]);
                if !same("spec") || !finalizers {
                    return Err("more than finalizers and status".to_owned());
                }
                if namespace != OURS && before["metadata"]["finalizers"] != object["metadata"]["finalizers"] {
                    return Err("a MeshConfig of another namespace".to_owned());
                }
                Ok(())
            }
            ("/api/v1 services", OURS, "weft-proxy") => Ok(()),
            ("/api/v1 services", OURS, _) if is_shadow(object) || is_shadow(before) => Ok(()),
            ("/api/v1 configmaps", "kube-system", "coredns") => {
                let data = same_but(&before["data"], &object["data"], &["Corefile"]);
                if *change != Change::Modified
                    || !data
                    || !same_but(&before["metadata"], &object["metadata"], &[])
                {
                    return Err("more than the Corefile".to_owned());
                }
                let text = |value: &Value| value["data"]["Corefile"].as_str().unwrap_or_default().to_owned();
                let (was, is) = (outside(&text(before)), outside(&text(object)));
                let trimmed = |text: &Option<String>| {
                    text.as_deref().map(|text| text.trim_end_matches('\n').to_owned())
                };
                match (trimmed(&was), trimmed(&is)) {
                    (Some(was), Some(is)) if was == is => {}
                    _ => return Err(format!("outside of our block: {was:?} became {is:?}")),
                }
                if !text(object).contains(BEGIN) && text(object) != self.law.outside {
                    return Err(format!("{:?} instead of {:?}", text(object), self.law.outside));
                }
                Ok(())
            }
            _ if [DAEMONSET, CA_SECRET, CA_MAP].iter().any(|ours| key(ours) == *written) => Ok(()),
            _ => Err("it is not ours".to_owned()),
        }
    }

    /// No listen port that is written anew has, or had as far as any proxy goes, another meaning.
    fn check_ports(&mut self, happened: &Happened) {
        if happened.change == Change::Deleted || !is_shadow(&happened.object) {
            return;
        }
        let before: BTreeMap<_, _> =
            happened.before.as_deref().map(ports).unwrap_or_default().into_iter().collect();
        for (owner, listen_port) in ports(&happened.object) {
            if before.get(&owner) == Some(&listen_port) || self.law.tainted.contains(&listen_port) {
                continue;
            }
            for (other, other_port) in self.shadow_ports() {
                if other_port == listen_port && other != owner {
                    self.broken(format!(
                        "listen port {listen_port} is {}'s and {}'s",
                        show(&owner),
                        show(&other)
                    ));
                }
            }
            for proxy in 0..self.proxies.len() {
                let proxy = &self.proxies[proxy];
                let held = proxy.listens.get(&listen_port).or_else(|| proxy.leaving.get(&listen_port));
                if let Some(held) = held.filter(|held| **held != owner && proxy.up) {
                    let (address, held) = (proxy.address.clone(), show(held));
                    self.broken(format!(
                        "listen port {listen_port} is given to {} while proxy {address} holds it for {held}",
                        show(&owner)
                    ));
                }
            }
        }
    }

    /// A proxy has taken a configuration. One that connects to a replica that is behind may take up a port again that has
    /// passed to another Service meanwhile: the leader cannot know. That is counted (decision 23).
    pub(crate) fn check_proxy(&mut self, proxy: usize) {
        let shadows: BTreeMap<_, _> =
            self.shadow_ports().into_iter().map(|(owner, port)| (port, owner)).collect();
        let proxy = &self.proxies[proxy];
        let wrong = proxy.listens.iter().any(|(port, owner)| {
            let now = shadows.get(port);
            now.is_some_and(|now| now != owner) && !self.law.tainted.contains(port)
        });
        self.law.behind += u64::from(wrong);
    }

    fn shadow_ports(&self) -> Vec<(Owner, u16)> {
        self.shadows().flat_map(|(_, shadow)| ports(shadow)).collect()
    }

    pub(crate) fn shadows(&self) -> impl Iterator<Item = (&Key, &Value)> {
        let all = self.store.all(&Target::of(&format!("/api/v1/namespaces/{OURS}/services")));
        all.map(|(key, object)| (key, &**object))
            .filter(|(key, object)| is_shadow(object) && !self.law.foreign.contains(*key))
    }
}

fn show((id, port): &Owner) -> String {
    format!("{id}:{port}")
}

/// Whether it has our label.
pub(crate) fn is_shadow(object: &Value) -> bool {
    object["metadata"]["labels"][SHADOW_LABEL].is_string()
}

/// What a shadow stands for.
pub(crate) fn stands_for(shadow: &Value) -> Option<ServiceId> {
    let labels = &shadow["metadata"]["labels"];
    Some(ServiceId::new(labels[NAMESPACE_LABEL].as_str()?, labels[NAME_LABEL].as_str()?))
}

/// The listen ports that a shadow records.
pub(crate) fn ports(shadow: &Value) -> Vec<(Owner, u16)> {
    let Some(id) = stands_for(shadow) else { return Vec::new() };
    let ports = shadow["spec"]["ports"].as_array().into_iter().flatten();
    let port = |port: &Value| {
        let number = |key: &str| u16::try_from(port[key].as_u64()?).ok();
        Some(((id.clone(), number("port")?), number("targetPort")?))
    };
    ports.filter_map(port).collect()
}

/// Whether two objects' parts are the same but for `apart` and what the API server keeps there.
fn same_but(before: &Value, after: &Value, apart: &[&str]) -> bool {
    let ignored = ["resourceVersion", "managedFields", "generation", "deletionTimestamp"];
    let rest = |value: &Value| -> BTreeMap<String, Value> {
        let all = value.as_object().into_iter().flatten();
        let all = all.filter(|(key, _)| !ignored.contains(&key.as_str()) && !apart.contains(&key.as_str()));
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    rest(before) == rest(after)
}

/// How our block begins and ends.
const BEGIN: &str = "# BEGIN weft.mesh";
const END: &str = "# END weft.mesh";

/// A Corefile without our block. `None`: its marks are in disorder.
pub(crate) fn outside(corefile: &str) -> Option<String> {
    let mut rest = String::new();
    let mut within = false;
    for line in corefile.split_inclusive('\n') {
        match (within, line.starts_with(BEGIN), line.starts_with(END)) {
            (false, true, _) => within = true,
            (true, false, true) => within = false,
            (true, true, _) | (false, _, true) => return None,
            (true, ..) => {}
            (false, ..) => rest.push_str(line),
        }
    }
    (!within).then_some(rest)
}

impl World {
    /// `Err`: what is not yet as it should be in the end.
    pub(crate) fn settled(&self) -> Result<(), String> {
        let ours = Target::of(&format!("/apis/weft.mesh/v1alpha1/namespaces/{OURS}/meshconfigs"));
        let meshes: Vec<_> = self.store.all(&ours).collect();
        if let Some((key, _)) =
            meshes.iter().find(|(_, mesh)| mesh["metadata"]["deletionTimestamp"].is_string())
        {
            return Err(format!("MeshConfig {} is still being removed", key.2));
        }
        let age = |(key, mesh): &&(&Key, &Arc<Value>)| {
            (mesh["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned(), key.2.clone())
        };
        let active = meshes.iter().min_by_key(age).map(|(_, mesh)| &***mesh);
        for (key, mesh) in meshes.iter().filter(|(_, mesh)| Some(&***mesh) != active) {
            if reason(mesh, "Ready") != Some("Conflict") {
                return Err(format!("MeshConfig {} is not told that there is another", key.2));
            }
        }
        self.services_settled(active)?;
        self.data_plane_settled(active)?;
        self.dns_settled(active)?;
        active.map_or(Ok(()), |mesh| self.status_settled(mesh))
    }

    /// The Services in the mesh, with their ports.
    fn meshed(&self, mesh: &Value) -> BTreeMap<ServiceId, BTreeMap<u16, String>> {
        let ignored: Vec<_> = mesh["spec"]["namespaces"]["ignore"].as_array().into_iter().flatten().collect();
        let mut meshed = BTreeMap::new();
        for (key, service) in self.store.all(&Target::of("/api/v1/services")) {
            let (namespace, name) = (&key.1, &key.2);
            if namespace == OURS || namespace == "kube-system" || ignored.iter().any(|one| *one == namespace)
            {
                continue;
            }
            let ports = service["spec"]["ports"].as_array().into_iter().flatten();
            let port = |port: &Value| {
                (
                    u16::try_from(port["port"].as_u64().unwrap()).unwrap(),
                    port["name"].as_str().unwrap().to_owned(),
                )
            };
            meshed.insert(ServiceId::new(namespace.as_str(), name.as_str()), ports.map(port).collect());
        }
        meshed
    }

    fn services_settled(&self, mesh: Option<&Value>) -> Result<(), String> {
        let meshed = mesh.map(|mesh| self.meshed(mesh)).unwrap_or_default();
        let mut listen_ports = BTreeMap::new();
        let mut found = BTreeSet::new();
        for (key, shadow) in self.shadows() {
            let id = stands_for(shadow).ok_or(format!("Service {} stands for nothing", key.2))?;
            let Some((mesh, wanted)) = mesh.zip(meshed.get(&id)) else {
                return Err(format!("the shadow {} of {id} is an orphan", key.2));
            };
            found.insert(id.clone());
            let (from, to) = range(mesh);
            for ((_, port), listen_port) in ports(shadow) {
                if let Some(other) = listen_ports.insert(listen_port, format!("{id}:{port}")) {
                    return Err(format!("{id}:{port} and {other} share listen port {listen_port}"));
                }
                if !(from..=to).contains(&listen_port) {
                    return Err(format!("{id}:{port} has listen port {listen_port}, out of range"));
                }
            }
            let port = |port: &Value| {
                (
                    u16::try_from(port["port"].as_u64().unwrap()).unwrap(),
                    port["name"].as_str().unwrap_or_default().to_owned(),
                )
            };
            let has: BTreeMap<_, _> =
                shadow["spec"]["ports"].as_array().into_iter().flatten().map(port).collect();
            if has != *wanted {
                return Err(format!("the shadow of {id} has the ports {has:?}, not {wanted:?}"));
            }
            let selector = serde_json::json!({"app.kubernetes.io/name": "weft-proxy", "app.kubernetes.io/part-of": "weft"});
            if shadow["spec"]["selector"] != selector {
                return Err(format!("the shadow of {id} selects {}", shadow["spec"]["selector"]));
            }
            owned(shadow, mesh).map_err(|why| format!("the shadow of {id} {why}"))?;
        }
        let squatted = |id: &&ServiceId| {
            let name = weft_operator::names::ShadowName::of(id).as_str().to_owned();
            self.law.foreign.contains(&key(&service(OURS, &name)))
        };
        match meshed.keys().find(|id| !found.contains(*id) && !squatted(id)) {
            Some(id) => Err(format!("{id} has no shadow")),
            None => Ok(()),
        }
    }

    fn data_plane_settled(&self, mesh: Option<&Value>) -> Result<(), String> {
        let daemonset = self.store.get(&key(DAEMONSET));
        let service = self.store.get(&key(&service(OURS, "weft-proxy")));
        let Some(mesh) = mesh else {
            return match (daemonset, service, self.proxies.iter().any(|proxy| proxy.up)) {
                (None, None, false) => Ok(()),
                _ => Err("the proxies' DaemonSet or Service is still there".to_owned()),
            };
        };
        let (Some(daemonset), Some(service)) = (daemonset, service) else {
            return Err("the proxies' DaemonSet or Service is not there".to_owned());
        };
        owned(daemonset, mesh).map_err(|why| format!("the DaemonSet {why}"))?;
        owned(service, mesh).map_err(|why| format!("the proxies' Service {why}"))?;
        let pod = &daemonset["spec"]["template"]["spec"];
        let image = mesh["spec"]["proxy"]["image"].as_str().unwrap_or("weft-proxy:test");
        let count = |list: &Value| list.as_array().map_or(0, Vec::len);
        if pod["containers"][0]["image"] != image || pod["serviceAccountName"] != "weft-proxy" {
            return Err("the DaemonSet is not as it should be".to_owned());
        }
        if count(&pod["containers"]) != 1 || count(&pod["containers"][0]["env"]) != 2 {
            return Err("the DaemonSet's pods have what somebody has added".to_owned());
        }
        let secret = self.store.get(&key(CA_SECRET)).map(|secret| secret["data"]["ca.crt"].clone());
        if secret.is_none_or(|secret| !secret.is_string()) {
            return Err("there is no CA".to_owned());
        }
        let template = daemonset["spec"]["template"]["metadata"]["labels"]["weft.mesh/template"].as_str();
        for node in 0..self.nodes {
            let here: Vec<_> =
                self.proxies_on(node).into_iter().map(|i| self.proxies[i].template.as_str()).collect();
            if here.len() != 1 || Some(here[0]) != template {
                return Err(format!(
                    "node {node} has proxies of the templates {here:?}, not one of {template:?}"
                ));
            }
        }
        for proxy in self.proxies.iter().filter(|proxy| proxy.up) {
            for replica in self.replicas.iter().filter(|replica| replica.alive) {
                if format!("{:016x}", proxy.held.digest()) != replica.publisher.digest() {
                    return Err(format!("proxy {} does not hold what {} has", proxy.address, replica.pod));
                }
            }
            for (owner, listen_port) in self.shadow_ports() {
                if proxy.listens.get(&listen_port) != Some(&owner) {
                    return Err(format!(
                        "proxy {} does not listen on {listen_port} for {}",
                        proxy.address,
                        show(&owner)
                    ));
                }
            }
        }
        Ok(())
    }

    fn dns_settled(&self, mesh: Option<&Value>) -> Result<(), String> {
        let corefile = self.corefile();
        let managed = mesh.filter(|mesh| mesh["spec"]["dns"]["provider"] != "None");
        let Some(mesh) = managed else {
            let clean = corefile == self.law.outside;
            return if clean {
                Ok(())
            } else {
                Err(format!("the Corefile is {corefile:?}, not {:?}", self.law.outside))
            };
        };
        let trimmed = |text: &str| text.trim_end_matches('\n').to_owned();
        if outside(&corefile).map(|text| trimmed(&text)) != Some(trimmed(&self.law.outside)) {
            return Err(format!("the Corefile is {corefile:?} around {:?}", self.law.outside));
        }
        if !corefile.contains("\nweft.mesh:53 {\n") {
            return Err("there is no DNS block".to_owned());
        }
        for id in self.meshed(mesh).keys() {
            let name = weft_operator::names::ShadowName::of(id).as_str().to_owned();
            let ruled = name == format!("{}-weft-{}", id.name, id.namespace);
            if !ruled && !corefile.contains(&format!("{}.{}.weft.mesh ", id.name, id.namespace)) {
                return Err(format!("{id} has no line in the DNS block"));
            }
        }
        Ok(())
    }

    fn status_settled(&self, mesh: &Value) -> Result<(), String> {
        let finalizers = &mesh["metadata"]["finalizers"];
        if !finalizers.as_array().is_some_and(|all| all.iter().any(|one| one == "weft.mesh/cleanup")) {
            return Err("the MeshConfig has no finalizer".to_owned());
        }
        let status = &mesh["status"];
        if status["observedGeneration"] != mesh["metadata"]["generation"] {
            return Err("the status is about another generation".to_owned());
        }
        let (squatted, nothing) = (!self.law.foreign.is_empty(), Value::Null);
        for (kind, wanted) in [
            ("Ready", "True"),
            ("ProxiesReady", "True"),
            ("DNSConfigured", "True"),
            ("ConfigSynced", "True"),
            ("Degraded", "False"),
        ] {
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            let condition = conditions.find(|condition| condition["type"] == kind).unwrap_or(&nothing);
            if condition["status"] != wanted && !(kind == "Degraded" && squatted) {
                return Err(format!(
                    "{kind} is {}: {} {}",
                    condition["status"], condition["reason"], condition["message"]
                ));
            }
        }
        let meshed = self.meshed(mesh);
        let shadows = self.shadows().count();
        if status["services"] != meshed.len() || status["shadowServices"] != shadows {
            return Err(format!(
                "the status counts {} Services and {} shadows",
                status["services"], status["shadowServices"]
            ));
        }
        let used: usize = self.shadow_ports().len();
        if status["ports"]["used"] != used && !squatted {
            return Err(format!("the status counts {} ports, there are {used}", status["ports"]["used"]));
        }
        Ok(())
    }
}

/// The listen ports that a MeshConfig allows.
pub(crate) fn range(mesh: &Value) -> (u16, u16) {
    let range = &mesh["spec"]["proxy"]["listenPorts"];
    let end =
        |key: &str, default| range[key].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(default);
    (end("from", 10_000), end("to", 32_767))
}

fn reason<'a>(mesh: &'a Value, kind: &str) -> Option<&'a str> {
    let mut conditions = mesh["status"]["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == kind)?["reason"].as_str()
}

fn owned(object: &Value, mesh: &Value) -> Result<(), String> {
    let owners = object["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    match owners {
        [owner] if owner["uid"] == mesh["metadata"]["uid"] => Ok(()),
        [] => Err("has no owner".to_owned()),
        _ => Err("has another owner".to_owned()),
    }
}
