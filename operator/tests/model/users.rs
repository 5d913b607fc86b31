//! What people and other programs do to the cluster: their own Services, the MeshConfig, and what they had better left alone.

use std::sync::OnceLock;

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use weft_config::ServiceId;
use weft_operator::names::ShadowName;

use crate::cluster::a_slice;
use crate::dice::Throw;
use crate::law;
use crate::simulated::chart::{COREFILE, a_mesh, a_service};
use crate::simulated::paths::{CA_SECRET, COREDNS, DAEMONSET, Key, MESH, OURS, key, service, slice};
use crate::simulated::store::validate;
use crate::world::{Stimulus, World};

/// The users' Services: namespace and name. One has a name that the rule of the DNS block cannot read.
const SERVICES: [(&str, &str); 6] = [
    ("shop", "cart"),
    ("shop", "pay"),
    ("shop", "a-weft-b"),
    ("bank", "pay"),
    ("bank", "ledger"),
    ("dev", "cart"),
];
const PORTS: [u16; 4] = [80, 81, 443, 8080];
/// Few enough to be used again soon: as many as all of the Services can need, more, and (the last) fewer.
const RANGES: [(u16, u16); 4] = [(10_000, 10_011), (10_000, 10_015), (10_004, 10_017), (10_006, 10_010)];

/// Another MeshConfig in our namespace.
const SECOND: &str = "/apis/weft.mesh/v1alpha1/namespaces/weft-system/meshconfigs/second";
/// One where it does not belong.
const ELSEWHERE: &str = "/apis/weft.mesh/v1alpha1/namespaces/shop/meshconfigs/weft";

/// Another mesh, of an operator of its own, in a namespace whose Services are in no mesh.
const RIVAL: &str = "/apis/weft.mesh/v1alpha1/namespaces/kube-system/meshconfigs/weft";

/// A CA as the Secret has it: the same for all schedules, since making keys takes long.
fn a_ca() -> Value {
    static CA: OnceLock<Value> = OnceLock::new();
    let make = || {
        let pair = weft_operator::serve::ca::make().unwrap();
        json!({"ca.crt": ByteString(pair.certificate.into()), "ca.key": ByteString(pair.key.into())})
    };
    CA.get_or_init(make).clone()
}

impl World {
    /// What is there before the operator starts, and when users, crashes and ends will be.
    pub(crate) fn prepare(&mut self) -> u64 {
        let mut throw = self.dice.on("beginning");
        self.law.outside = String::from(COREFILE);
        if throw.in_a_thousand(500) {
            self.law.outside.push('\n');
        }
        let outside = self.law.outside.clone();
        self.store.edit(&key(COREDNS), |map| map["data"]["Corefile"] = json!(outside));
        if throw.in_a_thousand(900) {
            self.store.edit(&key(CA_SECRET), |secret| secret["data"] = a_ca());
        }
        for i in 0..throw.between(1, 4) {
            self.put_service(&mut self.dice.on(("first", i)));
        }
        if throw.in_a_thousand(850) {
            let spec = Self::spec(&mut throw);
            self.store.put(&key(MESH), a_mesh(&spec));
        }
        self.start_dns();
        self.store.put(&key(&service("kube-system", "weft-operator")), a_service("", &[9443]));
        let mut at = throw.between(0, 6000);
        for step in 0..throw.between(10, 40) {
            at += match throw.below(10) {
                0..3 => throw.between(1, 50),
                3..8 => throw.between(50, 1500),
                _ => throw.between(1500, 9000),
            };
            self.after(at, ("user", step), Stimulus::User(step));
        }
        for place in 0..self.places {
            let wait = throw.between(1, 2000);
            self.after(wait, ("start", place), Stimulus::Start(place));
        }
        for crash in 0..self.weather.crashes {
            let mut throw = self.dice.on(("crash", crash));
            let place = usize::try_from(throw.below(self.places as u64)).unwrap();
            let stimulus =
                if throw.in_a_thousand(300) { Stimulus::Stop(place) } else { Stimulus::Crash(place) };
            self.after(throw.between(1000, at.max(2000)), ("crash", crash), stimulus);
        }
        self.after(at + 1, "calm", Stimulus::Calm);
        at
    }

    fn spec(throw: &mut Throw) -> Value {
        let (from, to) = *throw.of(&RANGES).unwrap();
        let mut spec = json!({"proxy": {"listenPorts": {"from": from, "to": to}}});
        match throw.below(8) {
            0 => spec["namespaces"] = json!({"ignore": ["bank"]}),
            1 => spec["dns"] = json!({"provider": "None"}),
            2 => spec["proxy"]["image"] = json!("mine:2"),
            _ => {}
        }
        spec
    }

    fn put_service(&mut self, throw: &mut Throw) {
        let (namespace, name) = *throw.of(&SERVICES).unwrap();
        let first = usize::try_from(throw.below(3)).unwrap();
        let ports = &PORTS[first..first + usize::try_from(throw.between(1, 2)).unwrap()];
        let path = key(&service(namespace, name));
        let address = self.store.get(&path).map(|object| object["spec"]["clusterIP"].clone());
        let mut object = a_service("", ports);
        object["spec"]["clusterIP"] = address.unwrap_or(Value::Null);
        self.note(("service", &path, ports), |_| {
            format!("user: Service {namespace}/{name} has the ports {ports:?}")
        });
        self.store.put(&path, object);
    }

    /// The keys of all shadows.
    fn shadow_keys(&self) -> Vec<Key> {
        self.shadows().map(|(key, _)| key.clone()).collect()
    }

    /// A user's step.
    pub(crate) fn user(&mut self, step: u64) {
        let mut throw = self.dice.on(("user", step));
        match throw.below(100) {
            0..26 => self.put_service(&mut throw),
            26..40 => self.delete_service(&mut throw),
            40..46 => self.move_endpoints(&mut throw),
            46..66 => self.meddle_with_shadow(&mut throw),
            66..73 => self.meddle_with_proxies(&mut throw),
            73..87 => self.change_mesh(&mut throw),
            87..94 => self.meddle_with_dns(&mut throw),
            94..97 => self.squat(&mut throw),
            97..99 => {
                let up: Vec<_> = (0..self.proxies.len()).filter(|proxy| self.proxies[*proxy].up).collect();
                if let Some(proxy) = throw.of(&up) {
                    self.stop_proxy(*proxy);
                }
            }
            _ => {
                self.note("ca", |_| "user: the CA's data are deleted".to_owned());
                self.store.edit(&key(CA_SECRET), |secret| secret["data"] = json!({}));
            }
        }
    }

    fn delete_service(&mut self, throw: &mut Throw) {
        let there =
            |(namespace, name): &&(&str, &str)| self.store.get(&key(&service(namespace, name))).is_some();
        let all: Vec<_> = SERVICES.iter().filter(there).collect();
        let Some((namespace, name)) = throw.of(&all) else { return };
        self.note(("delete", namespace, name), |_| format!("user: Service {namespace}/{name} is deleted"));
        self.store.delete(&key(&service(namespace, name)));
    }

    fn move_endpoints(&mut self, throw: &mut Throw) {
        let (namespace, name) = *throw.of(&SERVICES).unwrap();
        let endpoints: Vec<_> = (0..throw.below(3))
            .map(|i| json!({"addresses": [format!("10.3.{}.{i}", throw.below(200))]}))
            .collect();
        self.store.put(&key(&slice(namespace, &format!("{name}-1"))), a_slice(name, &endpoints, 8080));
    }

    /// Somebody edits or deletes a shadow by hand.
    fn meddle_with_shadow(&mut self, throw: &mut Throw) {
        let Some(shadow) = throw.of(&self.shadow_keys()).cloned() else { return };
        let how = throw.below(8);
        self.note(("shadow", &shadow, how), |_| {
            let what = [
                "is deleted",
                "selects others",
                "loses its labels",
                "has another listen port",
                "gets a port",
                "has no owner",
                "is told what it stands for",
                "is deleted",
            ];
            format!("user: the shadow {} {}", shadow.2, what[usize::try_from(how).unwrap()])
        });
        let before = self.store.get(&shadow).cloned().unwrap();
        let listen_port = throw.between(10_000, 10_017);
        let name = *throw.of(&["more", "p80", "p443"]).unwrap();
        match how {
            1 => self.store.edit(&shadow, |object| object["spec"]["selector"] = json!({"app": "hijacked"})),
            2 => self.store.edit(&shadow, |object| object["metadata"]["labels"] = json!({"mine": "yes"})),
            3 => self
                .store
                .edit(&shadow, |object| object["spec"]["ports"][0]["targetPort"] = json!(listen_port)),
            4 => self.store.edit(&shadow, |object| {
                let more = json!({"name": name, "port": 9999, "protocol": "TCP", "targetPort": listen_port});
                let mut edited = object.clone();
                edited["spec"]["ports"].as_array_mut().unwrap().push(more);
                if validate(&shadow, &edited).is_ok() {
                    *object = edited;
                }
            }),
            5 => self.store.edit(&shadow, |object| object["metadata"]["ownerReferences"] = json!([])),
            6 => self.store.edit(&shadow, |object| {
                object["metadata"]["labels"][weft_operator::index::facts::NAME_LABEL] = json!("ledger");
            }),
            _ => self.store.delete(&shadow),
        }
        // What was written by hand is his to answer for, and so is what this pushed aside.
        let after = self.store.get(&shadow).cloned();
        if (2..=6).contains(&how) {
            let touched = [Some(before), after].into_iter().flatten();
            self.law.tainted.extend(touched.flat_map(|object| law::ports(&object)).map(|(_, port)| port));
        }
    }

    /// Somebody edits or deletes the DaemonSet or its Service.
    fn meddle_with_proxies(&mut self, throw: &mut Throw) {
        let proxies = service(OURS, "weft-proxy");
        let how = throw.below(8);
        self.note(("proxies", how), |_| format!("user: meddles with the proxies ({how})"));
        match how {
            0 => self.store.delete(&key(DAEMONSET)),
            1 => self.store.delete(&key(&proxies)),
            2 => self
                .store
                .edit(&key(&proxies), |object| object["spec"]["selector"] = json!({"app": "hijacked"})),
            3 => self.store.edit(&key(&proxies), |object| object["metadata"]["labels"] = json!({})),
            4 => self
                .store
                .edit(&key(DAEMONSET), |object| object["metadata"]["labels"] = json!({"mine": "yes"})),
            5 => self.store.edit(&key(DAEMONSET), |object| {
                let env = object["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut();
                env.unwrap().push(json!({"name": "DEBUG", "value": "1"}));
            }),
            6 => self.store.edit(&key(DAEMONSET), |object| {
                let containers = object["spec"]["template"]["spec"]["containers"].as_array_mut();
                containers.unwrap().push(json!({"name": "sidecar", "image": "his:1"}));
            }),
            _ => self.store.edit(&key(DAEMONSET), |object| {
                object["spec"]["template"]["spec"]["serviceAccountName"] = json!("default");
            }),
        }
    }

    fn change_mesh(&mut self, throw: &mut Throw) {
        let spec = Self::spec(throw);
        let there = self.store.get(&key(MESH)).is_some();
        let how = throw.below(10);
        self.note(("mesh", how), |_| format!("user: MeshConfig ({how}, there: {there}) {spec}"));
        match how {
            0..2 if there => self.store.delete(&key(MESH)),
            2 => self.store.put(&key(SECOND), self.renewed(SECOND, &spec)),
            3 => self.store.delete(&key(SECOND)),
            4 if throw.in_a_thousand(500) => self.store.put(&key(ELSEWHERE), self.renewed(ELSEWHERE, &spec)),
            4 => self.rival(throw),
            _ => self.store.put(&key(MESH), self.renewed(MESH, &spec)),
        }
    }

    /// Another mesh comes, or goes. It asks for our domain or not, is served or not, and has what it asks for or not.
    fn rival(&mut self, throw: &mut Throw) {
        if throw.in_a_thousand(250) {
            // Its own operator may take its time to let it go.
            if throw.in_a_thousand(500) {
                self.note("rival is removed", |_| "user: another mesh is deleted".to_owned());
                self.store.delete(&key(RIVAL));
            } else {
                self.rival_goes();
            }
            return;
        }
        self.rival_goes();
        let domains = *throw.of(&["weft.mesh", "a.weft.mesh", "other.mesh"]).unwrap();
        let mut mesh = a_mesh(&json!({"domains": [domains]}));
        if throw.in_a_thousand(700) {
            let had = if throw.in_a_thousand(700) { json!([domains]) } else { json!([]) };
            mesh["metadata"]["finalizers"] = json!([weft_operator::index::claims::FINALIZER]);
            mesh["status"] = json!({"dns": {"provider": "None", "domains": had}});
        }
        if throw.in_a_thousand(500) {
            mesh["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
        }
        self.note("rival", |_| format!("user: another mesh {mesh}"));
        self.store.put(&key(RIVAL), mesh);
    }

    fn rival_goes(&mut self) {
        self.note("rival goes", |_| "user: another mesh goes".to_owned());
        self.store.edit(&key(RIVAL), |mesh| mesh["metadata"]["finalizers"] = json!([]));
        self.store.delete(&key(RIVAL));
    }

    /// The MeshConfig at `path` with another spec; a new one where there is none.
    fn renewed(&self, path: &str, spec: &Value) -> Value {
        match self.store.get(&key(path)) {
            Some(object) => {
                let mut object = Value::clone(object);
                object["spec"] = spec.clone();
                object
            }
            None => a_mesh(spec),
        }
    }

    /// Somebody, or an addon manager, edits the Corefile.
    fn meddle_with_dns(&mut self, throw: &mut Throw) {
        let corefile = self.corefile();
        let how = throw.below(8);
        self.note(("dns", how), |_| format!("user: Corefile ({how})"));
        let edited = match how {
            0..4 if !self.law.damaged => {
                let line = format!("# by hand {}\n", throw.below(100));
                self.law.outside.insert_str(0, &line);
                format!("{line}{corefile}")
            }
            4..6 => {
                self.law.damaged = false;
                self.law.outside.clone()
            }
            6 => corefile.replace("    errors\n", "    log\n    errors\n"),
            7 if corefile.contains(law::BEGIN) && !self.law.damaged => {
                self.law.damaged = true;
                let cut = corefile.replace(&format!("{}\n", law::END), "");
                assert_ne!(cut, corefile, "the marks are no longer what the model takes them to be");
                cut
            }
            _ => corefile,
        };
        if how == 6 {
            self.law.outside = self.law.outside.replace("    errors\n", "    log\n    errors\n");
        }
        self.store.edit(&key(COREDNS), |map| map["data"]["Corefile"] = json!(edited));
    }

    /// Somebody makes a Service of his own in our namespace, under the name that a shadow will have; or takes it away.
    fn squat(&mut self, throw: &mut Throw) {
        if let Some(foreign) = throw.of(&self.law.foreign.iter().cloned().collect::<Vec<_>>()) {
            self.note(("squat ends", foreign), |_| format!("user: takes his Service {} away", foreign.2));
            self.store.delete(foreign);
            self.law.foreign.remove(foreign);
            return;
        }
        let (namespace, name) = *throw.of(&SERVICES).unwrap();
        let shadow = ShadowName::of(&ServiceId::new(namespace, name)).as_str().to_owned();
        let path = key(&service(OURS, &shadow));
        if self.store.get(&path).is_none() {
            self.note(("squat", &path), |_| format!("user: makes a Service {shadow} of his own"));
            let mut object = a_service("", &[80]);
            object["spec"]["clusterIP"] = Value::Null;
            object["spec"]["selector"] = json!({"app": "his"});
            self.store.put(&path, object);
            self.law.foreign.insert(path);
        }
    }

    /// What only people can repair they repair.
    pub(crate) fn users_repair(&mut self) {
        if std::mem::replace(&mut self.law.damaged, false) {
            let outside = self.law.outside.clone();
            self.store.edit(&key(COREDNS), |map| map["data"]["Corefile"] = json!(outside));
        }
        // Nobody else is served there, and nobody need be told before the end.
        self.store.delete(&key(ELSEWHERE));
        self.rival_goes();
        for foreign in std::mem::take(&mut self.law.foreign) {
            if self.dice.on(("squat goes", &foreign)).in_a_thousand(500) {
                self.store.delete(&foreign);
            } else {
                self.law.foreign.insert(foreign);
            }
        }
    }

    /// Everything ends: the `MeshConfigs` are deleted.
    pub(crate) fn remove_meshes(&mut self) {
        self.note("removal", |_| "--- the MeshConfigs are deleted ---".to_owned());
        self.store.delete(&key(MESH));
        self.store.delete(&key(SECOND));
    }
}
