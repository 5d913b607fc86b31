//! `/livez`, `/readyz`, `/metrics`, what this proxy holds and who called whom, on a port of its own.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::AUTHORIZATION;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use weft_config::contract::{CONFIG_PATH, EDGES_PATH, HOLDERS_OF, STATUS_PATH};
use weft_config::show::{self, Configuration, ResourceView};
use weft_config::status::ProxyStatus;
use weft_config::{ResourceKey, ServiceId};

use crate::listen::Listeners;
use crate::metrics::Metrics;
use crate::sync::SyncView;

/// A worker that has not run the heart-beat for this long is stuck.
const STUCK: Duration = Duration::from_secs(5);

/// What the admin port answers from.
pub struct Admin {
    /// The configuration.
    pub sync: SyncView,
    /// The listeners.
    pub listeners: Arc<Listeners>,
    /// The series.
    pub metrics: Arc<Metrics>,
    /// Whether this process has been told to end.
    pub draining: watch::Receiver<bool>,
}

impl Admin {
    /// Serves on `listener` until the process ends. Runs wholly on the runtime it is called on; `workers` are the runtimes
    /// that carry traffic: liveness asks whether they still move.
    pub async fn serve(self, listener: std::net::TcpListener, workers: Vec<tokio::runtime::Handle>) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the admin port cannot be served"),
        };
        let admin = Arc::new(self);
        let beats: Arc<[_]> = workers.iter().map(Heartbeat::start).collect();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (admin, beats) = (Arc::clone(&admin), Arc::clone(&beats));
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer = admin.answer(&request, &beats);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(hyper_util::rt::TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(10))
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = served.await {
                    tracing::debug!(%error, "admin connection");
                }
            });
        }
    }

    fn answer<B>(&self, request: &Request<B>, beats: &[Arc<Heartbeat>]) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
        }
        match request.uri().path() {
            "/livez" if beats.iter().any(|beat| beat.is_stuck()) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "a worker does not move\n")
            }
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.why_not_ready() {
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
                None => text(StatusCode::OK, "ok\n"),
            },
            "/metrics" => match self.metrics.encode() {
                Ok(metrics) => answer(
                    StatusCode::OK,
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    metrics,
                ),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be encoded\n"),
            },
            STATUS_PATH => json(&self.status(request.uri().query())),
            EDGES_PATH => json(&self.metrics.edges.read()),
            CONFIG_PATH if !self.is_reader(request.headers()) => {
                text(StatusCode::UNAUTHORIZED, "only the operator may read this\n")
            }
            CONFIG_PATH => self.configuration(request.uri().query()),
            _ => text(StatusCode::NOT_FOUND, "/livez /readyz /metrics /config-status /config /edges\n"),
        }
    }

    fn status(&self, query: Option<&str>) -> ProxyStatus {
        let asked = query.and_then(|query| query.strip_prefix(HOLDERS_OF)).unwrap_or_default();
        let asked: BTreeSet<u16> = asked.split(',').filter_map(|port| port.parse().ok()).collect();
        let totals = self.metrics.totals();
        ProxyStatus {
            listen_ports: self.listeners.held_ports(),
            holders: self.listeners.holders(asked.into_iter()),
            requests: totals.requests,
            failures: totals.failures,
            ..ProxyStatus::clone(&self.sync.status.load())
        }
    }

    /// Whether a request shows the key that came over the config stream.
    fn is_reader(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let key = self.sync.reader_key.load();
        match (shown, &*key) {
            (Some(shown), Some(key)) => same(shown, key.as_bytes()),
            _ => false,
        }
    }

    /// What is held; with `service=namespace/name` in the query what is about that Service.
    fn configuration(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        let service = match query
            .map(|query| query.strip_prefix("service=").and_then(|id| id.split_once('/')))
        {
            None => None,
            Some(Some((namespace, name))) => Some(ServiceId::new(namespace, name)),
            Some(None) => {
                return text(StatusCode::BAD_REQUEST, "the query is service=<namespace>/<name> or nothing\n");
            }
        };
        let wanted = |key: &ResourceKey| service.as_ref().is_none_or(|service| show::is_of(key, service));
        let configuration = {
            let held = self.sync.held.lock();
            let resources = held.filtered(wanted).map(|entry| ResourceView::from(&entry)).collect();
            Configuration { digest: show::hexadecimal(held.digest()), resources }
        };
        json(&configuration)
    }

    fn why_not_ready(&self) -> Option<&'static str> {
        if *self.draining.borrow() {
            Some("draining\n")
        } else if !*self.sync.complete.borrow() {
            Some("no configuration yet: neither from the operator nor from a snapshot\n")
        } else {
            None
        }
    }
}

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string(value) {
        Ok(json) => answer(StatusCode::OK, "application/json", json),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be encoded\n"),
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

/// Compares in a time that does not tell where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// A task on a worker's runtime that notes the time, so that a stuck one shows.
struct Heartbeat {
    started: Instant,
    last_ms: AtomicU64,
}

impl Heartbeat {
    fn start(worker: &tokio::runtime::Handle) -> Arc<Self> {
        let beat = Arc::new(Self { started: Instant::now(), last_ms: AtomicU64::new(0) });
        let noted = Arc::clone(&beat);
        worker.spawn(async move {
            let mut every = tokio::time::interval(Duration::from_millis(500));
            loop {
                every.tick().await;
                noted.last_ms.store(noted.now_ms(), Relaxed);
            }
        });
        beat
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_stuck(&self) -> bool {
        u128::from(self.now_ms().saturating_sub(self.last_ms.load(Relaxed))) > STUCK.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::runtime::Handle;
    use weft_config::status::Holder;
    use weft_config::{Endpoints, EndpointsId, Entry, Port, Resource, Service, Timeouts, Traffic, Update};

    use super::*;
    use crate::access_log::{AccessLog, Format};
    use crate::listen::Carriers;
    use crate::tables::Tables;
    use crate::tables::apply::Applier;

    fn entry(name: &str) -> Entry {
        let id = EndpointsId { service: ServiceId::new("shop", name), port: 80 };
        Entry::new(Resource::Endpoints(id, Endpoints::default()))
    }

    fn admin() -> Admin {
        admin_of().0
    }

    fn admin_of() -> (Admin, Arc<Tables>) {
        let tables = Arc::<Tables>::default();
        let metrics = Arc::new(Metrics::default());
        let log = AccessLog::new(Format::Off).unwrap();
        let carriers = Carriers::new(Arc::clone(&tables), "node1", &[Handle::current()], log).unwrap();
        let sync = SyncView {
            status: Arc::default(),
            complete: watch::channel(true).1,
            held: Arc::default(),
            reader_key: Arc::default(),
            offered: watch::channel(None).1,
        };
        let listeners = Arc::new(Listeners::new(carriers, Arc::clone(&metrics)));
        (Admin { sync, listeners, metrics, draining: watch::channel(false).1 }, tables)
    }

    async fn ask(admin: &Admin, path: &str, authorization: Option<&str>) -> (u16, String) {
        let mut request = Request::get(path);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let answer = admin.answer(&request.body(()).unwrap(), &[]);
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn for_whom_a_port_is_held_is_told_to_who_asks_for_it() {
        let (admin, tables) = admin_of();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let id = ServiceId::new("shop", "cart");
        let port = Port {
            port: 80,
            name: "http".into(),
            listen_port: free,
            traffic: Traffic::default(),
            timeouts: Timeouts::default(),
            endpoints: EndpointsId { service: id.clone(), port: 80 },
            split: None,
            restriction: None,
        };
        let service = Resource::Service(Service { id, ports: vec![port] });
        let mut applier = Applier::new(tables, Arc::clone(&admin.listeners), Arc::default());
        applier.apply(&Update { upserts: vec![Entry::new(service)], removals: Vec::new() });
        let holder = Holder { listen_port: free, namespace: "shop".into(), name: "cart".into(), port: 80 };
        for (query, holders) in [
            (String::new(), vec![]),
            ("?holders-of=".to_owned(), vec![]),
            (format!("?holders-of={}", free ^ 1), vec![]),
            (format!("?{HOLDERS_OF}{},x,{free},70000", free ^ 1), vec![holder]),
        ] {
            let (status, answer) = ask(&admin, &format!("{STATUS_PATH}{query}"), None).await;
            let said: ProxyStatus = serde_json::from_str(&answer).unwrap();
            assert_eq!((status, said.listen_ports, said.holders), (200, vec![free], holders), "{query}");
        }
    }

    #[tokio::test]
    async fn what_is_held_is_told_to_who_has_the_key_and_to_nobody_before_there_is_one() {
        let admin = admin();
        for name in ["cart", "pay"] {
            admin.sync.held.lock().insert(&entry(name));
        }
        for shown in [None, Some("Bearer "), Some("Bearer k")] {
            assert_eq!(ask(&admin, CONFIG_PATH, shown).await.0, 401, "{shown:?}");
        }
        admin.sync.reader_key.store(Some(Arc::new("k".to_owned())));
        for shown in [None, Some("Bearer "), Some("Bearer kk"), Some("Bearer j"), Some("Basic k"), Some("k")]
        {
            assert_eq!(ask(&admin, CONFIG_PATH, shown).await.0, 401, "{shown:?}");
        }
        let (status, all) = ask(&admin, CONFIG_PATH, Some("Bearer k")).await;
        let digest = show::hexadecimal(entry("cart").hash.wrapping_add(entry("pay").hash));
        assert!(status == 200 && all.contains(&digest) && all.contains("shop/cart:80"), "{all}");
        let (status, one) = ask(&admin, "/config?service=shop/pay", Some("Bearer k")).await;
        assert!(status == 200 && one.contains("shop/pay:80") && !one.contains("shop/cart"), "{one}");
        assert_eq!(ask(&admin, "/config?service=pay", Some("Bearer k")).await.0, 400);
        assert_eq!(ask(&admin, "/config?all", Some("Bearer k")).await.0, 400);
    }
}
