//! What must be in the end, and stay so: what `law` says of each write is not repeated here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use weft_config::ServiceId;
use weft_operator::names::ShadowName;

use crate::law::{outside, ports, show, stands_for};
use crate::simulated::paths::{CA_SECRET, DAEMONSET, Key, OURS, Target, key, service};
use crate::world::World;

/// What the environment of the proxies has, and nothing else.
const ENVIRONMENT: [&str; 3] = ["NODE_NAME", "POD_NAME", "WEFT_OFFERED_SECONDS"];

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
        let short = mesh.is_some_and(|mesh| self.is_short(mesh));
        let mut listen_ports = BTreeMap::new();
        let mut found = BTreeSet::new();
        for (key, shadow) in self.our_services() {
            let id = stands_for(shadow).ok_or(format!("Service {} stands for nothing", key.2))?;
            let Some((mesh, wanted)) = mesh.zip(meshed.get(&id)) else {
                return Err(format!("the shadow {} of {id} is an orphan", key.2));
            };
            if *key.2 != *ShadowName::of(&id).as_str() {
                return Err(format!("the shadow {} says that it stands for {id}", key.2));
            }
            found.insert(id.clone());
            let (from, to) = range(mesh);
            for ((_, port), listen_port) in ports(shadow) {
                if let Some(other) = listen_ports.insert(listen_port, format!("{id}:{port}")) {
                    return Err(format!("{id}:{port} and {other} share listen port {listen_port}"));
                }
                if !(from..=to).contains(&listen_port) && !short {
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
            let carried = has.iter().all(|(port, name)| wanted.get(port) == Some(name));
            if !carried || has.is_empty() || (has.len() < wanted.len() && !short) {
                return Err(format!("the shadow of {id} has the ports {has:?}, not {wanted:?}"));
            }
            let selector =
                json!({"app.kubernetes.io/name": "weft-proxy", "app.kubernetes.io/part-of": "weft"});
            if shadow["spec"]["selector"] != selector {
                return Err(format!("the shadow of {id} selects {}", shadow["spec"]["selector"]));
            }
            owned(shadow, mesh).map_err(|why| format!("the shadow of {id} {why}"))?;
        }
        let squatted = |id: &&ServiceId| {
            let name = ShadowName::of(id).as_str().to_owned();
            self.law.foreign.contains(&key(&service(OURS, &name)))
        };
        if short && self.law.foreign.is_empty() {
            let (from, to) = range(mesh.unwrap());
            return match (from..=to).find(|port| !listen_ports.contains_key(port)) {
                Some(port) => Err(format!("listen port {port} is free, and somebody has none")),
                None => Ok(()),
            };
        }
        match meshed.keys().find(|id| !found.contains(*id) && !squatted(id) && !short) {
            Some(id) => Err(format!("{id} has no shadow")),
            None => Ok(()),
        }
    }

    /// There are more ports of Services than listen ports.
    fn is_short(&self, mesh: &Value) -> bool {
        let (from, to) = range(mesh);
        self.meshed(mesh).values().map(BTreeMap::len).sum::<usize>() > usize::from(to - from) + 1
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
        let env = pod["containers"][0]["env"].as_array().into_iter().flatten();
        if count(&pod["containers"]) != 1 || !env.map(|variable| &variable["name"]).eq(&ENVIRONMENT) {
            return Err("the DaemonSet's pods are not as they are made".to_owned());
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
            let name = ShadowName::of(id).as_str().to_owned();
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
        let degraded = if self.is_short(mesh) { "True" } else { "False" };
        for (kind, wanted) in [
            ("Ready", "True"),
            ("ProxiesReady", "True"),
            ("DNSConfigured", "True"),
            ("ConfigSynced", "True"),
            ("Degraded", degraded),
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
fn range(mesh: &Value) -> (u16, u16) {
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
