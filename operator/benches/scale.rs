//! The way from watches to configuration at the size of a large cluster, without one: an API server that makes up its answers
//! as it is asked. `cargo bench -p weft-operator --bench scale -- 10000` prints, for so many Services with their shadows and
//! five pods each, how long the first full configuration took, the memory, and the time one changed endpoint takes.
//! `make bench-scale` measures the same on a real cluster; this is for looking into the operator alone.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;
use weft_operator::index::{self, Index};
use weft_operator::publish::Publisher;

/// Pods, and so endpoints, of each Service.
const PODS: usize = 5;
/// Changes of endpoints that are timed.
const CHANGES: usize = 2000;
/// What the API server keeps of who wrote which field: a good part of most objects, and read by nobody here.
const MANAGED: &str = r#""managedFields":[{"manager":"kubectl-client-side-apply","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:kubectl.kubernetes.io/last-applied-configuration":{}},"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:internalTrafficPolicy":{},"f:ports":{".":{},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{},"f:protocol":{},"f:targetPort":{}}},"f:selector":{},"f:sessionAffinity":{},"f:type":{}}}}]"#;

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Clone)]
struct Api {
    services: usize,
    /// The other end of the watch of slices.
    slices: Arc<Mutex<Option<mpsc::UnboundedSender<Bytes>>>>,
}

impl Api {
    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Body> {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        if query.contains("watch=true") {
            let (send, lines) = mpsc::unbounded_channel();
            if path.ends_with("/endpointslices") {
                *self.slices.lock().unwrap() = Some(send);
            } else {
                // Kept open by whoever forgets it.
                std::mem::forget(send);
            }
            let lines = UnboundedReceiverStream::new(lines).map(|line| Ok(Frame::data(line)));
            return Response::new(StreamBody::new(lines).boxed_unsync());
        }
        let (count, item): (usize, fn(usize) -> String) = match path {
            "/api/v1/services" => (self.services * 2, service_or_shadow),
            "/apis/discovery.k8s.io/v1/endpointslices" => (self.services, |number| slice(number, 0)),
            "/api/v1/pods" => (self.services * PODS, pod),
            "/apis/weft.mesh/v1alpha1/meshconfigs" => (1, mesh),
            _ => (0, mesh),
        };
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse::<usize>().ok())
        };
        let from = parameter("continue").unwrap_or(0);
        let to = (from + parameter("limit").unwrap_or(usize::MAX).min(count)).min(count);
        let mut text = String::from(r#"{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1""#);
        if to < count {
            let _ = write!(text, r#","continue":"{to}""#);
        }
        text.push_str(r#"},"items":["#);
        for number in from..to {
            text.push_str(if number > from { "," } else { "" });
            text.push_str(&item(number));
        }
        text.push_str("]}");
        Response::new(Full::new(Bytes::from(text)).boxed_unsync())
    }
}

fn namespace(service: usize) -> String {
    format!("team-{}", service / 100)
}

/// Every other object is the shadow of the one before.
fn service_or_shadow(number: usize) -> String {
    let (service, namespace) = (number / 2, namespace(number / 2));
    let metadata = r#""uid":"0b0f8a3c-8f0f-4a8e-9f43-d6a9b2b7c001","resourceVersion":"1","creationTimestamp":"2026-01-01T00:00:00Z""#;
    if number.is_multiple_of(2) {
        return format!(
            r#"{{"metadata":{{"namespace":"{namespace}","name":"service-{service}",{metadata},"labels":{{"app":"service-{service}"}},{MANAGED}}},"spec":{{"type":"ClusterIP","clusterIP":"10.1.0.1","selector":{{"app":"service-{service}"}},"ports":[{{"name":"http","protocol":"TCP","port":80,"targetPort":8080}}]}},"status":{{"loadBalancer":{{}}}}}}"#
        );
    }
    let listen_port = 10_000 + service;
    format!(
        r#"{{"metadata":{{"namespace":"weft-system","name":"service-{service}-weft-{namespace}",{metadata},"labels":{{"weft.mesh/shadow":"true","weft.mesh/service-namespace":"{namespace}","weft.mesh/service-name":"service-{service}"}},{MANAGED}}},"spec":{{"type":"ClusterIP","clusterIP":"10.2.0.1","ports":[{{"name":"http","protocol":"TCP","port":80,"targetPort":{listen_port}}}]}}}}"#
    )
}

fn address(service: usize, pod: usize) -> String {
    let host = service * 8 + pod;
    format!("10.{}.{}.{}", 64 + (host >> 16), (host >> 8) & 255, host & 255)
}

/// With another `spare` one of its endpoints is another.
fn slice(service: usize, spare: usize) -> String {
    let endpoint = |pod: usize| {
        let address = address(service, if pod == 0 { PODS + spare } else { pod });
        format!(
            r#"{{"addresses":["{address}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"nodeName":"node-{}","targetRef":{{"kind":"Pod","namespace":"team","name":"service-{service}-{pod}","uid":"0b0f8a3c-8f0f-4a8e-9f43-d6a9b2b7c001"}}}}"#,
            pod % 50
        )
    };
    let endpoints = (0..PODS).map(endpoint).collect::<Vec<_>>().join(",");
    let namespace = namespace(service);
    format!(
        r#"{{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{{"namespace":"{namespace}","name":"service-{service}-x","resourceVersion":"1","labels":{{"kubernetes.io/service-name":"service-{service}"}},{MANAGED}}},"addressType":"IPv4","ports":[{{"name":"http","port":8080,"protocol":"TCP"}}],"endpoints":[{endpoints}]}}"#
    )
}

fn pod(number: usize) -> String {
    let (service, pod) = (number / PODS, number % PODS);
    let (namespace, address, node) = (namespace(service), address(service, pod), pod % 50);
    format!(
        r#"{{"metadata":{{"namespace":"{namespace}","name":"service-{service}-7d9f8b6c5-{pod}","uid":"0b0f8a3c-8f0f-4a8e-9f43-d6a9b2b7c001","resourceVersion":"1","labels":{{"app":"service-{service}","pod-template-hash":"7d9f8b6c5","version":"v1","app.kubernetes.io/managed-by":"Helm"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"service-{service}-7d9f8b6c5","uid":"u","controller":true}}],{MANAGED}}},"spec":{{"serviceAccountName":"service-{service}","nodeName":"node-{node}","containers":[{{"name":"main","image":"registry.example/team/service:v1","ports":[{{"containerPort":8080}}],"resources":{{"requests":{{"cpu":"100m","memory":"128Mi"}}}}}}]}},"status":{{"phase":"Running","podIP":"{address}","podIPs":[{{"ip":"{address}"}}],"containerStatuses":[{{"name":"main","image":"i","imageID":"i","ready":true,"restartCount":0,"state":{{"running":{{}}}}}}]}}}}"#
    )
}

fn mesh(_: usize) -> String {
    r#"{"apiVersion":"weft.mesh/v1alpha1","kind":"MeshConfig","metadata":{"namespace":"weft-system","name":"weft","uid":"u","resourceVersion":"1"},"spec":{}}"#.to_owned()
}

/// In MiB: `VmRSS` now, `VmHWM` at most.
fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

#[tokio::main]
async fn main() {
    let services = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1000);
    let api = Api { services, slices: Arc::default() };
    let answering = api.clone();
    let answer = tower::service_fn(move |request: Request<kube::client::Body>| {
        let answering = answering.clone();
        async move { Ok::<_, Infallible>(answering.answer(&request)) }
    });
    let client = kube::Client::new(answer, "default");
    println!("idle: {:.1} MiB", memory("VmRSS"));

    let (index, publisher, began) = (Index::new("weft-system"), Publisher::default(), Instant::now());
    let mut watches = JoinSet::new();
    index::watch::start(&index, &client, &mut watches);
    tokio::spawn(publisher.clone().run(index.clone(), Arc::default()));
    let mut versions = publisher.versions();
    versions.wait_for(|version| *version > 0).await.unwrap();
    println!(
        "{services} Services: {} resources after {:.2} s; {:.1} MiB now, {:.1} MiB at most",
        publisher.resources(),
        began.elapsed().as_secs_f64(),
        memory("VmRSS"),
        memory("VmHWM")
    );
    assert_eq!(publisher.resources(), services * 2, "a Service and its endpoints each");

    while api.slices.lock().unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let send = api.slices.lock().unwrap().take().unwrap();
    let mut took = Vec::with_capacity(CHANGES);
    for turn in 1..=CHANGES {
        let slice = slice(turn * 7919 % services, 1 + turn / services % 2);
        let line = format!("{{\"type\":\"MODIFIED\",\"object\":{slice}}}\n");
        let began = Instant::now();
        versions.mark_unchanged();
        send.send(line.into()).unwrap();
        versions.changed().await.unwrap();
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!("a changed endpoint: p50 {:?}, p99 {:?}", took[CHANGES / 2], took[CHANGES * 99 / 100]);
    println!("in the end {:.1} MiB", memory("VmRSS"));
}
