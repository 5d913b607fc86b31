//! What Kubernetes and the data plane do by themselves: the DaemonSet's proxies come up, their addresses are told in an
//! EndpointSlice, DNS pods read the Corefile when they get to it. A proxy takes its configuration from one replica, whichever it
//! got, late; ports that go from it may be held on for a while by connections that are still open.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weft_config::status::{Holder, ProxyStatus};
use weft_operator::dns::check::Answer as DnsAnswer;

use crate::proxy::Proxy;
use crate::simulated::paths::{COREDNS, DAEMONSET, OURS, key, service, slice};
use crate::world::{Process, Stimulus, World};

/// The collection of pods.
const PODS: &str = "/api/v1 pods";

/// A DNS pod.
pub(crate) struct DnsPod {
    pub(crate) address: String,
    /// The Corefile it runs.
    pub(crate) loaded: String,
}

impl World {
    pub(crate) fn start_dns(&mut self) {
        let corefile = self.corefile();
        let addresses: Vec<_> = (1..=2).map(|i| format!("10.1.0.{i}")).collect();
        self.dns = addresses
            .iter()
            .map(|address| DnsPod { address: address.clone(), loaded: corefile.clone() })
            .collect();
        let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
        let object = a_slice("kube-dns", &endpoints, 53);
        self.store.put(&key(&slice("kube-system", "kube-dns-1")), object);
    }

    pub(crate) fn corefile(&self) -> String {
        let map = self.store.get(&key(COREDNS));
        map.and_then(|map| map["data"]["Corefile"].as_str()).unwrap_or_default().to_owned()
    }

    pub(crate) fn dns_reloads(&mut self, pod: usize) {
        let corefile = self.corefile();
        self.dns[pod].loaded = corefile;
    }

    pub(crate) fn dns_answer(&mut self, pod: &str, domain: &str) -> DnsAnswer {
        let nth = self.nth(("dns", pod));
        if !self.calm && self.dice.on(("deaf", pod, nth)).in_a_thousand(self.weather.deaf) {
            return DnsAnswer::Silent("no answer in time".to_owned());
        }
        let Some(pod) = self.dns.iter().find(|one| one.address == pod) else {
            return DnsAnswer::Silent("connection refused".to_owned());
        };
        let known = pod.loaded.lines().any(|line| line.trim_end() == format!("{domain}:53 {{"));
        if known { DnsAnswer::Configured } else { DnsAnswer::NotConfigured }
    }

    /// The DaemonSet's controller and the kubelets, at once. A new proxy comes beside the old one, which goes when the new one
    /// has been ready for a while; or, when the controller is held, the older of two stays.
    pub(crate) fn kubelets(&mut self) {
        let daemonset = self.store.get(&key(DAEMONSET)).cloned();
        let Some(daemonset) = daemonset.filter(|object| object["metadata"]["deletionTimestamp"].is_null())
        else {
            for proxy in 0..self.proxies.len() {
                self.stop_proxy(proxy);
            }
            return;
        };
        let spec = &daemonset["spec"];
        let template =
            spec["template"]["metadata"]["labels"]["weft.mesh/template"].as_str().unwrap_or_default();
        let rolls = spec["updateStrategy"]["type"] == "RollingUpdate";
        let observed = spec["minReadySeconds"].as_u64().unwrap_or(0) * 1000;
        let mut surge = spec["updateStrategy"]["rollingUpdate"]["maxSurge"].as_u64().unwrap_or(0);
        let on_each: Vec<Vec<usize>> = (0..self.nodes).map(|node| self.proxies_on(node)).collect();
        surge = surge.saturating_sub(on_each.iter().filter(|here| here.len() > 1).count() as u64);
        let now = self.now();
        let mut busy = false;
        for (node, here) in on_each.into_iter().enumerate() {
            let current = |proxy: usize| self.proxies[proxy].template == template;
            match here.as_slice() {
                [] => self.start_proxy(node, &daemonset),
                [only] if rolls && !current(*only) && surge > 0 => {
                    surge -= 1;
                    busy = true;
                    self.start_proxy(node, &daemonset);
                }
                [only] => busy |= rolls && !current(*only),
                [old, new, ..] if rolls && current(*new) => {
                    busy = true;
                    let (old, ready_since) = (*old, self.proxies[*new].ready_since);
                    if ready_since.is_some_and(|since| now >= since + observed) {
                        self.stop_proxy(old);
                    }
                }
                [_, new, ..] => self.stop_proxy(*new),
            }
        }
        if busy {
            self.kubelets_soon();
        }
        self.tell_daemonset(template, &daemonset["metadata"]["generation"]);
    }

    fn tell_daemonset(&mut self, template: &str, generation: &Value) {
        let nodes = self.nodes;
        let with = |which: &dyn Fn(&Proxy) -> bool| {
            let on = |node| self.proxies_on(node).iter().any(|proxy| which(&self.proxies[*proxy]));
            (0..nodes).filter(|node| on(*node)).count()
        };
        let ready = with(&|proxy| proxy.ready_since.is_some());
        let updated = with(&|proxy| proxy.template == template);
        self.store.edit_status(&key(DAEMONSET), |status| {
            *status = json!({"desiredNumberScheduled": nodes, "currentNumberScheduled": nodes, "numberMisscheduled": 0,
                "numberReady": ready, "updatedNumberScheduled": updated, "observedGeneration": generation});
        });
    }

    /// The proxies on a node, the oldest first.
    pub(crate) fn proxies_on(&self, node: usize) -> Vec<usize> {
        (0..self.proxies.len()).filter(|i| self.proxies[*i].up && self.proxies[*i].node == node).collect()
    }

    fn start_proxy(&mut self, node: usize, daemonset: &Value) {
        let number = self.proxies.len() + 1;
        let address = format!("10.2.{node}.{number}");
        self.note(("proxy", &address), |_| format!("proxy {address} starts"));
        let labels = &daemonset["spec"]["template"]["metadata"]["labels"];
        let uid = &daemonset["metadata"]["uid"];
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": labels, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "weft-proxy", "uid": uid, "controller": true}]},
            "spec": {"nodeName": format!("node{node}"), "serviceAccountName": "weft-proxy",
                "containers": [{"name": "proxy", "image": daemonset["spec"]["template"]["spec"]["containers"][0]["image"]}]},
            "status": {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "False"}]}});
        let pod = (PODS.to_owned(), OURS.to_owned(), format!("weft-proxy-{number}"));
        self.store.put(&pod, object);
        let template = labels["weft.mesh/template"].as_str().unwrap_or_default().to_owned();
        self.proxies.push(Proxy::new(node, address, pod, template));
        self.endpoints_soon();
    }

    pub(crate) fn stop_proxy(&mut self, proxy: usize) {
        if !std::mem::replace(&mut self.proxies[proxy].up, false) {
            return;
        }
        let (address, pod) = (self.proxies[proxy].address.clone(), self.proxies[proxy].pod.clone());
        self.note(("proxy ends", &address), |_| format!("proxy {address} ends"));
        self.proxies[proxy].listens.clear();
        self.proxies[proxy].leaving.clear();
        self.store.delete(&pod);
        self.endpoints_soon();
        self.kubelets_soon();
    }

    /// A pod that is deleted is there until all that ran in it has ended.
    pub(crate) fn end_with_their_pods(&mut self) {
        for proxy in 0..self.proxies.len() {
            if self.store.get(&self.proxies[proxy].pod).is_none() {
                self.stop_proxy(proxy);
            }
        }
    }

    /// A proxy has its first configuration.
    fn becomes_ready(&mut self, proxy: usize) {
        self.proxies[proxy].ready_since = Some(self.now());
        let pod = self.proxies[proxy].pod.clone();
        self.store.edit(&pod, |pod| pod["status"]["conditions"][0]["status"] = json!("True"));
        self.endpoints_soon();
        self.kubelets_soon();
    }

    fn endpoints_soon(&mut self) {
        let nth = self.nth("endpoints");
        let wait = self.dice.on(("endpoints", nth)).between(1, if self.calm { 100 } else { 1500 });
        self.soon(wait, "endpoints", Stimulus::Endpoints);
    }

    fn kubelets_soon(&mut self) {
        let nth = self.nth("kubelets");
        let wait = self.dice.on(("kubelets", nth)).between(1, if self.calm { 100 } else { 1500 });
        self.soon(wait, "kubelets", Stimulus::Kubelets);
    }

    /// The controller of `EndpointSlices`, for the proxies.
    pub(crate) fn endpoints(&mut self) {
        let path = key(&slice(OURS, "weft-proxy-1"));
        if self.store.get(&key(&service(OURS, "weft-proxy"))).is_none() {
            self.store.delete(&path);
            return;
        }
        let up = self.proxies.iter().filter(|proxy| proxy.up);
        let endpoint = |proxy: &Proxy| json!({"addresses": [proxy.address], "nodeName": format!("node{}", proxy.node), "conditions": {"ready": proxy.ready_since.is_some()}});
        let endpoints: Vec<_> = up.map(endpoint).collect();
        self.store.put(&path, a_slice("weft-proxy", &endpoints, 9900));
    }

    /// Proxies notice that there is something new, or that they have lost their replica.
    pub(crate) fn proxies_look(&mut self) {
        let serves = |process: &Process| {
            let replica = &self.replicas[*process];
            replica.alive && *replica.versions.borrow() > 0
        };
        let somebody = (0..self.replicas.len()).any(|process| serves(&process));
        for i in 0..self.proxies.len() {
            let proxy = &self.proxies[i];
            let news = match proxy.connected.filter(|process| self.replicas[*process].alive) {
                Some(process) => *self.replicas[process].versions.borrow() != proxy.version,
                None => somebody,
            };
            if !proxy.up || proxy.scheduled || !news {
                continue;
            }
            self.proxies[i].scheduled = true;
            self.some_time(("takes", i), [50, 400, 20_000], Stimulus::ProxyTakes(i));
        }
    }

    pub(crate) fn proxy_takes(&mut self, proxy: usize) {
        self.proxies[proxy].scheduled = false;
        if !self.proxies[proxy].up {
            return;
        }
        let connected = self.proxies[proxy].connected.filter(|process| self.replicas[*process].alive);
        let fresh = connected.is_none();
        let Some(process) = connected.or_else(|| self.any_replica(proxy)) else { return };
        let state = &mut self.proxies[proxy];
        let publisher = &self.replicas[process].publisher;
        if fresh {
            state.refused.clear();
        }
        let news = if fresh { None } else { publisher.since(state.version) };
        let change = news.unwrap_or_else(|| {
            publisher.difference(&state.held.hashes().map(|(key, hash)| (key.clone(), hash)).collect())
        });
        state.take(&change.update);
        let drift = state.refused.is_empty() && state.held.digest() != change.digest;
        (state.connected, state.version) = (Some(process), change.version);
        let first = state.ready_since.is_none();
        if drift {
            self.law.broken(format!(
                "proxy {} holds what its replica does not know of",
                self.proxies[proxy].address
            ));
        }
        self.set_listeners(proxy);
        let pod = self.replicas[process].pod.clone();
        self.note(("took", proxy), |world| {
            let proxy = &world.proxies[proxy];
            let ports: Vec<_> =
                proxy.listens.iter().map(|(port, (id, number))| format!("{port}={id}:{number}")).collect();
            format!("proxy {} takes version {} of {pod}: {}", proxy.address, change.version, ports.join(" "))
        });
        if first {
            self.becomes_ready(proxy);
        }
    }

    /// One that serves, for a proxy that connects.
    fn any_replica(&mut self, proxy: usize) -> Option<Process> {
        let serves = |process: &Process| {
            let replica = &self.replicas[*process];
            replica.alive && *replica.versions.borrow() > 0
        };
        let serving: Vec<_> = (0..self.replicas.len()).filter(serves).collect();
        let nth = self.nth(("connects", proxy));
        self.dice.on(("connects", proxy, nth)).of(&serving).copied()
    }

    fn set_listeners(&mut self, index: usize) {
        let proxy = &mut self.proxies[index];
        let listens = proxy.means();
        let before = std::mem::replace(&mut proxy.listens, listens);
        let taken = proxy.listens.iter().filter(|(port, owner)| before.get(port) != Some(owner));
        let taken: Vec<_> = taken.map(|(port, owner)| (*port, owner.clone())).collect();
        let mut left = Vec::new();
        for (port, owner) in before {
            if !proxy.listens.contains_key(&port) {
                proxy.leaving.insert(port, owner);
                left.push(port);
            }
        }
        for port in proxy.listens.keys() {
            // Whoever is still connected is cut off.
            proxy.leaving.remove(port);
        }
        self.note_stale(index, taken);
        for port in left {
            let nth = self.nth(("leaves", index, port));
            let mut throw = self.dice.on(("leaves", index, port, nth));
            let wait = if throw.in_a_thousand(700) { 1 } else { throw.between(100, 30_000) };
            self.after(wait, ("leaves", index, port), Stimulus::ProxyLetsGo(index, port));
        }
    }

    pub(crate) fn proxy_lets_go(&mut self, proxy: usize, port: u16) {
        let proxy = &mut self.proxies[proxy];
        proxy.leaving.remove(&port);
        if !proxy.listens.contains_key(&port) {
            proxy.stale.remove(&port);
        }
    }

    /// `None`: no answer.
    pub(crate) fn proxy_answer(&mut self, address: &str, holders_of: &[u16]) -> Option<ProxyStatus> {
        let nth = self.nth(("proxy answer", address));
        let deaf = !self.calm && self.dice.on(("deaf", address, nth)).in_a_thousand(self.weather.deaf);
        let proxy = self.proxies.iter().find(|proxy| proxy.address == address && proxy.up)?;
        let held: BTreeSet<_> = proxy.listens.keys().chain(proxy.leaving.keys()).copied().collect();
        let holder = |port: &u16| {
            let (id, number) = proxy.listens.get(port)?;
            let (namespace, name) = (id.namespace.to_string(), id.name.to_string());
            Some(Holder { listen_port: *port, namespace, name, port: *number })
        };
        (!deaf).then(|| ProxyStatus {
            digest: format!("{:016x}", proxy.held.digest()),
            listen_ports: held.into_iter().collect(),
            holders: holders_of.iter().filter_map(holder).collect(),
            connected: proxy.connected.is_some_and(|process| self.replicas[process].alive),
            ..ProxyStatus::default()
        })
    }
}

/// An EndpointSlice of `service`.
pub(crate) fn a_slice(service: &str, endpoints: &[Value], port: u16) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "endpoints": endpoints, "ports": [{"port": port, "protocol": "TCP"}]})
}
