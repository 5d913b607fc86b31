//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::watch;

use super::http::{Answer, answer, text};
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
    /// What a proxy that came now would have to wait for.
    fn missing(&self) -> Option<String> {
        let awaited = self.index.awaited();
        if !awaited.is_empty() {
            let kinds = awaited.into_iter().collect::<Vec<_>>().join(", ");
            return Some(format!(
                "the cluster's objects have not all been read yet: {kinds}; the log says why\n"
            ));
        }
        if *self.publisher.versions().borrow() == 0 {
            return Some("the configuration has not been compiled yet\n".to_owned());
        }
        let serving = *self.serving.borrow();
        (!serving).then(|| "the config stream is not served: there is no CA yet\n".to_owned())
    }

    /// Answers one request.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Answer> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(status == 503 && why.contains("read") && why.contains("Pod"), "{why}");
        for kind in index.awaited() {
            index.listed(kind);
        }
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
