//! The config stream as proxies meet it: over TLS, with a token, update by update. The API server is a stand-in that knows
//! four tokens.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status, Streaming};
use weft_config::contract::OPERATOR_METADATA;
use weft_config::wire::v1::config_discovery_client::ConfigDiscoveryClient;
use weft_config::wire::v1::{self, proxy_message::Message};
use weft_config::{Endpoints, EndpointsId, Entry, Resource, ResourceKey, ServiceId};
use weft_operator::compile::Compiled;
use weft_operator::lease::Contact;
use weft_operator::publish::{Owner, Publisher};
use weft_operator::serve::ca;
use weft_operator::serve::metrics::Metrics;
use weft_operator::serve::offered::Offered;
use weft_operator::serve::reader::ReaderKeys;
use weft_operator::serve::stream::ConfigServer;

const NAMESPACE: &str = "weft-system";

/// What a test waits for comes in milliseconds; if it has not come by now it never will.
async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let Ok(done) = tokio::time::timeout(Duration::from_secs(10), future).await else {
        panic!("no {what} in 10 s")
    };
    done
}

/// The API server's part: `TokenReview`.
fn owner(name: &str) -> Owner {
    Owner::Service(ServiceId::new("shop", name))
}

fn review(token: &str) -> Value {
    let user = |name: &str| json!({"username": name, "extra": {"authentication.kubernetes.io/node-name": ["node1"]}});
    let proxy = user("system:serviceaccount:weft-system:weft-proxy");
    match token {
        "proxy" => json!({"authenticated": true, "audiences": ["config.weft.mesh"], "user": proxy}),
        "other-audience" => {
            json!({"authenticated": true, "audiences": ["https://kubernetes"], "user": proxy})
        }
        "foreign" => json!({"authenticated": true, "audiences": ["config.weft.mesh"],
            "user": user("system:serviceaccount:evil:weft-proxy")}),
        _ => json!({"authenticated": false, "error": "no"}),
    }
}

async fn api_server() -> kube::Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = |request: Request<Incoming>| async {
                assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut object: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(object["spec"]["audiences"], json!(["config.weft.mesh"]));
                object["metadata"] = json!({});
                object["status"] = review(object["spec"]["token"].as_str().unwrap());
                let json = Response::builder().header("content-type", "application/json");
                Ok::<_, Infallible>(json.body(Full::new(Bytes::from(object.to_string()))).unwrap())
            };
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    kube::Client::try_from(config).unwrap()
}

struct Operator {
    publisher: Publisher,
    metrics: Arc<Metrics>,
    channel: Channel,
    keys: ReaderKeys,
    offered: watch::Sender<Offered>,
    contact: Contact,
}

async fn operator() -> Operator {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (publisher, metrics) = (Publisher::default(), Arc::new(Metrics::default()));
    let client = api_server().await;
    let (ca, keys) = (ca::make().unwrap(), ReaderKeys::default());
    keys.follow(&ca);
    let server = ConfigServer::new(client, NAMESPACE, publisher.clone(), Arc::clone(&metrics));
    let offered = watch::Sender::default();
    let contact = Contact::lost_after(Duration::from_millis(500));
    let server = server.telling("weft-operator-1", keys.clone()).telling_of_offers(offered.subscribe());
    let server = server.in_touch_by(contact.clone());
    let pair = ca::issue(&ca, NAMESPACE).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { Arc::new(server).serve(listener, &pair).await });
    // As the proxy does it, but for the name's resolution.
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ca.certificate))
        .domain_name(format!("weft-operator.{NAMESPACE}.svc"));
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
    let channel = soon("connection", endpoint.connect()).await.unwrap();
    Operator { publisher, metrics, channel, keys, offered, contact }
}

struct Proxy {
    /// The operator's pod, as it was told.
    operator: String,
    updates: Streaming<v1::Update>,
    answers: mpsc::Sender<v1::ProxyMessage>,
}

impl Operator {
    async fn connect(&self, token: Option<&str>, node: &str, held: Vec<v1::Held>) -> Result<Proxy, Status> {
        let (answers, outgoing) = mpsc::channel(8);
        let hello = v1::Hello { node: node.into(), pod: "p".into(), proxy_version: "1".into(), held };
        let hello = v1::ProxyMessage { message: Some(Message::Hello(hello)) };
        answers.send(hello).await.unwrap();
        let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let mut client = ConfigDiscoveryClient::new(self.channel.clone());
        let response = soon("answer", client.stream(request)).await?;
        let operator = response.metadata().get(OPERATOR_METADATA).unwrap().to_str().unwrap().to_owned();
        Ok(Proxy { operator, updates: response.into_inner(), answers })
    }

    /// Publishes Service `name` with `ready` endpoints.
    fn publish(&self, name: &str, ready: u8) {
        self.publisher.publish(vec![(owner(name), compiled(vec![entry(name, ready)]))]);
    }
}

impl Proxy {
    async fn update(&mut self) -> v1::Update {
        soon("update", self.updates.message()).await.unwrap().expect("an update")
    }

    async fn answer(&self, update: &v1::Update, rejections: Vec<v1::Rejection>) {
        let ack = v1::Ack { version: update.version, rejections, digest: update.digest };
        self.answers.send(v1::ProxyMessage { message: Some(Message::Ack(ack)) }).await.unwrap();
    }
}

fn compiled(entries: Vec<Entry>) -> Compiled {
    Compiled { entries, ..Compiled::default() }
}

fn entry(name: &str, ready: u8) -> Entry {
    let ready = (0..ready).map(|i| ([10, 0, 0, i], 80).into()).collect();
    let id = EndpointsId { service: ServiceId::new("shop", name), port: 80 };
    Entry::new(Resource::Endpoints(id, Endpoints { ready, ..Endpoints::default() }))
}

fn held(entry: &Entry) -> v1::Held {
    v1::Held { key: Some(v1::ResourceKey::from(&entry.resource.key())), hash: entry.hash }
}

/// Names of what comes and of what goes.
fn names(update: &v1::Update) -> (Vec<&str>, Vec<&str>) {
    let upserts = update.upserts.iter().map(|resource| resource.name.as_str()).collect();
    (upserts, update.removals.iter().map(|key| key.name.as_str()).collect())
}

#[tokio::test]
async fn only_proxies_of_ours_are_let_in() {
    let operator = operator().await;
    operator.publish("cart", 1);
    let refused = async |token, node| match operator.connect(token, node, vec![]).await {
        Ok(_) => panic!("{token:?} was let in"),
        Err(status) => (status.code(), status.message().to_owned()),
    };
    assert_eq!(refused(None, "node1").await.0, Code::Unauthenticated);
    assert_eq!(refused(Some("nonsense"), "node1").await.0, Code::Unauthenticated);
    assert_eq!(refused(Some("other-audience"), "node1").await.0, Code::Unauthenticated);
    assert_eq!(refused(Some("foreign"), "node1").await.0, Code::PermissionDenied);
    let (code, message) = refused(Some("proxy"), "node2").await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(message.contains("node1") && message.contains("node2"), "{message}");
    assert_eq!(operator.metrics.refused.get(), 5);
    assert!(operator.connect(Some("proxy"), "node1", vec![]).await.is_ok());
}

#[tokio::test]
async fn a_proxy_is_sent_what_it_lacks_and_then_each_change() {
    let operator = operator().await;
    for name in ["cart", "pay", "old"] {
        operator.publish(name, 1);
    }
    operator.publish("pay", 2);
    operator.publisher.publish(vec![(owner("old"), compiled(vec![]))]);

    let holds = [entry("cart", 1), entry("pay", 1), entry("old", 1)].iter().map(held).collect();
    let mut proxy = operator.connect(Some("proxy"), "node1", holds).await.unwrap();
    let first = proxy.update().await;
    assert_eq!(names(&first), (vec!["shop/pay:80"], vec!["shop/old:80"]), "cart it has");
    assert_eq!(format!("{:016x}", first.digest), operator.publisher.digest());
    assert_eq!(proxy.operator, "weft-operator-1");
    assert_eq!(Some(&first.reader_key), operator.keys.of("node1").as_ref());
    proxy.answer(&first, vec![]).await;

    operator.publish("cart", 3);
    let second = proxy.update().await;
    assert_eq!(second.reader_key, "", "it has been told");
    assert_eq!(names(&second), (vec!["shop/cart:80"], vec![]));
    assert!(second.version > first.version);

    // It has not answered yet: what comes meanwhile gathers, and comes once.
    operator.publish("cart", 4);
    operator.publish("pay", 4);
    operator.publish("pay", 5);
    operator.publish("gone", 1);
    operator.publisher.publish(vec![(owner("gone"), compiled(vec![]))]);
    assert_eq!(operator.metrics.unacknowledged.get(), 1);
    let key = v1::ResourceKey::from(&ResourceKey::Service(ServiceId::new("shop", "cart")));
    let rejection = v1::Rejection { key: Some(key), reason: "no".into() };
    proxy.answer(&second, vec![rejection]).await;
    let third = proxy.update().await;
    assert_eq!(names(&third), (vec!["shop/cart:80", "shop/pay:80"], vec!["shop/gone:80"]));
    let expected = v1::Resource::from(&entry("pay", 5));
    assert!(third.upserts.contains(&expected), "the latest state, not each");
    assert_eq!((operator.metrics.rejections.get(), operator.metrics.streams.get()), (1, 1));
}

#[tokio::test]
async fn a_proxy_that_is_to_end_is_told_whether_services_still_offer_it() {
    let operator = operator().await;
    operator.publish("cart", 1);
    let offered = |pod: &str, still| {
        operator.offered.send_replace(Offered::from([(pod.into(), still)]));
    };
    // It was said before it connected.
    offered("p", true);
    let mut proxy = operator.connect(Some("proxy"), "node1", vec![]).await.unwrap();
    let first = proxy.update().await;
    assert_eq!(first.offered(), v1::Offered::Unspecified);
    proxy.answer(&first, vec![]).await;
    for still in [v1::Offered::Yes, v1::Offered::Yes, v1::Offered::No] {
        offered("p", still == v1::Offered::Yes);
        let told = proxy.update().await;
        assert_eq!((told.offered(), told.digest, names(&told)), (still, first.digest, (vec![], vec![])));
        proxy.answer(&told, vec![]).await;
    }
    // Another's end is not its own.
    offered("q", true);
    operator.publish("cart", 2);
    let change = proxy.update().await;
    assert_eq!((change.offered(), names(&change).0), (v1::Offered::Unspecified, vec!["shop/cart:80"]));
}

#[tokio::test]
async fn before_the_first_version_nothing_is_sent() {
    let operator = operator().await;
    let entry = entry("cart", 1);
    // The answer itself comes with the first update: an operator that knows nothing must not say so in any form.
    let mut waiting = Box::pin(operator.connect(Some("proxy"), "node1", vec![held(&entry)]));
    let answered = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(answered.is_err(), "nothing is known yet");
    operator.publish("cart", 1);
    let mut proxy = waiting.await.unwrap();
    assert_eq!(names(&proxy.update().await), (vec![], vec![]), "it holds all of it");
}

#[tokio::test]
async fn a_proxy_that_is_too_far_behind_is_told_to_come_again() {
    let operator = operator().await;
    operator.publish("cart", 1);
    let mut proxy = operator.connect(Some("proxy"), "node1", vec![]).await.unwrap();
    let first = proxy.update().await;
    for i in 0..1100u16 {
        operator.publish("cart", u8::from(i % 2 == 0) + 1);
    }
    proxy.answer(&first, vec![]).await;
    let status = soon("end", proxy.updates.message()).await.expect_err("the stream ends");
    assert_eq!(status.code(), Code::Aborted);
    let holds = vec![held(&entry("cart", 2))];
    let mut again = operator.connect(Some("proxy"), "node1", holds).await.unwrap();
    assert_eq!(names(&again.update().await), (vec!["shop/cart:80"], vec![]));
}

#[tokio::test]
async fn who_does_not_hear_of_the_api_server_serves_nobody_until_it_does() {
    let operator = operator().await;
    operator.publish("cart", 1);
    let hears = |contact: Contact| {
        tokio::spawn(async move {
            loop {
                contact.made();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let hearing = hears(operator.contact.clone());
    let mut proxy = operator.connect(Some("proxy"), "node1", vec![]).await.unwrap();
    let update = proxy.update().await;
    proxy.answer(&update, vec![]).await;
    hearing.abort();
    let status = soon("end", proxy.updates.message()).await.expect_err("the stream ends");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "this operator does not hear of the API server")
    );
    let again = operator.connect(Some("proxy"), "node1", vec![]).await;
    assert_eq!(again.err().map(|status| status.code()), Some(Code::Unavailable));
    let _hearing = hears(operator.contact.clone());
    soon("contact", async {
        while operator.contact.is_lost() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut again = operator.connect(Some("proxy"), "node1", vec![held(&entry("cart", 1))]).await.unwrap();
    assert_eq!(names(&again.update().await), (vec![], vec![]));
}
