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

    /// What a proxy that came now would have to wait for.
    fn missing(&self) -> Option<&'static str> {
        if !self.index.is_synced() {
            return Some("the cluster's objects have not all been read yet\n");
        }
        if *self.publisher.versions().borrow() == 0 {
            return Some("the configuration has not been compiled yet\n");
        }
        (!*self.serving.borrow()).then_some("the config stream is not served: there is no CA yet\n")
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            // That it answers is the answer: the runtime runs its tasks.
            (&Method::GET, "/livez") => text(StatusCode::OK, "ok\n"),
            (&Method::GET, "/readyz") => match self.missing() {
                None => text(StatusCode::OK, "ok\n"),
                Some(missing) => text(StatusCode::SERVICE_UNAVAILABLE, missing),
            },
            (&Method::GET, "/metrics") => {
                let version = *self.publisher.versions().borrow();
                self.metrics.version.set(i64::try_from(version).unwrap_or(i64::MAX));
                self.metrics.resources.set(i64::try_from(self.publisher.resources()).unwrap_or(i64::MAX));
                match self.metrics.encode() {
                    Ok(metrics) => {
                        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                        answer(StatusCode::OK, kind, metrics)
                    }
                    Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be encoded\n"),
                }
            }
            _ => text(StatusCode::NOT_FOUND, "/livez /readyz /metrics\n"),
        }
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", body)
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::watch::{Kind, MeshKind, ServiceKind, SliceKind, follow};
    use kube::runtime::watcher::Event;

    async fn listed<K: Kind>(index: &Index) {
        follow::<K>(index.clone(), futures::stream::iter([Ok(Event::Init), Ok(Event::InitDone)])).await;
    }

    /// It is ready when a proxy that comes would be given a whole configuration, and says what is missing until then.
    #[tokio::test]
    async fn ready_means_that_a_proxy_can_be_served() {
        let (serving_set, serving) = watch::channel(false);
        let index = Index::new("weft-system");
        let publisher = Publisher::default();
        let metrics = Arc::default();
        let admin = Admin { index: index.clone(), publisher: publisher.clone(), metrics, serving };
        let ask = async |path: &str| {
            let answer = admin.answer(&Request::get(path).body(()).unwrap());
            let status = answer.status().as_u16();
            let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        let (status, why) = ask("/readyz").await;
        assert!(status == 503 && why.contains("read"), "{why}");
        listed::<ServiceKind>(&index).await;
        listed::<SliceKind>(&index).await;
        listed::<MeshKind>(&index).await;
        let (status, why) = ask("/readyz").await;
        assert!(status == 503 && why.contains("compiled"), "{why}");
        publisher.publish(vec![]);
        let (status, why) = ask("/readyz").await;
        assert!(status == 503 && why.contains("CA"), "{why}");
        serving_set.send_replace(true);
        assert_eq!(ask("/readyz").await, (200, "ok\n".to_owned()));
        assert_eq!(ask("/livez").await.0, 200);
        assert_eq!(ask("/elsewhere").await.0, 404);
        let (status, metrics) = ask("/metrics").await;
        assert_eq!(status, 200);
        assert!(metrics.contains("\nweft_operator_config_version 1\n"), "{metrics}");
        assert!(metrics.contains("weft_operator_build_info{version="), "{metrics}");
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    }
}
