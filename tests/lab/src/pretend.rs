//! A bad proxy: it says that it is ready, and then refuses its configuration or fails most of what it carries. It carries
//! nothing. Whatever flags a proxy is given it takes.

use std::convert::Infallible;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};

use crate::serve::listen;
use crate::{Failure, stop};

/// Where proxies answer their probes and say what they hold.
const ADMIN_PORT: u16 = 9901;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What is wrong with it.
    #[arg(value_enum)]
    fault: Fault,
    /// The flags of a proxy.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _flags: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Fault {
    /// It refuses a resource.
    Refuses,
    /// It fails half of the requests it says it has carried.
    Fails,
}

/// Runs until told to end.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let (fault, began) = (args.fault, Instant::now());
    let listener = listen(ADMIN_PORT).await?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let service = service_fn(move |request: Request<_>| async move {
                Ok::<_, Infallible>(answer(request.uri().path(), fault, began))
            });
            tokio::spawn(async move {
                let connection = auto::Builder::new(TokioExecutor::new());
                let _ = connection.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    stop::terminated().await?;
    Ok(())
}

fn answer(path: &str, fault: Fault, began: Instant) -> Response<Full<Bytes>> {
    let text = if path == "/config-status" { status(fault, began).to_string() } else { "ok\n".to_owned() };
    Response::new(Full::new(text.into()))
}

/// As a proxy that carries a hundred requests a second would say it.
fn status(fault: Fault, began: Instant) -> Value {
    // Even, so that half of them are half.
    let requests = 2 * u64::try_from(began.elapsed().as_millis() / 20).unwrap_or(0);
    let refused = json!([{ "resource": "Service lab/pretended", "reason": "it is only pretended" }]);
    json!({
        "digest": "0000000000000000",
        "listen_ports": [],
        "rejections": if fault == Fault::Refuses { refused } else { json!([]) },
        "connected": true,
        "requests": requests,
        "failures": if fault == Fault::Fails { requests / 2 } else { 0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_shows_in_what_it_says() {
        let began = Instant::now().checked_sub(std::time::Duration::from_secs(2)).unwrap();
        let refuses = status(Fault::Refuses, began);
        assert_eq!((refuses["rejections"].as_array().unwrap().len(), &refuses["failures"]), (1, &json!(0)));
        let fails = status(Fault::Fails, began);
        assert!(
            fails["failures"].as_u64().unwrap() >= 100 && fails["rejections"].as_array().unwrap().is_empty()
        );
        assert_eq!(answer("/readyz", Fault::Fails, began).status(), 200);
    }
}
