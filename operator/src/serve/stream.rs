//! The config stream: what a proxy lacks, then each change, as one Update after the other.
//!
//! A slow proxy gets what has gathered meanwhile, once: the memory a stream takes is one Update.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use weft_config::ResourceKey;
use weft_config::wire::v1;
use weft_config::wire::v1::config_discovery_server::{ConfigDiscovery, ConfigDiscoveryServer};
use weft_config::wire::v1::proxy_message::Message;

use super::auth;
use super::ca::Pair;
use super::metrics::Metrics;
use crate::publish::{Change, Publisher};

/// The largest message: 10,000 Services fit several times.
const LARGEST: usize = 64 << 20;
/// How long a proxy may take to say Hello.
const HELLO: Duration = Duration::from_secs(10);
/// A stream ends after this long, so that a token that was withdrawn is noticed; the proxy comes back with what it holds and
/// misses nothing.
const LONGEST_STREAM: Duration = Duration::from_secs(3600);

/// Serves streams.
pub struct ConfigServer {
    /// For asking who callers are.
    pub client: kube::Client,
    /// Our namespace.
    pub namespace: String,
    /// What is served.
    pub publisher: Publisher,
    /// The series.
    pub metrics: Arc<Metrics>,
}

impl ConfigServer {
    /// Serves on `listener` with the certificate `pair`, until dropped.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        pair: &Pair,
    ) -> Result<(), tonic::transport::Error> {
        let service = ConfigDiscoveryServer::from_arc(self)
            .max_decoding_message_size(LARGEST)
            .max_encoding_message_size(LARGEST);
        Server::builder()
            .tls_config(ServerTlsConfig::new().identity(Identity::from_pem(&pair.certificate, &pair.key)))?
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
        let session = Session {
            node: hello.node.clone(),
            publisher: self.publisher.clone(),
            versions: self.publisher.versions(),
            metrics: Arc::clone(&self.metrics),
            outgoing,
        };
        tokio::spawn(async move {
            session.metrics.streams.inc();
            let lived = tokio::time::timeout(LONGEST_STREAM, session.run(&hello, incoming)).await;
            session.metrics.streams.dec();
            match lived {
                Ok(Err(status)) => tracing::info!(node = session.node, %status, "proxy gone"),
                _ => tracing::debug!(node = session.node, "stream ended"),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(updates))))
    }
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
    publisher: Publisher,
    versions: watch::Receiver<u64>,
    metrics: Arc<Metrics>,
    outgoing: mpsc::Sender<Result<v1::Update, Status>>,
}

impl Session {
    async fn run(&self, hello: &v1::Hello, mut incoming: Streaming<v1::ProxyMessage>) -> Result<(), Status> {
        let mut versions = self.versions.clone();
        // Version 0 is "not known yet": a difference to it would take everything away from the proxy.
        versions.wait_for(|version| *version > 0).await.map_err(|_| Status::unavailable("shutting down"))?;
        let held = held(hello);
        let mut change = self.publisher.difference(&held);
        drop(held);
        let mut at;
        loop {
            at = change.version;
            versions.mark_unchanged();
            self.send(change).await?;
            self.acknowledged(&mut incoming, at).await?;
            change = loop {
                let change = match self.publisher.since(at) {
                    Some(change) => change,
                    // Slower than the log is long: the proxy reconnects and says what it holds.
                    None => return Err(Status::aborted("too far behind")),
                };
                if change.version > at {
                    break change;
                }
                tokio::select! {
                    changed = versions.changed() => changed.map_err(|_| Status::unavailable("shutting down"))?,
                    // Between updates a proxy has nothing to say: this is its leaving.
                    message = incoming.message() => {
                        message?.ok_or_else(|| Status::cancelled("the proxy ended the stream"))?;
                    }
                }
            };
        }
    }

    async fn send(&self, change: Change) -> Result<(), Status> {
        let update = v1::Update {
            version: change.version,
            upserts: change.update.upserts.iter().map(v1::Resource::from).collect(),
            removals: change.update.removals.iter().map(v1::ResourceKey::from).collect(),
            digest: change.digest,
        };
        self.metrics.updates.inc();
        self.metrics.update_bytes.inc_by(update.encoded_len() as u64);
        self.outgoing.send(Ok(update)).await.map_err(|_| Status::cancelled("the proxy ended the stream"))
    }

    /// Waits for the Ack of `version`, so that a proxy is never sent more than it has taken.
    async fn acknowledged(
        &self,
        incoming: &mut Streaming<v1::ProxyMessage>,
        version: u64,
    ) -> Result<(), Status> {
        loop {
            let message =
                incoming.message().await?.ok_or_else(|| Status::cancelled("the proxy ended the stream"))?;
            let Some(Message::Ack(ack)) = message.message else { continue };
            for rejection in &ack.rejections {
                self.metrics.rejections.inc();
                let resource = rejection.key.as_ref().map_or("", |key| key.name.as_str());
                tracing::warn!(
                    node = self.node,
                    resource,
                    reason = rejection.reason,
                    "a proxy refused a resource"
                );
            }
            if ack.version == version {
                return Ok(());
            }
        }
    }
}

/// What the proxy says it holds. What cannot be read is not held: it will be sent again.
fn held(hello: &v1::Hello) -> BTreeMap<ResourceKey, u64> {
    let read = |held: &v1::Held| Some((ResourceKey::try_from(held.key.as_ref()?).ok()?, held.hash));
    hello.held.iter().filter_map(read).collect()
}
