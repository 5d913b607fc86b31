//! Connections to the API server. One that has gone silent is given up: without this a replica that was cut off would go on
//! waiting for minutes after the network is back, and what a leader sent last could arrive when another leads.

use std::time::Duration;

use hyper_util::client::legacy::Client as Connections;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// What was written and is not acknowledged by the API server's machine after so long is dropped, by our kernel, with the
/// connection. No write can land later than this after it was sent.
pub(crate) const UNACKNOWLEDGED: Duration = Duration::from_millis(1500);
/// The same for connections by which nothing is written: watches are many, and a lost packet or two should not end them.
const SILENT: Duration = Duration::from_secs(15);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// When an idle connection is asked whether it is still there, and how often.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);

/// Why there is no client.
pub type ClientError = Box<dyn std::error::Error + Send + Sync>;

/// For reading, and for what every replica may write.
pub async fn for_reading() -> Result<Client, ClientError> {
    connect(Config::infer().await?, SILENT)
}

/// For what the leader writes.
pub async fn for_writing() -> Result<Client, ClientError> {
    connect(Config::infer().await?, UNACKNOWLEDGED)
}

fn connect(config: Config, silent: Duration) -> Result<Client, ClientError> {
    if config.proxy_url.is_some() {
        // Somebody's own machine; a pod reaches its API server without.
        return Ok(Client::try_from(config)?);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_tcp_user_timeout(Some(silent));
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    let connections = Connections::builder(TokioExecutor::new()).build::<_, Body>(tls);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(connections);
    Ok(Client::new(service, config.default_namespace))
}
