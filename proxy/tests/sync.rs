//! The config stream against an operator of the test's own, over real TLS: what a proxy does with good, damaged and foreign
//! configuration, and what it keeps when the operator goes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use support::{Backend, exchange, free_port, until};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use weft_config::wire::v1::config_discovery_server::{ConfigDiscovery, ConfigDiscoveryServer};
use weft_config::wire::v1::{self, proxy_message::Message};
use weft_config::{Endpoints, EndpointsId, Entry, Port, Resource, Service, ServiceId, Timeouts, Traffic};
use weft_proxy::access_log::{AccessLog, Format};
use weft_proxy::listen::{Carriers, Listeners};
use weft_proxy::metrics::Metrics;
use weft_proxy::sync::{Operator as Address, Sync, SyncView};
use weft_proxy::tables::Tables;
use weft_proxy::tables::apply::Applier;

type Updates = mpsc::Sender<Result<v1::Update, Status>>;

/// Notes what proxies say and hands the test the other end of each stream.
#[derive(Clone)]
struct Operator {
    heard: Arc<Mutex<Vec<Message>>>,
    streams: mpsc::Sender<Updates>,
}

#[tonic::async_trait]
impl ConfigDiscovery for Operator {
    type StreamStream = ReceiverStream<Result<v1::Update, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer the-token");
        let (updates, outgoing) = mpsc::channel(8);
        let (heard, mut incoming) = (Arc::clone(&self.heard), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                heard.lock().unwrap().extend(message.message);
            }
        });
        self.streams.send(updates).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

struct Bed {
    directory: PathBuf,
    port: u16,
    heard: Arc<Mutex<Vec<Message>>>,
    streams: mpsc::Receiver<Updates>,
}

impl Bed {
    /// An operator with a certificate of its own CA, and the files a proxy needs to trust and be trusted.
    async fn make(name: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = std::env::temp_dir().join(format!("weft-sync-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let (certificate, key) = certificate(&directory);
        std::fs::write(directory.join("token"), "the-token\n").unwrap();
        let (sender, streams) = mpsc::channel(8);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let operator = Operator { heard: Arc::clone(&heard), streams: sender };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        let server =
            Server::builder().tls_config(tls).unwrap().add_service(ConfigDiscoveryServer::new(operator));
        tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
        Self { directory, port, heard, streams }
    }

    /// A proxy that follows this operator.
    fn proxy(&self) -> (SyncView, Arc<Listeners>) {
        let (tables, metrics) = (Arc::new(Tables::default()), Arc::new(Metrics::default()));
        let access_log = AccessLog::new(Format::Off).unwrap();
        let carriers = Carriers::new(Arc::clone(&tables), "node1", &[Handle::current()], access_log).unwrap();
        let listeners = Arc::new(Listeners::new(carriers, Arc::clone(&metrics)));
        let applier = Applier::new(tables, Arc::clone(&listeners), Arc::clone(&metrics));
        let (sync, view) = Sync::new(applier, metrics, &self.directory);
        tokio::spawn(sync.run(Address {
            url: format!("https://localhost:{}", self.port),
            token_path: self.directory.join("token"),
            ca_path: self.directory.join("ca.crt"),
            node: "node1".into(),
            pod: "pod1".into(),
        }));
        (view, listeners)
    }

    async fn stream(&mut self) -> Updates {
        tokio::time::timeout(Duration::from_secs(10), self.streams.recv())
            .await
            .expect("a proxy connects")
            .unwrap()
    }

    fn hellos(&self) -> Vec<v1::Hello> {
        let heard = self.heard.lock().unwrap();
        heard
            .iter()
            .filter_map(|m| if let Message::Hello(hello) = m { Some(hello.clone()) } else { None })
            .collect()
    }

    fn acks(&self) -> Vec<v1::Ack> {
        let heard = self.heard.lock().unwrap();
        heard
            .iter()
            .filter_map(|m| if let Message::Ack(ack) = m { Some(ack.clone()) } else { None })
            .collect()
    }
}

fn certificate(directory: &Path) -> (String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(directory.join("ca.crt"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap().pem(), key.serialize_pem())
}

/// A Service with one endpoint.
fn service(name: &str, listen_port: u16, backend: std::net::SocketAddr) -> [Entry; 2] {
    let id = ServiceId::new("shop", name);
    let endpoints = EndpointsId { service: id.clone(), port: 80 };
    let port = Port {
        port: 80,
        name: "http".into(),
        listen_port,
        traffic: Traffic::default(),
        timeouts: Timeouts::default(),
        endpoints: endpoints.clone(),
        split: None,
        restriction: None,
    };
    let ready = Endpoints { ready: vec![backend], ..Endpoints::default() };
    [Resource::Endpoints(endpoints, ready), Resource::Service(Service { id, ports: vec![port] })]
        .map(Entry::new)
}

/// An Update with these entries and the digest of them all.
fn update(version: u64, entries: &[Entry]) -> v1::Update {
    let digest = entries.iter().fold(0u64, |sum, entry| sum.wrapping_add(entry.hash));
    v1::Update {
        version,
        upserts: entries.iter().map(v1::Resource::from).collect(),
        removals: vec![],
        digest,
        ..v1::Update::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_serves_and_survives_the_operator_and_a_restart() {
    let mut bed = Bed::make("survives").await;
    let backend = Backend::start("one").await;
    let (view, _) = bed.proxy();
    let updates = bed.stream().await;
    assert!(!*view.complete.borrow(), "not ready without a configuration");
    let port = free_port();
    updates.send(Ok(update(7, &service("cart", port, backend.address)))).await.unwrap();
    until("it is acknowledged", || !bed.acks().is_empty()).await;
    assert_eq!((bed.acks()[0].version, bed.acks()[0].rejections.len()), (7, 0));
    assert!(*view.complete.borrow());
    assert_eq!((view.held.lock().len(), view.status.load().resources), (2, 2));
    assert!(view.reader_key.load().is_none(), "this operator tells no key");
    assert!(exchange(port, "GET / HTTP/1.0\r\n\r\n").await.contains(" 200 OK"));

    // The stream ends: the proxy comes back by itself, says what it holds, and serves all the while.
    drop(updates);
    let _again = bed.stream().await;
    until("it says what it holds", || bed.hellos().len() == 2).await;
    assert_eq!(bed.hellos()[1].held.len(), 2);
    assert!(exchange(port, "GET / HTTP/1.0\r\n\r\n").await.contains(" 200 OK"));

    // Another process on the same directory, with no operator to be reached: ready at once.
    until("the snapshot is written", || bed.directory.join("config").exists()).await;
    let (_sync, second, _) = restarted(&bed.directory);
    // It cannot have the port that the first still listens on, and says so; the rest of the configuration is in force.
    assert!(*second.complete.borrow());
    assert!(
        second.status.load().rejections[0].reason.contains("cannot listen"),
        "{:?}",
        second.status.load()
    );
}

/// A proxy that has not found its operator yet.
fn restarted(directory: &Path) -> (Sync, SyncView, Arc<Tables>) {
    let (tables, metrics) = (Arc::new(Tables::default()), Arc::new(Metrics::default()));
    let access_log = AccessLog::new(Format::Off).unwrap();
    let carriers = Carriers::new(Arc::clone(&tables), "node1", &[Handle::current()], access_log).unwrap();
    let listeners = Arc::new(Listeners::new(carriers, Arc::clone(&metrics)));
    let applier = Applier::new(Arc::clone(&tables), listeners, Arc::clone(&metrics));
    let (sync, view) = Sync::new(applier, metrics, directory);
    (sync, view, tables)
}

/// A restart makes nothing younger: who is who is believed for ten minutes from when an operator last said so.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_operator_believes_no_longer_than_the_process_before_would_have() {
    let mut bed = Bed::make("belief").await;
    let backend = Backend::start("one").await;
    bed.proxy();
    let updates = bed.stream().await;
    updates.send(Ok(update(1, &service("cart", free_port(), backend.address)))).await.unwrap();
    let snapshot = bed.directory.join("config");
    until("the snapshot is written", || snapshot.exists()).await;
    // From now on the first process does not move the time on any more.
    drop(updates);
    let _again = bed.stream().await;
    let stale = |now: SystemTime| {
        std::fs::File::options().write(true).open(&snapshot).unwrap().set_modified(now).unwrap();
        let (_sync, view, tables) = restarted(&bed.directory);
        assert!(*view.complete.borrow(), "what is not about identities is served all the same");
        tables.accounts.is_stale()
    };
    let now = SystemTime::now();
    assert!(!stale(now));
    assert!(!stale(now - Duration::from_secs(500)));
    assert!(stale(now - Duration::from_secs(601)));
    assert!(stale(now + Duration::from_secs(3600)), "a clock that was set back vouches for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_noticed_and_everything_is_asked_for_again() {
    let mut bed = Bed::make("drift").await;
    let backend = Backend::start("one").await;
    let (view, _) = bed.proxy();
    let updates = bed.stream().await;
    let entries = service("cart", free_port(), backend.address);
    updates.send(Ok(update(1, &entries))).await.unwrap();
    until("it is acknowledged", || bed.acks().len() == 1).await;
    let key = "k".to_owned();
    let two = update(2, &entries);
    updates.send(Ok(v1::Update { reader_key: key, ..two })).await.unwrap();
    until("the key is known", || view.reader_key.load().as_ref().is_some_and(|key| **key == "k")).await;
    updates.send(Ok(v1::Update { digest: 1, ..update(3, &[]) })).await.unwrap();
    let _again = bed.stream().await;
    until("it comes again", || bed.hellos().len() == 2).await;
    assert!(bed.hellos()[1].held.is_empty(), "it claims nothing, so that everything is sent");
    assert_eq!(bed.acks().len(), 2, "drift is not acknowledged");
    assert!(view.reader_key.load().is_some(), "the key is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_services_still_offer_it_is_heard_and_changes_nothing() {
    let mut bed = Bed::make("offered").await;
    let backend = Backend::start("one").await;
    let (view, _) = bed.proxy();
    let updates = bed.stream().await;
    let (port, first) = (free_port(), |port| service("cart", port, backend.address));
    updates.send(Ok(update(1, &first(port)))).await.unwrap();
    until("it has taken the first", || bed.acks().len() == 1).await;
    assert!(view.offered.borrow().is_none(), "nobody knows");
    for (n, offered) in [v1::Offered::Yes, v1::Offered::No].into_iter().enumerate() {
        updates
            .send(Ok(v1::Update { version: 1, offered: offered.into(), ..v1::Update::default() }))
            .await
            .unwrap();
        until("it has heard", || bed.acks().len() == 2 + n).await;
        assert_eq!(view.offered.borrow().unwrap().still, offered == v1::Offered::Yes);
    }
    assert!(exchange(port, "GET / HTTP/1.0\r\n\r\n").await.contains(" 200 OK"));
    assert_eq!((bed.hellos().len(), view.status.load().resources), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_served_is_refused_alone_and_its_old_form_stays() {
    let mut bed = Bed::make("refused").await;
    let backend = Backend::start("one").await;
    let (view, _) = bed.proxy();
    let updates = bed.stream().await;
    let (port, other) = (free_port(), free_port());
    updates.send(Ok(update(1, &service("cart", port, backend.address)))).await.unwrap();
    // A newer operator's: a traffic type this version does not know. Beside it something good.
    let mut message = update(2, &service("other", other, backend.address));
    let mut newer = v1::Resource::from(&service("cart", port, backend.address)[1]);
    if let Some(v1::resource::Body::Service(service)) = &mut newer.body {
        service.ports[0].traffic_type = 99;
    }
    message.upserts.push(newer);
    updates.send(Ok(message)).await.unwrap();
    until("both are answered", || bed.acks().len() == 2).await;
    let rejection = bed.acks()[1].rejections[0].clone();
    assert_eq!(rejection.key.unwrap().name, "shop/cart");
    assert!(rejection.reason.contains("99"), "{}", rejection.reason);
    for port in [port, other] {
        assert!(exchange(port, "GET / HTTP/1.0\r\n\r\n").await.contains(" 200 OK"));
    }
    assert_eq!(view.status.load().rejections.len(), 1, "and the admin port tells");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_another_ca_is_not_trusted() {
    let mut bed = Bed::make("foreign").await;
    certificate(&bed.directory); // the proxy now trusts a CA that did not sign the operator's certificate
    let (view, _) = bed.proxy();
    let connected = tokio::time::timeout(Duration::from_secs(2), bed.streams.recv()).await;
    assert!(connected.is_err() && bed.hellos().is_empty());
    assert!(!*view.complete.borrow());
}

/// A resource of a kind that only a newer operator knows: its body is a field this version skips.
fn of_a_newer_kind(name: &str, hash: u64) -> v1::Resource {
    v1::Resource { name: name.into(), body: None, hash, kind: 99 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_only_a_newer_operator_knows_is_refused_and_is_no_drift() {
    let mut bed = Bed::make("newer-kind").await;
    let backend = Backend::start("one").await;
    let (view, _) = bed.proxy();
    let updates = bed.stream().await;
    let entries = service("cart", free_port(), backend.address);
    let mut first = update(1, &entries);
    first.upserts.push(of_a_newer_kind("shop/new", 1000));
    first.digest = first.digest.wrapping_add(1000);
    updates.send(Ok(first)).await.unwrap();
    until("it is answered", || bed.acks().len() == 1).await;
    let key = bed.acks()[0].rejections[0].key.clone().unwrap();
    assert_eq!((key.kind, key.name.as_str()), (99, "shop/new"));

    // Later Updates count it in; they are no drift.
    let other = service("other", free_port(), backend.address);
    let all = [entries.clone(), other.clone()].concat();
    let digest = update(0, &all).digest;
    updates.send(Ok(v1::Update { digest: digest.wrapping_add(1000), ..update(2, &other) })).await.unwrap();
    until("the second is answered", || bed.acks().len() == 2).await;
    assert_eq!(bed.acks()[1].rejections.len(), 1);
    assert_eq!(view.status.load().rejections[0].resource, "shop/new");

    // Once it is gone nothing is refused any more, and the digest is what is held.
    let gone = v1::ResourceKey { kind: 99, name: "shop/new".into() };
    updates.send(Ok(v1::Update { removals: vec![gone], digest, ..update(3, &[]) })).await.unwrap();
    until("the third is answered", || bed.acks().len() == 3).await;
    assert!(bed.acks()[2].rejections.is_empty() && view.status.load().rejections.is_empty());
    assert_eq!((bed.hellos().len(), bed.acks()[2].digest), (1, digest), "one stream all the while");
}

/// What an older operator has no word for stays in the proxy until it asks for everything; then it must go, or what is held
/// would never again be what the operator thinks.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_a_whole_answer_is_gone() {
    let mut bed = Bed::make("whole").await;
    let backend = Backend::start("one").await;
    let (_view, _) = bed.proxy();
    let updates = bed.stream().await;
    let (cart, other) =
        (service("cart", free_port(), backend.address), service("other", free_port(), backend.address));
    updates.send(Ok(update(1, &[cart.clone(), other].concat()))).await.unwrap();
    until("it is acknowledged", || bed.acks().len() == 1).await;
    // An operator that knows nothing of `other`.
    updates.send(Ok(update(2, &cart))).await.unwrap();
    let again = bed.stream().await;
    until("it asks for everything", || bed.hellos().len() == 2).await;
    assert!(bed.hellos()[1].held.is_empty());
    again.send(Ok(update(1, &cart))).await.unwrap();
    until("it is acknowledged", || bed.acks().len() == 2).await;
    assert_eq!(bed.acks()[1].digest, update(0, &cart).digest);
}
