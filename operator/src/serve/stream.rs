//! The config stream: what a proxy lacks, then each change, as one Update after the other.
//!
//! A slow proxy gets what has gathered meanwhile, once: the memory a stream takes is one Update.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use weft_config::ResourceKey;
use weft_config::contract::OPERATOR_METADATA;
use weft_config::wire::v1;
use weft_config::wire::v1::config_discovery_server::{ConfigDiscovery, ConfigDiscoveryServer};
use weft_config::wire::v1::proxy_message::Message;

use super::auth;
use super::ca::Pair;
use super::metrics::{Metrics, Raised};
use super::offered::Offered;
use super::reader::ReaderKeys;
use crate::lease::Contact;
use crate::publish::{Change, Publisher};

/// The largest message: 10,000 Services fit several times.
const LARGEST: usize = 64 << 20;
/// How long a proxy may take to say Hello.
const HELLO: Duration = Duration::from_secs(10);
/// How long a caller may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A stream ends after about this long, so that a token that was withdrawn is noticed; the proxy comes back with what it holds
/// and misses nothing.
const LONGEST_STREAM: Duration = Duration::from_hours(1);
/// Callers that are looked at, or brought to the current version, at a time. When all proxies come at once, as after an
/// operator's restart, this bounds the questions to the API server and the first updates in memory.
const NEWCOMERS: usize = 16;

/// Serves streams.
pub struct ConfigServer {
    client: kube::Client,
    namespace: String,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    newcomers: Semaphore,
    /// Name of this operator's pod.
    pod: Option<AsciiMetadataValue>,
    keys: ReaderKeys,
    offered: watch::Receiver<Offered>,
    contact: Contact,
}

impl ConfigServer {
    /// Serves what `publisher` has to the proxies of `namespace`; asks through `client` who callers are.
    pub fn new(client: kube::Client, namespace: &str, publisher: Publisher, metrics: Arc<Metrics>) -> Self {
        let newcomers = Semaphore::new(NEWCOMERS);
        let keys = ReaderKeys::default();
        let (_, offered) = watch::channel(Offered::default());
        let namespace = namespace.to_owned();
        let contact = Contact::default();
        Self { client, namespace, publisher, metrics, newcomers, pod: None, keys, offered, contact }
    }

    /// Serves only while the API server is heard of, as `contact` says: another replica may know more, and of pods whose addresses
    /// may have changed hands nobody should say who they are.
    #[must_use]
    pub fn in_touch_by(self, contact: Contact) -> Self {
        Self { contact, ..self }
    }

    /// Tells proxies as well whether they are still offered, when they are about to end.
    #[must_use]
    pub fn telling_of_offers(self, offered: watch::Receiver<Offered>) -> Self {
        Self { offered, ..self }
    }

    /// Tells proxies as well that this is `pod`, and the keys with which an operator may read what they hold.
    #[must_use]
    pub fn telling(self, pod: &str, keys: ReaderKeys) -> Self {
        Self { pod: pod.parse().ok(), keys, ..self }
    }

    /// Serves on `listener` with the certificate `pair`, until dropped.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        pair: &Pair,
    ) -> Result<(), tonic::transport::Error> {
        let service = ConfigDiscoveryServer::from_arc(self)
            .max_decoding_message_size(LARGEST)
            .max_encoding_message_size(LARGEST);
        let identity = Identity::from_pem(&pair.certificate, &pair.key);
        Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE))?
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .http2_keepalive_timeout(Some(Duration::from_secs(5)))
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
            .await
    }
}

type Updates = Pin<Box<dyn Stream<Item = Result<v1::Update, Status>> + Send>>;

#[tonic::async_trait]
impl ConfigDiscovery for ConfigServer {
    type StreamStream = Updates;

    async fn stream(
        &self,
        request: Request<Streaming<v1::ProxyMessage>>,
    ) -> Result<Response<Updates>, Status> {
        let turned_away = |status: Status| {
            self.metrics.refused.inc();
            tracing::warn!(%status, "a caller was turned away from the config stream");
            status
        };
        if self.contact.is_lost() {
            return Err(out_of_touch());
        }
        let newcomer = self.newcomers.acquire().await.map_err(|_| Status::unavailable("shutting down"))?;
        let proxy = auth::authenticate(&self.client, &self.namespace, &request).await.map_err(turned_away)?;
        let mut incoming = request.into_inner();
        let hello = first(&mut incoming).await?;
        if proxy.node.as_ref().is_some_and(|node| *node != hello.node) {
            return Err(turned_away(Status::permission_denied(format!(
                "the token is bound to node {}, not to {}",
                proxy.node.unwrap_or_default(),
                hello.node
            ))));
        }
        tracing::info!(node = hello.node, pod = hello.pod, held = hello.held.len(), "proxy connected");
        let (outgoing, updates) = mpsc::channel(1);
        let mut session = Session {
            node: hello.node.clone(),
            pod: hello.pod.clone(),
            offered: self.offered.clone(),
            digest: 0,
            publisher: self.publisher.clone(),
            versions: self.publisher.versions(),
            metrics: Arc::clone(&self.metrics),
            incoming,
            outgoing,
            reader_key: self.keys.of(&hello.node).unwrap_or_default(),
        };
        let first = session.first_change(hello).await?;
        drop(newcomer);
        let contact = self.contact.clone();
        tokio::spawn(async move {
            let metrics = Arc::clone(&session.metrics);
            let _open = Raised::new(&metrics.streams);
            let life = async {
                tokio::select! {
                    ended = session.run(first) => ended,
                    () = contact.lost() => Err(out_of_touch()),
                }
            };
            let lived = tokio::time::timeout(longest(), life).await;
            if let Ok(Err(status)) = lived {
                tracing::info!(node = session.node, why = status.message(), "proxy gone");
                // If it listens still, it learns why. It need not.
                let _ = session.outgoing.try_send(Err(status));
            } else {
                tracing::debug!(node = session.node, "stream ended");
            }
        });
        let updates: Updates = Box::pin(ReceiverStream::new(updates));
        let mut response = Response::new(updates);
        if let Some(pod) = &self.pod {
            response.metadata_mut().insert(OPERATOR_METADATA, pod.clone());
        }
        Ok(response)
    }
}

/// The life of one stream: they began together, they need not end together.
fn longest() -> Duration {
    LONGEST_STREAM.mul_f64(0.75 + fastrand::f64() / 2.0)
}

async fn first(incoming: &mut Streaming<v1::ProxyMessage>) -> Result<v1::Hello, Status> {
    let message = tokio::time::timeout(HELLO, incoming.message()).await;
    let message = message.map_err(|_| Status::deadline_exceeded("no Hello"))??;
    match message.and_then(|message| message.message) {
        Some(Message::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("the first message must be Hello")),
    }
}

/// One stream.
struct Session {
    node: String,
    /// The proxy's pod.
    pod: String,
    offered: watch::Receiver<Offered>,
    /// Of what it holds.
    digest: u64,
    publisher: Publisher,
    versions: watch::Receiver<u64>,
    metrics: Arc<Metrics>,
    incoming: Streaming<v1::ProxyMessage>,
    outgoing: mpsc::Sender<Result<v1::Update, Status>>,
    /// Goes with the first update.
    reader_key: String,
}

impl Session {
    /// What the proxy lacks. Takes `hello`, since what a proxy holds is long and a stream lives for an hour.
    async fn first_change(&mut self, hello: v1::Hello) -> Result<Change, Status> {
        // Version 0 is "not known yet": a difference to it would take everything away from the proxy.
        let known = self.versions.wait_for(|version| *version > 0).await;
        known.map_err(|_| Status::unavailable("shutting down"))?;
        Ok(self.publisher.difference(&held(&hello)))
    }

    async fn run(&mut self, mut change: Change) -> Result<(), Status> {
        // It may have ended its last stream, with another replica, while it was about to end itself.
        self.offered.mark_changed();
        loop {
            let version = change.version;
            self.send(change).await?;
            change = self.change_after(version).await?;
        }
    }

    /// All that changed after `version`, once something did.
    async fn change_after(&mut self, version: u64) -> Result<Change, Status> {
        loop {
            self.versions.mark_unchanged();
            // Slower than the log is long: the proxy reconnects and says what it holds.
            let change = self.publisher.since(version).ok_or_else(|| Status::aborted("too far behind"))?;
            if change.version > version {
                return Ok(change);
            }
            tokio::select! {
                changed = self.versions.changed() => changed.map_err(|_| Status::unavailable("shutting down"))?,
                Ok(()) = self.offered.changed() => self.tell_of_offers(version).await?,
                // Between updates a proxy has nothing to say: this is its leaving.
                message = self.incoming.message() => drop(message?.ok_or_else(left)?),
            }
        }
    }

    /// Whether the proxy is still offered, if it is about to end.
    async fn tell_of_offers(&mut self, version: u64) -> Result<(), Status> {
        let offered = match self.offered.borrow_and_update().get(&*self.pod) {
            None => return Ok(()),
            Some(true) => v1::Offered::Yes,
            Some(false) => v1::Offered::No,
        };
        let update =
            v1::Update { version, digest: self.digest, offered: offered.into(), ..v1::Update::default() };
        self.exchange(update).await
    }

    async fn send(&mut self, change: Change) -> Result<(), Status> {
        self.digest = change.digest;
        let update = v1::Update {
            version: change.version,
            upserts: change.update.upserts.iter().map(v1::Resource::from).collect(),
            removals: change.update.removals.iter().map(v1::ResourceKey::from).collect(),
            digest: change.digest,
            reader_key: std::mem::take(&mut self.reader_key),
            ..v1::Update::default()
        };
        drop(change.update);
        self.exchange(update).await
    }

    /// Sends an update and waits for its Ack, so that a proxy is never sent more than it has taken.
    async fn exchange(&mut self, update: v1::Update) -> Result<(), Status> {
        let version = update.version;
        let metrics = Arc::clone(&self.metrics);
        metrics.updates.inc();
        metrics.update_bytes.inc_by(update.encoded_len() as u64);
        let _waiting = Raised::new(&metrics.unacknowledged);
        self.outgoing.send(Ok(update)).await.map_err(|_| left())?;
        loop {
            let message = self.incoming.message().await?.ok_or_else(left)?;
            let Some(Message::Ack(ack)) = message.message else { continue };
            for rejection in &ack.rejections {
                metrics.rejections.inc();
                let resource = rejection.key.as_ref().map_or("", |key| key.name.as_str());
                let reason = rejection.reason.as_str();
                tracing::warn!(node = self.node, resource, reason, "a proxy refused a resource");
            }
            if ack.version == version {
                return Ok(());
            }
        }
    }
}

fn out_of_touch() -> Status {
    Status::unavailable("this operator does not hear of the API server")
}

fn left() -> Status {
    Status::cancelled("the proxy ended the stream")
}

/// What the proxy says it holds. What cannot be read is not held: it will be sent again.
fn held(hello: &v1::Hello) -> BTreeMap<ResourceKey, u64> {
    let read = |held: &v1::Held| Some((ResourceKey::try_from(held.key.as_ref()?).ok()?, held.hash));
    hello.held.iter().filter_map(read).collect()
}
