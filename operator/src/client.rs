//! Connections to the API server. One that has gone silent is given up: without this a replica that was cut off would go on
//! waiting for minutes after the network is back, and what a leader sent last could arrive when another leads. Every request is
//! counted.

use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Request;

use hyper_util::client::legacy::Client as Connections;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use prometheus_client::metrics::counter::Counter;
use tower::{BoxError, Layer, Service, ServiceBuilder};

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

/// For reading, and for what every replica may write. Requests are counted in `requests`.
pub async fn for_reading(requests: Counter) -> Result<Client, ClientError> {
    connect(Config::infer().await?, SILENT, requests)
}

/// For what the leader writes. Requests are counted in `requests`.
pub async fn for_writing(requests: Counter) -> Result<Client, ClientError> {
    connect(Config::infer().await?, UNACKNOWLEDGED, requests)
}

fn connect(config: Config, silent: Duration, requests: Counter) -> Result<Client, ClientError> {
    let counting = Counting(requests);
    if config.proxy_url.is_some() {
        // Somebody's own machine; a pod reaches its API server without.
        return Ok(ClientBuilder::try_from(config)?.with_layer(&counting).build());
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
        .layer(counting)
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(connections);
    Ok(Client::new(service, config.default_namespace))
}

/// Counts what passes.
struct Counting(Counter);

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, requests: self.0.clone() }
    }
}

struct Counted<S> {
    inner: S,
    requests: Counter,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        self.requests.inc();
        self.inner.call(request)
    }
}
