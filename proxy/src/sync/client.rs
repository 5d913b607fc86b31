//! One connection to the operator: Hello, then an Ack for each Update, until something breaks.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use weft_config::contract::OPERATOR_METADATA;
use weft_config::wire::v1::config_discovery_client::ConfigDiscoveryClient;
use weft_config::wire::v1::{ProxyMessage, proxy_message::Message};

use super::{Drift, Operator, Sync};

/// The largest update taken: 10,000 Services fit several times.
const LARGEST_UPDATE: usize = 64 << 20;

/// How long a connection may take. The operator's pods are in the same cluster; one on a node that is lost never answers, and
/// is given by its Service for as long as Kubernetes does not know.
const CONNECT: Duration = Duration::from_secs(1);
/// How often an operator that says nothing is asked whether it is there, and how long it may take to answer: one that went with
/// its node is noticed before Kubernetes takes its other pods out of the `EndpointSlices`, which is news to be had.
const ASK: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an operator may take to let us in: where a thousand proxies come at once they wait for each other. One that cannot ask
/// the API server who we are may answer all else; another can, perhaps.
const LET_IN: Duration = Duration::from_secs(30);

/// Why a stream did not come to be, or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("cannot read {path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("the token file does not hold a token")]
    Token,
    #[error("{0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("the operator refused: {0}")]
    Refused(#[from] tonic::Status),
    #[error(transparent)]
    Drift(#[from] Drift),
    #[error("the operator has not let us in for {} s", LET_IN.as_secs())]
    NotLetIn,
    #[error("the operator ended the stream")]
    Ended,
}

/// Connects and follows updates until the stream ends; never returns `Ok`.
pub(super) async fn follow(sync: &mut Sync, operator: &Operator) -> Result<(), StreamError> {
    // Read anew each time: the kubelet rotates the token, the operator may renew its CA.
    let ca = read(&operator.ca_path).await?;
    let token = read(&operator.token_path).await?;
    let bearer = format!("Bearer {}", String::from_utf8_lossy(&token).trim());
    let bearer: MetadataValue<Ascii> = bearer.parse().map_err(|_| StreamError::Token)?;

    let channel = Endpoint::from_shared(operator.url.clone())?
        .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)))?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(ASK)
        .keep_alive_timeout(PATIENCE)
        .keep_alive_while_idle(true)
        .connect_with_connector(sync.connector.clone())
        .await?;
    let mut client = ConfigDiscoveryClient::new(channel)
        .max_decoding_message_size(LARGEST_UPDATE)
        .max_encoding_message_size(LARGEST_UPDATE);

    let (answers, outgoing) = mpsc::channel(16);
    let hello = sync.hello(operator);
    send(&answers, Message::Hello(hello)).await?;
    let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert("authorization", bearer);
    let response =
        tokio::time::timeout(LET_IN, client.stream(request)).await.map_err(|_| StreamError::NotLetIn)??;
    let pod = response.metadata().get(OPERATOR_METADATA).and_then(|pod| pod.to_str().ok());
    pod.unwrap_or_default().clone_into(&mut sync.operator);
    let mut updates = response.into_inner();
    tracing::info!(url = operator.url, "connected to the operator");
    sync.metrics.connected.set(1);
    sync.publish_status(true);
    while let Some(update) = updates.message().await? {
        let ack = sync.take(&update)?;
        send(&answers, Message::Ack(ack)).await?;
    }
    Err(StreamError::Ended)
}

async fn send(answers: &mpsc::Sender<ProxyMessage>, message: Message) -> Result<(), StreamError> {
    answers.send(ProxyMessage { message: Some(message) }).await.map_err(|_| StreamError::Ended)
}

async fn read(path: &std::path::Path) -> Result<Vec<u8>, StreamError> {
    let failed = |source| StreamError::File { path: path.display().to_string(), source };
    tokio::fs::read(path).await.map_err(failed)
}
