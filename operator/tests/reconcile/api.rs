//! A stand-in for the API server, over HTTP: the objects of [`simulated::store`], and refusals on demand.

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

use crate::simulated::chart;
use crate::simulated::paths::{Selector, Target, key, parameter};
use crate::simulated::store::{self, Store, failure, server_version};

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
    store: Store,
    /// "METHOD path" of every request but watches.
    requests: Vec<String>,
    /// What was posted to collections, Events mostly.
    posted: Vec<Value>,
    refusals: Vec<Refusal>,
    /// The collection whose watches tell of nothing.
    mute: Option<String>,
}

#[derive(Clone)]
pub(crate) struct ApiServer {
    state: Arc<Mutex<State>>,
    happened: watch::Sender<u64>,
}

impl ApiServer {
    /// One that has what the chart and Kubernetes make.
    pub(crate) async fn start() -> (Self, kube::Client) {
        let this = Self { state: Arc::default(), happened: watch::Sender::new(0) };
        chart::install(&mut this.lock().store);
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
        self.lock().store.put(&key(path), object);
        self.wake();
    }

    /// Edits an object as somebody else would.
    pub(crate) fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.get(path).expect(path);
        edit(&mut object);
        self.put(path, object);
    }

    /// Edits an object's status as somebody else would.
    pub(crate) fn edit_status(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        self.lock().store.edit_status(&key(path), edit);
        self.wake();
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.lock().store.get(&key(path)).map(|object| Value::clone(object))
    }

    /// As `kubectl delete`.
    pub(crate) fn delete(&self, path: &str) {
        let mut state = self.lock();
        state.store.delete(&key(path));
        state.store.collect_garbage();
        drop(state);
        self.wake();
    }

    pub(crate) fn refuse(&self, method: &str, path: &str, code: u16, message: &str, times: u32) {
        let status = failure(code, message);
        let (method, path) = (method.to_owned(), path.to_owned());
        self.lock().refusals.push(Refusal { method, path, status, times });
    }

    /// From now on nothing is refused.
    pub(crate) fn refuse_no_more(&self) {
        self.lock().refusals.clear();
    }

    /// From now on no watch tells of objects of the kind of the one at `path`, and none ends. `None`: all tell again, also of what
    /// happened meanwhile.
    pub(crate) fn mute(&self, path: Option<&str>) {
        self.lock().mute = path.map(|path| Target::of(path).collection);
        self.wake();
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
            return (200, server_version());
        }
        let target = Target::of(path);
        if target.name.is_some() {
            let manager = parameter(query, "fieldManager");
            let force = query.contains("force=true");
            let request = store::Request { method, target: &target, apply, force, manager, body: &body };
            let answer = self.store.handle(&request);
            self.store.collect_garbage();
            return answer;
        }
        if method == "POST" {
            self.posted.push(body.clone());
            return (201, body);
        }
        (200, self.store.list(&target, query))
    }

    /// What a watch that has seen everything up to `from` has to be told; `from` is moved on.
    fn since(&self, from: &mut u64, target: &Target, query: &str) -> Vec<String> {
        if self.mute.as_ref() == Some(&target.collection) {
            return Vec::new();
        }
        let selector = Selector::of(query);
        let line = |happened: &store::Happened| {
            let kind = happened.told(target, &selector)?;
            Some(format!("{}\n", json!({"type": kind, "object": &*happened.object})))
        };
        let lines = self.store.since(*from).iter().filter_map(line).collect();
        *from = self.store.version();
        lines
    }
}

fn respond(code: u16, body: Body) -> Response<Body> {
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}
