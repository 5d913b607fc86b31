//! What must never happen, looked at with each write and each change of a proxy.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use weft_config::ServiceId;
use weft_operator::apply::FIELD_MANAGER;
use weft_operator::index::facts::{NAME_LABEL, NAMESPACE_LABEL, SHADOW_LABEL};

use crate::api::Sent;
use crate::proxy::Owner;
use crate::simulated::paths::{CA_MAP, CA_SECRET, DAEMONSET, Key, OURS, Target, key};
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
    /// How often a proxy took a port from a replica that was behind.
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

    /// A replica sends something: only while its fence is open, or was when this moment began. Who closes it waits for what has
    /// passed it before he gives the Lease back.
    pub(crate) fn check_sending(&mut self, process: Process, sent: &Sent) {
        if !sent.is_write() || sent.is_lease() {
            return;
        }
        let replica = &self.replicas[process];
        if !replica.fence.is_open() && replica.seen_open != self.now() {
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
            ("/api/v1 services", OURS, _) if is_ours(object) || is_ours(before) => Ok(()),
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
                if proxy.stale.contains(&listen_port) {
                    continue;
                }
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

    /// A proxy has `taken` these ports anew. What it was given may be old: the replica it is connected to is behind, and the one
    /// that leads cannot know. That is counted (decision 23).
    pub(crate) fn note_stale(&mut self, proxy: usize, taken: Vec<(u16, Owner)>) {
        let shadows: BTreeSet<_> = self.shadow_ports().into_iter().collect();
        for (port, owner) in taken {
            let stale = !shadows.contains(&(owner, port));
            self.law.behind += u64::from(stale);
            let marks = &mut self.proxies[proxy].stale;
            if stale {
                marks.insert(port)
            } else {
                marks.remove(&port)
            };
        }
    }

    pub(crate) fn shadow_ports(&self) -> Vec<(Owner, u16)> {
        self.shadows().flat_map(|(_, shadow)| ports(shadow)).collect()
    }

    pub(crate) fn shadows(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.our_services().filter(|(_, object)| is_shadow(object))
    }

    /// The Services in our namespace that nobody else made, but for the proxies'.
    pub(crate) fn our_services(&self) -> impl Iterator<Item = (&Key, &Value)> {
        let all = self.store.all(&Target::of(&format!("/api/v1/namespaces/{OURS}/services")));
        all.map(|(key, object)| (key, &**object))
            .filter(|(key, _)| key.2 != "weft-proxy" && !self.law.foreign.contains(*key))
    }
}

pub(crate) fn show((id, port): &Owner) -> String {
    format!("{id}:{port}")
}

/// Whether it has our label.
pub(crate) fn is_shadow(object: &Value) -> bool {
    object["metadata"]["labels"][SHADOW_LABEL].is_string()
}

/// Whether we made it as a shadow, whatever somebody has made of its labels.
fn is_ours(object: &Value) -> bool {
    let mut managers = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let ours = |fields: &Value| fields["manager"] == FIELD_MANAGER && fields["operation"] == "Apply";
    is_shadow(object) || managers.any(ours)
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
pub(crate) const BEGIN: &str = "# BEGIN weft.mesh";
pub(crate) const END: &str = "# END weft.mesh";

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
