//! The API server, and the way to it: requests take their time, are refused or get lost on the way there or back; watches are
//! told late, in pieces, and end. What the server does with a request is [`Store`]'s.
//!
//! [`Store`]: crate::simulated::store::Store

use std::io;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::dice::{Throw, hash_of};
use crate::simulated::paths::{Selector, Target, parameter};
use crate::simulated::store::{self, failure, server_version};
use crate::world::{Process, Shared, Stimulus, World};

/// How long a request goes on to travel that nobody waits for any more.
const ON_THE_WIRE: u64 = 1400;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Lines = mpsc::UnboundedReceiver<io::Result<Bytes>>;

/// The API server as one process sees it.
pub(crate) struct Way {
    pub(crate) world: Shared,
    pub(crate) process: Process,
}

impl tower::Service<Request<Body>> for Way {
    type Response = Response<UnsyncBoxBody<Bytes, io::Error>>;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Self::Response, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (world, process) = (self.world.clone(), self.process);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let apply =
                parts.headers.get("content-type").is_some_and(|kind| kind == "application/apply-patch+yaml");
            let request = Sent {
                method: parts.method.to_string(),
                path: without_clock(parts.uri.path()),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                apply,
                body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            };
            let (id, answer) = world.lock().send(process, request);
            let waiting = Waiting { world, id };
            let answer = answer.await;
            drop(waiting);
            match answer {
                Ok(Answer::Is(code, text)) => {
                    respond(code, Full::new(text).map_err(|never| match never {}).boxed_unsync())
                }
                Ok(Answer::Watch(lines)) => {
                    let frames = UnboundedReceiverStream::new(lines).map(|line| line.map(Frame::data));
                    respond(200, StreamBody::new(frames).boxed_unsync())
                }
                Ok(Answer::Broken) => Err("the connection broke".into()),
                // The process is no more.
                Err(_) => std::future::pending().await,
            }
        }
        .boxed()
    }
}

fn respond(
    code: u16,
    body: UnsyncBoxBody<Bytes, io::Error>,
) -> Result<Response<UnsyncBoxBody<Bytes, io::Error>>, Failure> {
    Ok(Response::builder().status(code).header("content-type", "application/json").body(body)?)
}

/// Somebody waits for an answer; or, when it is dropped before, no more.
struct Waiting {
    world: Shared,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        let now = world.now();
        if let Some(pending) = world.requests.get_mut(&self.id) {
            pending.given_up = Some(now);
        }
    }
}

/// A request, as it was sent.
pub(crate) struct Sent {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) apply: bool,
    pub(crate) body: Value,
}

impl Sent {
    pub(crate) fn is_watch(&self) -> bool {
        self.query.contains("watch=true")
    }

    pub(crate) fn is_lease(&self) -> bool {
        self.path.contains("/leases/")
    }

    pub(crate) fn is_event(&self) -> bool {
        self.path.ends_with("/events") || self.path.contains("/events/")
    }

    pub(crate) fn is_write(&self) -> bool {
        self.method != "GET"
    }

    /// What tells it from others that are alike; nothing that comes from the clock.
    fn about(&self) -> u64 {
        if !self.is_event() {
            return hash_of(&self.query);
        }
        let text = |value: &Value| value.to_string();
        hash_of((text(&self.body["regarding"]["name"]), text(&self.body["reason"]), text(&self.body["note"])))
    }
}

pub(crate) enum Answer {
    Is(u16, Bytes),
    Watch(Lines),
    Broken,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Course {
    Well,
    /// Refused before anything was done.
    Refused(u16),
    /// Lost on the way there.
    Lost,
    /// Carried out, and the answer lost.
    Ambiguous,
    /// Its sender dies when it arrives.
    CrashBefore,
    /// Its sender dies when it has been carried out.
    CrashAfter,
}

/// A request on its way, there or back.
pub(crate) struct Pending {
    process: Process,
    sent: Sent,
    course: Course,
    /// How long the way back takes.
    back: u64,
    name: u64,
    /// The answer on its way back.
    answer: Option<Answer>,
    waits: Option<oneshot::Sender<Answer>>,
    given_up: Option<u64>,
}

/// A watch.
pub(crate) struct Watch {
    pub(crate) process: Process,
    pub(crate) target: Target,
    pub(crate) selector: Selector,
    pub(crate) scheduled: bool,
    /// Everything up to this version was told.
    cursor: u64,
    send: mpsc::UnboundedSender<io::Result<Bytes>>,
    name: u64,
}

impl World {
    /// A process sends a request.
    pub(crate) fn send(&mut self, process: Process, sent: Sent) -> (u64, oneshot::Receiver<Answer>) {
        let (waits, receiver) = oneshot::channel();
        let place = self.replicas[process].place;
        let name = hash_of((place, &sent.method, &sent.path, sent.about()));
        let nth = self.nth(name);
        let name = hash_of((name, nth));
        let mut throw = self.dice.on(("request", name));
        let (there, back) = (self.latency(&mut throw), self.latency(&mut throw));
        let course = self.course(&mut throw, &sent);
        self.check_sending(process, &sent);
        let id = self.id();
        let pending =
            Pending { process, sent, course, back, name, answer: None, waits: Some(waits), given_up: None };
        self.requests.insert(id, pending);
        self.after(there, name, Stimulus::Arrive(id));
        (id, receiver)
    }

    fn latency(&self, throw: &mut Throw) -> u64 {
        if self.calm {
            return throw.between(1, 10);
        }
        if !throw.in_a_thousand(self.weather.slow) {
            return throw.between(1, 30);
        }
        if throw.in_a_thousand(800) { throw.between(200, 2500) } else { throw.between(2500, 20_000) }
    }

    fn course(&mut self, throw: &mut Throw, sent: &Sent) -> Course {
        if self.calm {
            return Course::Well;
        }
        let weather = &self.weather;
        if throw.in_a_thousand(weather.refuse) {
            return Course::Refused(*throw.of(&[500, 429, 503, 504]).unwrap());
        }
        if throw.in_a_thousand(weather.lose) {
            return Course::Lost;
        }
        if throw.in_a_thousand(weather.ambiguous) {
            return Course::Ambiguous;
        }
        if !sent.is_write() {
            return Course::Well;
        }
        if throw.in_a_thousand(weather.conflict) {
            return Course::Refused(409);
        }
        if self.crashes < weather.crashes && throw.in_a_thousand(weather.crash_at_write) {
            self.crashes += 1;
            return if throw.in_a_thousand(500) { Course::CrashBefore } else { Course::CrashAfter };
        }
        Course::Well
    }

    /// A request reaches the API server, or gets lost on its way.
    pub(crate) fn arrive(&mut self, id: u64) {
        let now = self.now();
        let Some(pending) = self.requests.get(&id) else { return };
        let (process, name, mut course) = (pending.process, pending.name, pending.course);
        let replica = &self.replicas[process];
        let given_up = pending.given_up.or((!replica.alive).then_some(replica.died));
        let mut throw = self.dice.on(("arrival", name));
        if given_up.is_some_and(|at| now > at + ON_THE_WIRE || throw.in_a_thousand(500)) {
            self.requests.remove(&id);
            return;
        }
        if !self.calm && !self.weather.reachable(replica.place, now) {
            course = Course::Lost;
        }
        if course == Course::CrashBefore && replica.alive {
            self.note(("crash", name), |world| {
                format!("{} is killed before its write lands", world.replicas[process].pod)
            });
            self.requests.remove(&id);
            self.dies(process);
            return;
        }
        let mut pending = self.requests.remove(&id).unwrap();
        let answer = match course {
            Course::Refused(code) => Answer::Is(code, text(&failure(code, "for no reason"))),
            Course::Lost => Answer::Broken,
            Course::Well | Course::Ambiguous | Course::CrashBefore | Course::CrashAfter => {
                self.carry_out(&pending)
            }
        };
        self.note((name, course), |world| {
            let Sent { method, path, query, .. } = &pending.sent;
            let watch = if query.contains("watch=true") { " (watch)" } else { "" };
            let code = match &answer {
                Answer::Is(code, _) => code.to_string(),
                Answer::Watch(_) => "200".to_owned(),
                Answer::Broken => "lost".to_owned(),
            };
            let lost = if course == Course::Ambiguous { ", the answer is lost" } else { "" };
            let told = if path.ends_with("/status") { conditions(&pending.sent.body) } else { String::new() };
            format!("{} {method} {path}{watch}: {code}{lost}{told}", world.replicas[process].pod)
        });
        if course == Course::CrashAfter && self.replicas[process].alive {
            self.note(("crash", name), |world| {
                format!("{} is killed after its write", world.replicas[process].pod)
            });
            self.dies(process);
            return;
        }
        // Whoever hears nothing waits for a while.
        let (answer, back) = match course {
            Course::Lost | Course::Ambiguous if throw.in_a_thousand(300) => {
                (Answer::Broken, throw.between(2000, 20_000))
            }
            Course::Lost | Course::Ambiguous => (Answer::Broken, pending.back),
            _ => (answer, pending.back),
        };
        pending.answer = Some(answer);
        self.requests.insert(id, pending);
        self.after(back, ("back", name), Stimulus::Return(id));
    }

    /// An answer reaches who waits for it.
    pub(crate) fn give_back(&mut self, id: u64) {
        let Some(pending) = self.requests.remove(&id) else { return };
        let place = self.replicas[pending.process].place;
        let reachable = self.calm || self.weather.reachable(place, self.now());
        if let (Some(answer), Some(waits)) = (pending.answer, pending.waits) {
            drop(waits.send(if reachable { answer } else { Answer::Broken }));
        }
    }

    fn carry_out(&mut self, pending: &Pending) -> Answer {
        let Pending { sent, process, name, .. } = pending;
        if sent.path == "/version" {
            return Answer::Is(200, text(&server_version()));
        }
        let target = Target::of(&sent.path);
        // The operator asks for current lists; what a stale one would look like this world does not know.
        assert!(parameter(&sent.query, "resourceVersion") != Some("0"), "{}?{}", sent.path, sent.query);
        if sent.is_watch() {
            return self.begin_watch(*process, target, sent, *name);
        }
        if target.name.is_some() && !sent.is_event() {
            let before = self.store.version();
            let manager = parameter(&sent.query, "fieldManager");
            let (method, apply, body) = (sent.method.as_str(), sent.apply, &sent.body);
            let force = sent.query.contains("force=true");
            let request = store::Request { method, target: &target, apply, force, manager, body };
            let (code, answer) = self.store.handle(&request);
            if sent.is_write() {
                self.check_write(*process, sent, before);
            }
            return Answer::Is(code, text(&answer));
        }
        if sent.is_write() {
            self.check_write(*process, sent, self.store.version());
            return Answer::Is(201, text(&sent.body));
        }
        Answer::Is(200, text(&self.store.list(&target, &sent.query)))
    }

    fn begin_watch(&mut self, process: Process, target: Target, sent: &Sent, name: u64) -> Answer {
        let (send, lines) = mpsc::unbounded_channel();
        let cursor =
            parameter(&sent.query, "resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        let mut throw = self.dice.on(("begin watch", name));
        if !self.calm && cursor < self.store.version() && throw.in_a_thousand(self.weather.gone) {
            let error = json!({"type": "ERROR", "object": failure(410, "too old resource version")});
            drop(send.send(Ok(Bytes::from(format!("{error}\n")))));
            return Answer::Watch(lines);
        }
        let watch = Watch {
            process,
            target,
            selector: Selector::of(&sent.query),
            scheduled: true,
            cursor,
            send,
            name,
        };
        let id = self.id();
        self.watches.insert(id, watch);
        self.schedule_delivery(id);
        Answer::Watch(lines)
    }

    /// Some time the watch `id` is told what is new.
    pub(crate) fn schedule_delivery(&mut self, id: u64) {
        let Some(watch) = self.watches.get(&id) else { return };
        let name = watch.name;
        self.some_time(("delivery", name), [20, 150, 30_000], Stimulus::Deliver(id));
    }

    /// The watch `id` is told something, or ends.
    pub(crate) fn deliver(&mut self, id: u64) {
        let now = self.now();
        let Some(watch) = self.watches.get_mut(&id) else { return };
        watch.scheduled = false;
        let (place, name, version) = (self.replicas[watch.process].place, watch.name, self.store.version());
        let mut throw = self.dice.on(("deliver", name, version, watch.cursor));
        if watch.send.is_closed() {
            self.watches.remove(&id);
            return;
        }
        if !self.calm && (throw.in_a_thousand(self.weather.cut) || !self.weather.reachable(place, now)) {
            if throw.in_a_thousand(500) {
                drop(watch.send.send(Err(io::Error::other("connection reset"))));
            }
            self.note(("cut", name), |_| "a watch ends".to_owned());
            self.watches.remove(&id);
            return;
        }
        let most = if self.calm || throw.in_a_thousand(500) { usize::MAX } else { 1 };
        let mut told = 0;
        let mut more = false;
        for happened in self.store.since(watch.cursor) {
            let Some(kind) = happened.told(&watch.target, &watch.selector) else { continue };
            if told == most {
                more = true;
                break;
            }
            told += 1;
            watch.cursor = happened.version;
            let line = json!({"type": kind, "object": &*happened.object});
            drop(watch.send.send(Ok(Bytes::from(format!("{line}\n")))));
        }
        if more {
            watch.scheduled = true;
            self.schedule_delivery(id);
        } else {
            watch.cursor = version;
            if throw.in_a_thousand(200) {
                let bookmark = json!({"kind": "Bookmark", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}});
                let line = json!({"type": "BOOKMARK", "object": bookmark});
                drop(watch.send.send(Ok(Bytes::from(format!("{line}\n")))));
            }
        }
        self.trace.digest = hash_of((self.trace.digest, name, told));
    }
}

/// Events are named by the clock, which is not the simulated one.
fn without_clock(path: &str) -> String {
    match path.split_once("/events/") {
        Some((collection, _)) => format!("{collection}/events/some"),
        None => path.to_owned(),
    }
}

fn text(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// The conditions in a status that is written.
fn conditions(body: &Value) -> String {
    let conditions = body["status"]["conditions"].as_array().into_iter().flatten();
    let one = |condition: &Value| {
        let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        format!(" {}={} {} ({})", text("type"), text("status"), text("reason"), text("message"))
    };
    conditions.map(one).collect()
}
