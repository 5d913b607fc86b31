//! The client of the API server, as every part of the operator uses it: it counts what it asks.

use std::task::{Context, Poll};

use hyper::Request;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use prometheus_client::metrics::counter::Counter;
use tower::{Layer, Service};

/// A client for the cluster this process runs in, or that of the `KUBECONFIG`. Every request is counted in `requests`.
pub async fn client(requests: Counter) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let config = Config::infer().await?;
    Ok(ClientBuilder::try_from(config)?.with_layer(&Counting(requests)).build())
}

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
