//! Objects in memory, as an API server keeps them: resource versions and preconditions, server-side apply, merge patches, the
//! status apart, finalizers, garbage collection by owner, addresses and target ports for Services, fields that are left out and
//! amounts that are written otherwise ([`typed`]), and a log for watches. It knows few kinds, no other defaults and hardly any
//! validation. Single-threaded and without a clock: whoever has it says what happens when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::fields::{self, Owners};
use super::paths::{Key, Selector, Target};
use super::typed;

/// Who writes where nothing else is said.
const SOMEBODY: &str = "kubectl";
/// When a schedule begins: the first second of 2026.
const BEGINNING: i64 = 1_767_225_600;

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(crate) struct Happened {
    pub(crate) version: u64,
    pub(crate) key: Key,
    pub(crate) change: Change,
    /// As it is now, or was last.
    pub(crate) object: Arc<Value>,
    /// As it was before.
    pub(crate) before: Option<Arc<Value>>,
}

impl Happened {
    /// As what a watch of `target` with `selector` is told of it: what is no longer selected is gone. `None`: not at all.
    pub(crate) fn told(&self, target: &Target, selector: &Selector) -> Option<&'static str> {
        if !target.matches(&self.key) {
            return None;
        }
        let was = self.before.as_ref().is_some_and(|before| selector.selects(before));
        let is = self.change != Change::Deleted && selector.selects(&self.object);
        match (was, is) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }
}

/// A request, but for lists and watches.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a Target,
    /// A server-side apply.
    pub(crate) apply: bool,
    /// By force.
    pub(crate) force: bool,
    /// `fieldManager` of the query.
    pub(crate) manager: Option<&'a str>,
    pub(crate) body: &'a Value,
}

/// Why a write is refused.
enum Refused {
    Invalid(String),
    Conflict(String),
}

#[derive(Default)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    /// Of objects that somebody applied.
    owners: BTreeMap<Key, Owners>,
    log: Vec<Happened>,
    version: u64,
    /// Seconds since the beginning: what objects made now say when they were made.
    pub(crate) seconds: i64,
    addresses: u32,
    /// Of every object that ever was.
    uids: BTreeSet<String>,
}

impl Store {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// The objects of a collection.
    pub(crate) fn all<'a>(
        &'a self,
        target: &Target,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + use<'a> {
        let first = (target.collection.clone(), target.namespace.clone().unwrap_or_default(), String::new());
        let target = target.clone();
        let within = move |(key, _): &(&Key, &Arc<Value>)| target.matches(key);
        self.objects.range(first..).take_while(within)
    }

    /// The answer to a request for a list, with the `query` it has.
    pub(crate) fn list(&self, target: &Target, query: &str) -> Value {
        let selector = Selector::of(query);
        let objects = self.all(target).map(|(_, object)| &**object);
        let items: Vec<_> = objects.filter(|object| selector.selects(object)).collect();
        let version = self.version().to_string();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items})
    }

    /// What happened after `version`.
    pub(crate) fn since(&self, version: u64) -> &[Happened] {
        &self.log[self.log.partition_point(|happened| happened.version <= version)..]
    }

    /// Puts an object in, or in the place of what is there, as somebody else would.
    pub(crate) fn put(&mut self, key: &Key, object: Value) {
        self.store(key, object, SOMEBODY, false);
    }

    /// Edits an object, when it is there, as somebody else would.
    pub(crate) fn edit(&mut self, key: &Key, edit: impl FnOnce(&mut Value)) {
        let Some(object) = self.objects.get(key) else { return };
        let mut object = Value::clone(object);
        edit(&mut object);
        self.put(key, object);
    }

    /// The same with its status, as the controller of its kind would.
    pub(crate) fn edit_status(&mut self, key: &Key, edit: impl FnOnce(&mut Value)) {
        let Some(object) = self.objects.get(key) else { return };
        let mut object = Value::clone(object);
        edit(&mut object["status"]);
        self.store(key, object, SOMEBODY, true);
    }

    /// What an API server answers.
    pub(crate) fn handle(&mut self, request: &Request<'_>) -> (u16, Value) {
        let Request { method, target, apply, force, manager, body } = *request;
        let key = target.key();
        let manager = manager.unwrap_or(SOMEBODY);
        let Some(before) = self.objects.get(&key).cloned() else {
            return match (method, apply) {
                ("PATCH", true) if body["metadata"]["uid"].is_string() => {
                    (409, failure(409, "uid mismatch: no existing object was found"))
                }
                ("PATCH", true) => {
                    self.answer(&key, |store| store.apply(&key, json!({}), (manager, force), body))
                }
                _ => (404, failure(404, &format!("{} not found", key.2))),
            };
        };
        let asked = match method {
            "DELETE" => &body["preconditions"],
            _ => &body["metadata"],
        };
        for precondition in ["resourceVersion", "uid"] {
            if asked[precondition].is_string() && asked[precondition] != before["metadata"][precondition] {
                return match (method, precondition) {
                    ("PATCH", "uid") => (422, failure(422, "metadata.uid: field is immutable")),
                    _ => (409, failure(409, "the object has been modified")),
                };
            }
        }
        match (method, target.status) {
            ("GET", _) => (200, Value::clone(&before)),
            ("DELETE", _) => {
                self.delete(&key);
                (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
            }
            ("PATCH", false) if apply => {
                self.answer(&key, |store| store.apply(&key, Value::clone(&before), (manager, force), body))
            }
            (method, true) => {
                let mut object = Value::clone(&before);
                if method == "PUT" {
                    object["status"] = body["status"].clone();
                } else {
                    merge(&mut object["status"], &body["status"]);
                }
                (200, self.store(&key, object, manager, true))
            }
            (method, false) => {
                let mut object = Value::clone(&before);
                if method == "PUT" {
                    object = body.clone();
                } else {
                    merge(&mut object, body);
                }
                self.answer(&key, |store| Ok(store.store(&key, object, manager, false)))
            }
        }
    }

    fn answer(&mut self, key: &Key, write: impl FnOnce(&mut Self) -> Result<Value, Refused>) -> (u16, Value) {
        match write(self) {
            Ok(object) => (200, object),
            Err(Refused::Invalid(why)) => (422, failure(422, &format!("{} is invalid: {why}", key.2))),
            Err(Refused::Conflict(with)) => {
                (409, failure(409, &format!("Apply failed with conflicts: {with}")))
            }
        }
    }

    fn apply(
        &mut self,
        key: &Key,
        mut object: Value,
        (manager, force): (&str, bool),
        wanted: &Value,
    ) -> Result<Value, Refused> {
        let mut owners = match self.owners.get(key) {
            Some(owners) => owners.clone(),
            None if object["metadata"].is_object() => {
                let fields = fields::fields(&object);
                Owners::from([(("before-first-apply".to_owned(), "Update"), fields)])
            }
            None => Owners::new(),
        };
        let mut wanted = wanted.clone();
        typed::through(key, &mut wanted);
        if !force && let Some(with) = fields::conflict(&object, &owners, manager, &wanted) {
            return Err(Refused::Conflict(with));
        }
        fields::apply(&mut object, &mut owners, manager, &wanted);
        validate(key, &object).map_err(Refused::Invalid)?;
        object["metadata"]["managedFields"] = fields::managed_fields(&owners, &wanted["apiVersion"]);
        self.owners.insert(key.clone(), owners);
        Ok(self.keep(key, object, false))
    }

    fn store(&mut self, key: &Key, mut object: Value, manager: &str, status: bool) -> Value {
        if !status && let (Some(owners), Some(before)) = (self.owners.get_mut(key), self.objects.get(key)) {
            fields::update(owners, manager, before, &object);
            let version = object["apiVersion"].clone();
            object["metadata"]["managedFields"] = fields::managed_fields(owners, &version);
        }
        self.keep(key, object, status)
    }

    fn keep(&mut self, key: &Key, mut object: Value, status: bool) -> Value {
        let before = self.objects.get(key).cloned();
        self.fill_in(key, &mut object, before.as_deref(), status);
        if before.as_deref() == Some(&object) {
            return object;
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.uids.extend(object["metadata"]["uid"].as_str().map(ToOwned::to_owned));
        let kept = Arc::new(object.clone());
        self.objects.insert(key.clone(), Arc::clone(&kept));
        let change = if before.is_some() { Change::Modified } else { Change::Added };
        self.log.push(Happened { version: self.version, key: key.clone(), change, object: kept, before });
        let let_go = object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        if object["metadata"]["deletionTimestamp"].is_string() && let_go {
            self.remove(key);
        }
        object
    }

    /// What the API server itself writes into an object.
    fn fill_in(&mut self, key: &Key, object: &mut Value, before: Option<&Value>, status: bool) {
        typed::through(key, object);
        if key.0.ends_with(" services") {
            for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
                if port["targetPort"].is_null() {
                    port["targetPort"] = port["port"].clone();
                }
            }
        }
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(key.2);
        if !key.1.is_empty() {
            metadata["namespace"] = json!(key.1);
        }
        // What identifies an object is not for writers to change.
        for fixed in ["uid", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion"] {
            if let Some(before) = before.filter(|before| !before["metadata"][fixed].is_null()) {
                metadata[fixed] = before["metadata"][fixed].clone();
            }
        }
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.version));
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!(self.time().to_string());
        }
        if metadata["generation"].is_null() {
            metadata["generation"] = json!(1);
        }
        let Some(before) = before else {
            if key.0.ends_with(" services") && object["spec"]["clusterIP"].is_null() {
                self.addresses += 1;
                object["spec"]["clusterIP"] =
                    json!(format!("10.97.{}.{}", self.addresses / 250, self.addresses % 250 + 1));
            }
            return;
        };
        let has_status = key.0.ends_with(" meshconfigs") || key.0.ends_with(" daemonsets");
        if has_status && !status && !before["status"].is_null() {
            object["status"] = before["status"].clone();
        }
        if before["spec"] != object["spec"] {
            object["metadata"]["generation"] =
                json!(before["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        if key.0.ends_with(" services") && object["spec"]["clusterIP"].is_null() {
            object["spec"]["clusterIP"] = before["spec"]["clusterIP"].clone();
        }
    }

    /// What time it is there.
    pub(crate) fn time(&self) -> Timestamp {
        Timestamp::from_second(BEGINNING + self.seconds).unwrap()
    }

    /// As `kubectl delete`.
    pub(crate) fn delete(&mut self, key: &Key) {
        let Some(object) = self.objects.get(key) else { return };
        if object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
            return self.remove(key);
        }
        if object["metadata"]["deletionTimestamp"].is_null() {
            let mut object = Value::clone(object);
            // Long ago by our clock: clocks differ, and an operator may have been away.
            object["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
            self.keep(key, object, false);
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some(before) = self.objects.remove(key) else { return };
        self.owners.remove(key);
        self.version += 1;
        let mut object = Value::clone(&before);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let (change, object) = (Change::Deleted, Arc::new(object));
        self.log.push(Happened {
            version: self.version,
            key: key.clone(),
            change,
            object,
            before: Some(before),
        });
    }

    /// What the garbage collector does: what has owners and none of them is there any more is deleted.
    pub(crate) fn collect_garbage(&mut self) {
        loop {
            // What owners it never knew own is left alone.
            let there = |uid: &Value| {
                let known = uid.as_str().is_some_and(|uid| self.uids.contains(uid));
                !known || self.objects.values().any(|object| object["metadata"]["uid"] == *uid)
            };
            let orphan = |object: &Value| {
                let owners = object["metadata"]["ownerReferences"].as_array();
                object["metadata"]["deletionTimestamp"].is_null()
                    && owners.is_some_and(|owners| {
                        !owners.is_empty() && !owners.iter().any(|owner| there(&owner["uid"]))
                    })
            };
            let orphans: Vec<_> = self.objects.iter().filter(|(_, object)| orphan(object)).collect();
            let orphans: Vec<_> = orphans.into_iter().map(|(key, _)| key.clone()).collect();
            if orphans.is_empty() {
                return;
            }
            for key in &orphans {
                self.delete(key);
            }
        }
    }
}

/// The few rules of the API server that we could break.
pub(crate) fn validate(key: &Key, object: &Value) -> Result<(), String> {
    if !key.0.ends_with(" services") {
        return Ok(());
    }
    let ports = object["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut names: Vec<_> = ports.iter().map(|port| port["name"].as_str().unwrap_or_default()).collect();
    names.sort_unstable();
    if ports.len() > 1 && names.contains(&"") {
        return Err("spec.ports[].name: Required value".to_owned());
    }
    let mut numbers: Vec<_> =
        ports.iter().map(|port| (port["port"].as_u64(), port["protocol"].as_str())).collect();
    numbers.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) || numbers.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("spec.ports[]: Duplicate value".to_owned());
    }
    Ok(())
}

/// The body of an answer that refuses.
pub(crate) fn failure(code: u16, message: &str) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": message,
        "reason": reason})
}

/// The answer to `/version`.
pub(crate) fn server_version() -> Value {
    json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "", "buildDate": "",
        "goVersion": "", "compiler": "", "platform": ""})
}

/// JSON merge patch.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        let empty = value.as_array().is_some_and(Vec::is_empty);
        if empty && object[key.as_str()].is_null() {
            // Absent and empty are the same.
            object.as_object_mut().unwrap().remove(key);
        } else if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key.as_str()], value);
        }
    }
}
