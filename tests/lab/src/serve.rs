//! The server: says who answered and what was asked. It ends at once on SIGTERM, in the middle of whatever it does: the
//! mesh must cope with backends that know no graceful stop.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::{Failure, stop};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Ports to listen on.
    #[arg(long, value_delimiter = ',', default_value = "8080")]
    port: Vec<u16>,
    /// Name the answers carry, so that a client sees whether it reached whom it meant.
    #[arg(long, env = "APP", default_value = "lab")]
    app: String,
    #[arg(long, env = "POD_NAME", default_value = "")]
    pod: String,
    #[arg(long, env = "NODE_NAME", default_value = "")]
    node: String,
    /// Milliseconds for which /healthz says no.
    #[arg(long, default_value_t = 0)]
    ready_delay: u64,
}

/// What the server answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) app: String,
    pub(crate) pod: String,
    pub(crate) node: String,
    pub(crate) port: u16,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) version: String,
    /// The request's headers as received; values of one name joined by ", ".
    pub(crate) headers: BTreeMap<String, String>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Serves until SIGTERM.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let args = Arc::new(args);
    let began = Instant::now();
    for &port in &args.port {
        // Dual-stack: IPv4 comes mapped.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
        tokio::spawn(accept(listener, port, Arc::clone(&args), began));
    }
    eprintln!("weft-lab: {} listens on {:?}", args.app, args.port);
    stop::terminated().await?;
    std::process::exit(0)
}

async fn accept(listener: TcpListener, port: u16, args: Arc<Args>, began: Instant) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let args = Arc::clone(&args);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let args = Arc::clone(&args);
                async move { Ok::<_, Infallible>(answer(&request, port, &args, began).await) }
            });
            // A client that goes away is its own affair.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(request: &Request<Incoming>, port: u16, args: &Args, began: Instant) -> Response<Body> {
    let path = request.uri().path();
    if path == "/healthz" {
        let ready = began.elapsed() >= Duration::from_millis(args.ready_delay);
        return text(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, "");
    }
    if let Some(code) = path.strip_prefix("/status/").and_then(|code| code.parse::<StatusCode>().ok()) {
        return text(code, "as asked\n");
    }
    if path == "/drip" {
        return drip(parameter(request, "n").unwrap_or(10), parameter(request, "ms").unwrap_or(100));
    }
    if let Some(pause) = parameter(request, "sleep") {
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.to_string())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.to_string());
    }
    let account = Account {
        app: args.app.clone(),
        pod: args.pod.clone(),
        node: args.node.clone(),
        port,
        method: request.method().to_string(),
        path: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
        version: format!("{:?}", request.version()),
        headers,
    };
    match serde_json::to_vec(&account) {
        Ok(json) => {
            let mut response = Response::new(Full::new(Bytes::from(json)).boxed_unsync());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot be told\n"),
    }
}

fn parameter(request: &Request<Incoming>, name: &str) -> Option<u64> {
    let pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name)?.1.parse().ok()
}

/// A body of `n` lines, one every `ms` milliseconds.
fn drip(n: u64, ms: u64) -> Response<Body> {
    let lines = futures::stream::unfold(0, move |i| async move {
        if i == n {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Some((Ok(Frame::data(Bytes::from(format!("{i}\n")))), i + 1))
    });
    Response::new(StreamBody::new(lines).boxed_unsync())
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())).boxed_unsync());
    *response.status_mut() = status;
    response
}
