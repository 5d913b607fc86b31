//! A stand-in for the API server: objects in memory, with lists, watches, merge patches, server-side apply, preconditions,
//! finalizers and garbage collection by owner. It knows no kinds, no defaults and no schemas.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// A collection (`/api/v1 services`), a namespace and a name.
type Key = (String, String, String);
type Body = BoxBody<Bytes, Infallible>;

/// A request that it refuses, as many times as said.
struct Refusal {
    method: String,
    path: String,
    status: Value,
    times: u32,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    /// What each object's manager applied last.
    applied: BTreeMap<Key, Value>,
    /// Everything that happened, for watches.
    log: Vec<(u64, Key, &'static str, Value)>,
    /// "METHOD path" of every request but watches.
    requests: Vec<String>,
    /// What was posted to collections, Events mostly.
    posted: Vec<Value>,
    refusals: Vec<Refusal>,
    version: u64,
}

#[derive(Clone)]
pub(crate) struct ApiServer {
    state: Arc<Mutex<State>>,
    happened: watch::Sender<u64>,
}

/// A request's path, taken apart.
struct Target {
    collection: String,
    namespace: Option<String>,
    name: Option<String>,
    status: bool,
}

impl Target {
    fn of(path: &str) -> Self {
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let (group, rest) = parts.split_at(if parts[0] == "api" { 2 } else { 3 });
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        Self {
            collection: format!("/{} {}", group.join("/"), rest[0]),
            namespace,
            name: rest.get(1).map(|name| (*name).to_owned()),
            status: rest.get(2) == Some(&"status"),
        }
    }

    fn key(&self) -> Key {
        (
            self.collection.clone(),
            self.namespace.clone().unwrap_or_default(),
            self.name.clone().unwrap_or_default(),
        )
    }
}

impl ApiServer {
    pub(crate) async fn start() -> (Self, kube::Client) {
        let this = Self { state: Arc::default(), happened: watch::Sender::new(0) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = this.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = server.clone();
                let answer = service_fn(move |request| server.clone().answer(request));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
            }
        });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        (this, kube::Client::try_from(config).unwrap())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts an object in, or in the place of what is there, as somebody else would.
    pub(crate) fn put(&self, path: &str, object: Value) {
        let key = Target::of(path).key();
        self.lock().store(&key, object);
        self.wake();
    }

    /// Edits an object as somebody else would.
    pub(crate) fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.get(path).expect(path);
        edit(&mut object);
        self.put(path, object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(&Target::of(path).key()).cloned()
    }

    /// As `kubectl delete`.
    pub(crate) fn delete(&self, path: &str) {
        let key = Target::of(path).key();
        self.lock().delete(&key);
        self.wake();
    }

    pub(crate) fn refuse(&self, method: &str, path: &str, code: u16, message: &str, times: u32) {
        let status = failure(code, message);
        let (method, path) = (method.to_owned(), path.to_owned());
        self.lock().refusals.push(Refusal { method, path, status, times });
    }

    /// Every request so far but watches, as "METHOD path".
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// The Events on `name`, as "Reason: note".
    pub(crate) fn events_on(&self, kind: &str, name: &str) -> Vec<String> {
        let about = |event: &&Value| event["regarding"]["kind"] == kind && event["regarding"]["name"] == name;
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let state = self.lock();
        let events = state.posted.iter().filter(about);
        events
            .map(|event| {
                format!("{} {}: {}", text(event, "type"), text(event, "reason"), text(event, "note"))
            })
            .collect()
    }

    /// Every write so far, Events and the Lease apart.
    pub(crate) fn writes(&self) -> Vec<String> {
        let read = |request: &String| {
            request.starts_with("GET ") || request.contains("/events") || request.contains("/leases/")
        };
        self.requests().into_iter().filter(|request| !read(request)).collect()
    }

    fn wake(&self) {
        self.happened.send_modify(|n| *n += 1);
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (method, path) = (request.method().as_str().to_owned(), request.uri().path().to_owned());
        let query = request.uri().query().unwrap_or_default().replace("%3D", "=");
        let apply =
            request.headers().get("content-type").is_some_and(|t| t == "application/apply-patch+yaml");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if query.contains("watch=true") {
            return Ok(respond(200, self.watch(&path, &query)));
        }
        let (code, answer) = self.lock().handle(&method, &path, &query, apply, body);
        self.wake();
        Ok(respond(code, Full::new(Bytes::from(answer.to_string())).boxed()))
    }

    fn watch(&self, path: &str, query: &str) -> Body {
        let (send, receive) = mpsc::channel::<Bytes>(64);
        let (this, target, query) = (self.clone(), Target::of(path), query.to_owned());
        let mut from: u64 = parameter(&query, "resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let mut happened = self.happened.subscribe();
        tokio::spawn(async move {
            loop {
                happened.borrow_and_update();
                let lines = this.lock().since(&mut from, &target, &query);
                for line in lines {
                    if send.send(line.into()).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    changed = happened.changed() => if changed.is_err() { return },
                    () = send.closed() => return,
                }
            }
        });
        StreamBody::new(ReceiverStream::new(receive).map(|line| Ok(Frame::data(line)))).boxed()
    }
}

impl State {
    fn handle(&mut self, method: &str, path: &str, query: &str, apply: bool, body: Value) -> (u16, Value) {
        self.requests.push(format!("{method} {path}"));
        if let Some(refusal) =
            self.refusals.iter_mut().find(|r| r.times > 0 && r.method == method && r.path == path)
        {
            refusal.times -= 1;
            let code = refusal.status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
            return (code.unwrap_or(500), refusal.status.clone());
        }
        if path == "/version" {
            return (200, version());
        }
        let target = Target::of(path);
        let key = target.key();
        let Some(name) = &target.name else {
            if method == "POST" {
                self.posted.push(body.clone());
                return (201, body);
            }
            return (200, self.list(&target, query));
        };
        let before = self.objects.get(&key).cloned();
        match (method, before) {
            ("PATCH", Some(before))
                if apply && !query.contains("force=true") && is_anothers(&before, &body) =>
            {
                (409, failure(409, "Apply failed with 1 conflict: conflict with \"kubectl\""))
            }
            ("PATCH", before) if apply => (200, self.apply(&key, before, &body)),
            (_, None) => (404, failure(404, &format!("{name} not found"))),
            ("GET", Some(object)) => (200, object),
            ("DELETE", Some(_)) => {
                self.delete(&key);
                (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
            }
            (method, Some(before)) => {
                let asked = &body["metadata"]["resourceVersion"];
                if asked.is_string() && *asked != before["metadata"]["resourceVersion"] {
                    return (409, failure(409, "the object has been modified"));
                }
                let mut object = before;
                match (method, target.status) {
                    ("PUT", _) => object = body,
                    (_, true) => merge(&mut object["status"], &body["status"]),
                    (_, false) => merge(&mut object, &body),
                }
                (200, self.store(&key, object))
            }
        }
    }

    /// What a watch that has seen everything up to `from` has to be told; `from` is moved on.
    fn since(&self, from: &mut u64, target: &Target, query: &str) -> Vec<String> {
        let new = self.log.iter().filter(|(version, key, _, object)| {
            *version > *from && matches(target, key) && selected(object, query)
        });
        let line = |(_, _, kind, object): &(u64, Key, &str, Value)| {
            format!("{}\n", json!({"type": kind, "object": object}))
        };
        let lines = new.map(line).collect();
        *from = self.version;
        lines
    }

    fn list(&self, target: &Target, query: &str) -> Value {
        let items =
            self.objects.iter().filter(|(key, object)| matches(target, key) && selected(object, query));
        let items: Vec<_> = items.map(|(_, object)| object).collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }

    /// What the manager no longer says goes, what it says is merged; lists are taken whole.
    fn apply(&mut self, key: &Key, before: Option<Value>, wanted: &Value) -> Value {
        let mut object = before.unwrap_or_else(|| json!({}));
        if let Some(last) = self.applied.insert(key.clone(), wanted.clone()) {
            take_out(&mut object, &last, wanted);
        }
        merge(&mut object, wanted);
        let manager = json!([{"manager": "weft-operator", "operation": "Apply", "apiVersion": wanted["apiVersion"],
            "fieldsType": "FieldsV1", "fieldsV1": fields(wanted)}]);
        object["metadata"]["managedFields"] = manager;
        self.store(key, object)
    }

    fn store(&mut self, key: &Key, mut object: Value) -> Value {
        let before = self.objects.get(key);
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(key.2);
        metadata["namespace"] = json!(key.1);
        if before.is_none() && metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.version));
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        if before == Some(&object) {
            return object;
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key.clone(), object.clone());
        self.log.push((self.version, key.clone(), kind, object.clone()));
        let let_go = object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        if object["metadata"]["deletionTimestamp"].is_string() && let_go {
            self.remove(key);
        }
        object
    }

    fn delete(&mut self, key: &Key) {
        let Some(mut object) = self.objects.get(key).cloned() else { return };
        if object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty()) {
            if object["metadata"]["deletionTimestamp"].is_null() {
                // Long ago by our clock: clocks differ, and an operator may have been away.
                object["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
                self.store(key, object);
            }
        } else {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some(object) = self.objects.remove(key) else { return };
        self.applied.remove(key);
        self.version += 1;
        let uid = object["metadata"]["uid"].clone();
        self.log.push((self.version, key.clone(), "DELETED", object));
        let owned = |object: &Value| {
            object["metadata"]["ownerReferences"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|owner| owner["uid"] == uid)
        };
        let orphans: Vec<_> =
            self.objects.iter().filter(|(_, o)| owned(o)).map(|(key, _)| key.clone()).collect();
        for orphan in orphans {
            self.delete(&orphan);
        }
    }
}

fn respond(code: u16, body: Body) -> Response<Body> {
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn failure(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": message,
        "reason": match code { 403 => "Forbidden", 404 => "NotFound", 409 => "Conflict", 422 => "Invalid", _ => "InternalError" }})
}

fn version() -> Value {
    json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "", "buildDate": "",
        "goVersion": "", "compiler": "", "platform": ""})
}

fn matches(target: &Target, key: &Key) -> bool {
    key.0 == target.collection && target.namespace.as_ref().is_none_or(|namespace| *namespace == key.1)
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Whether an object is what the query's selectors (one `key=value` each) ask for.
fn selected(object: &Value, query: &str) -> bool {
    let field = parameter(query, "fieldSelector").and_then(|s| s.strip_prefix("metadata.name="));
    let label = parameter(query, "labelSelector").map(|s| s.replace("%2F", "/"));
    let label = label.as_deref().and_then(|s| s.split_once('='));
    field.is_none_or(|name| object["metadata"]["name"] == name)
        && label.is_none_or(|(key, value)| object["metadata"]["labels"][key] == value)
}

/// Whether somebody else has said otherwise in a field that `wanted` says something of.
fn is_anothers(object: &Value, wanted: &Value) -> bool {
    let managers = object["metadata"]["managedFields"].as_array();
    let ours = managers.into_iter().flatten().any(|manager| manager["manager"] == "weft-operator");
    !ours && !agrees(object, wanted)
}

fn agrees(object: &Value, wanted: &Value) -> bool {
    match wanted {
        Value::Object(wanted) => wanted.iter().all(|(key, wanted)| agrees(&object[key.as_str()], wanted)),
        wanted => object == wanted,
    }
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
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key.as_str()], value);
        }
    }
}

/// Takes out of `object` what `last` had and `wanted` has not.
fn take_out(object: &mut Value, last: &Value, wanted: &Value) {
    let (Value::Object(object), Value::Object(last)) = (object, last) else { return };
    for (key, last) in last {
        match (object.get_mut(key), wanted.get(key)) {
            (Some(object), Some(wanted)) => take_out(object, last, wanted),
            (Some(_), None) => drop(object.remove(key)),
            (None, _) => {}
        }
    }
}

/// The owned fields, as `fieldsV1` has them; lists as a whole.
fn fields(wanted: &Value) -> Value {
    let Value::Object(map) = wanted else { return json!({}) };
    map.iter()
        .map(|(key, value)| (format!("f:{key}"), fields(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
