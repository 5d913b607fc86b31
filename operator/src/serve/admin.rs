//! `/livez`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::metrics::Metrics;
use crate::index::Index;
use crate::publish::Publisher;

/// What the admin port answers from.
pub struct Admin {
    /// The index.
    pub index: Index,
    /// The configuration.
    pub publisher: Publisher,
    /// The series.
    pub metrics: Arc<Metrics>,
    /// Whether the config stream is being served.
    pub serving: watch::Receiver<bool>,
}

impl Admin {
    /// Serves on `listener` until the process ends.
    pub async fn serve(self, listener: TcpListener) {
        let admin = Arc::new(self);
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let admin = Arc::clone(&admin);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer = admin.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(10))
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = served.await {
                    tracing::debug!(%error, "admin connection");
                }
            });
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let ok = || text(StatusCode::OK, "ok\n".into());
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/livez") => ok(),
            (&Method::GET, "/readyz") if !self.index.is_synced() => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the cluster's objects have not all been read yet\n".into(),
            ),
            (&Method::GET, "/readyz") if !*self.serving.borrow() => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the config stream is not served yet: there is no CA\n".into(),
            ),
            (&Method::GET, "/readyz") => ok(),
            (&Method::GET, "/metrics") => {
                self.metrics.resources.set(i64::try_from(self.publisher.resources()).unwrap_or(i64::MAX));
                match self.metrics.encode() {
                    Ok(metrics) => {
                        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                        answer(StatusCode::OK, kind, metrics)
                    }
                    Err(_) => {
                        text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be encoded\n".into())
                    }
                }
            }
            _ => text(StatusCode::NOT_FOUND, "/livez /readyz /metrics\n".into()),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", body)
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}
