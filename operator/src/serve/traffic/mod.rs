//! The traffic metrics API, `metrics.smi-spec.io`, served to the API server as one of its aggregated APIs.
//!
//! Only the API server may call: it proves itself by a client certificate ([`front_proxy`]) and says in headers who asks. It has
//! asked its own authorisers already; as every such server should, this one asks once more ([`review`]). Then the proxies are asked
//! ([`crate::traffic`]). [`path`] reads what is asked for, [`discovery`] tells clients what there is.

mod discovery;
mod front_proxy;
mod path;
mod review;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{HeaderValue, WARNING};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api as KubeApi;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::ca::{self, CaError, Pair};
use super::http::{Answer, answer};
use super::{LOOK, LOOK_AGAIN, RENEW, bind};
use crate::context::Context;
use crate::traffic::gather::Gatherer;
use crate::traffic::{Cluster, view};
use front_proxy::{Caller, FrontProxy, Unusable};
use path::{Bad, Route};
use review::Reviews;

/// Where the API server says by what its front proxy is known.
const AUTHENTICATION: (&str, &str) = ("kube-system", "extension-apiserver-authentication");
/// How long a caller may take for the TLS handshake, and for the header of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be idle; the API server keeps some for its next questions.
const IDLE: Duration = Duration::from_secs(60);

/// Why the API is not served. The text names the object.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("ConfigMap kube-system/extension-apiserver-authentication: {0}")]
    Read(kube::Error),
    #[error("ConfigMap kube-system/extension-apiserver-authentication: {0}")]
    Unusable(#[from] Unusable),
    #[error("certificates: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("certificates: {0}")]
    Tls(#[from] rustls::Error),
    #[error("certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("port {0}: {1}")]
    Bind(u16, std::io::Error),
}

/// What it is served with.
#[derive(Debug, PartialEq, Eq)]
struct Setup {
    ca: Pair,
    front: FrontProxy,
}

/// Serves the API on `port` from the moment there is a CA, anew when the CA or the API server's changes.
pub async fn serve(ctx: Context, port: u16) {
    let reviews = Reviews::new(ctx.client.clone());
    let api = Arc::new(Api { ctx, reviews, gatherer: Gatherer::default() });
    loop {
        match setup(&api.ctx).await {
            Ok(Some(setup)) => {
                if let Err(error) = api.clone().serve_with(&setup, port).await {
                    tracing::error!(%error, "the traffic metrics API is not served");
                }
            }
            Ok(None) => tracing::debug!("no CA for the traffic metrics API yet"),
            Err(error) => tracing::warn!(%error, "the traffic metrics API is not served"),
        }
        sleep(LOOK).await;
    }
}

/// `None`: there is no CA yet.
async fn setup(ctx: &Context) -> Result<Option<Setup>, Failure> {
    let Some(ca) = ctx.index.ca().borrow().last.clone() else { return Ok(None) };
    let maps = KubeApi::<ConfigMap>::namespaced(ctx.client.clone(), AUTHENTICATION.0);
    let map = maps.get(AUTHENTICATION.1).await.map_err(Failure::Read)?;
    Ok(Some(Setup { ca, front: FrontProxy::read(&map)? }))
}

fn tls(setup: &Setup, namespace: &str) -> Result<TlsAcceptor, Failure> {
    let pair = ca::issue(&setup.ca, namespace)?;
    let mut roots = RootCertStore::empty();
    // One that cannot be used must not take the others along; with none at all the verifier is refused below.
    roots.add_parsable_certificates(
        CertificateDer::pem_slice_iter(setup.front.ca.as_bytes()).filter_map(Result::ok),
    );
    // Whoever has no certificate gets an answer, 401: it tells more than a broken handshake.
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build()?;
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
    let mut config =
        ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct Api {
    ctx: Context,
    reviews: Reviews,
    gatherer: Gatherer,
}

impl Api {
    /// Serves until something else is to be served with.
    async fn serve_with(self: Arc<Self>, setup: &Setup, port: u16) -> Result<(), Failure> {
        let acceptor = tls(setup, &self.ctx.namespace)?;
        let listener = bind(port).await.map_err(|error| Failure::Bind(port, error))?;
        let front = Arc::new(setup.front.clone());
        tokio::select! {
            () = self.clone().accept(listener, acceptor, front) => {}
            () = self.outdated(setup) => {}
        }
        Ok(())
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, acceptor: TlsAcceptor, front: Arc<FrontProxy>) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (api, acceptor, front) = (Arc::clone(&self), acceptor.clone(), Arc::clone(&front));
            tokio::spawn(async move {
                if let Err(error) = api.connection(stream, acceptor, front).await {
                    tracing::debug!(%error, "connection to the traffic metrics API");
                }
            });
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        acceptor: TlsAcceptor,
        front: Arc<FrontProxy>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
        // The chain has been verified; what is left is whose it is.
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let trusted = certificate.is_some_and(|certificate| front.trusts(certificate));
        let service = service_fn(|request| {
            let (api, front) = (Arc::clone(&self), Arc::clone(&front));
            async move { Ok::<_, Infallible>(api.answer(&request, trusted, &front).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(IDLE);
        Ok(http.serve_connection(TokioIo::new(stream), service).await?)
    }

    /// Returns when another setup is needed, or what was issued with this one has become old.
    async fn outdated(&self, served: &Setup) {
        let began = Instant::now();
        let mut ca = self.ctx.index.ca();
        while began.elapsed() < RENEW {
            tokio::select! {
                () = sleep(LOOK_AGAIN) => {}
                _ = ca.wait_for(|known| known.last.as_ref() != Some(&served.ca)) => {}
            }
            match setup(&self.ctx).await {
                Ok(Some(now)) if now != *served => {
                    tracing::info!("serving the traffic metrics API with other certificates");
                    return;
                }
                Ok(_) => {}
                // Another CA does not wait to be told again.
                Err(error) => {
                    tracing::warn!(%error, "the traffic metrics API is served with what it had");
                    sleep(LOOK).await;
                }
            }
        }
    }

    async fn answer(
        &self,
        request: &Request<Incoming>,
        trusted: bool,
        front: &FrontProxy,
    ) -> Response<Answer> {
        let caller = front.caller(request.headers()).filter(|_| trusted);
        let Some(caller) = caller else {
            return failure(
                StatusCode::UNAUTHORIZED,
                "Unauthorized",
                "only the API server may ask here, for a user it names",
            );
        };
        if request.method() != Method::GET {
            return failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "metrics can only be read");
        }
        match path::read(request.uri().path(), request.uri().query().unwrap_or_default()) {
            Ok(Route::Document(document)) => json_answer(&document),
            Ok(Route::Metrics(wanted)) => self.metrics(&caller, &wanted).await,
            Err(Bad::NotFound) => {
                failure(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
            }
            Err(Bad::Request(why)) => failure(StatusCode::BAD_REQUEST, "BadRequest", &why),
        }
    }

    async fn metrics(&self, caller: &Caller, wanted: &path::Wanted) -> Response<Answer> {
        match self.reviews.may(caller, &wanted.attributes).await {
            Ok(true) => {}
            Ok(false) => {
                let why = format!("User {:?} cannot {}", caller.user, wanted.attributes);
                return failure(StatusCode::FORBIDDEN, "Forbidden", &why);
            }
            Err(error) => {
                tracing::warn!(%error, "SubjectAccessReview");
                return failure(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "ServiceUnavailable",
                    "the caller's rights cannot be checked now",
                );
            }
        }
        if !self.ctx.index.awaited().is_empty() {
            let why = "the cluster's objects have not all been read yet";
            return failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", why);
        }
        let gathered = self.gatherer.gather(&self.ctx.index).await;
        if gathered.told == 0 && gathered.silent > 0 {
            return failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "no proxy answers");
        }
        match view::answer(&Cluster::of(&self.ctx.index), &gathered, &wanted.ask) {
            Ok(document) => {
                let mut response = json_answer(&document);
                if gathered.silent > 0 {
                    // Clients show it: figures that lack a node must not pass for all there is.
                    let all = gathered.silent + gathered.told;
                    let text = format!(
                        "299 weft-operator \"{} of {all} proxies did not answer: what they carry is missing\"",
                        gathered.silent
                    );
                    response
                        .headers_mut()
                        .extend(HeaderValue::from_str(&text).ok().map(|text| (WARNING, text)));
                }
                response
            }
            Err(refusal @ view::Refusal::NotFound(..)) => {
                failure(StatusCode::NOT_FOUND, "NotFound", &refusal.to_string())
            }
            Err(refusal @ view::Refusal::NoLabels(_)) => {
                failure(StatusCode::BAD_REQUEST, "BadRequest", &refusal.to_string())
            }
        }
    }
}

fn json_answer(value: &impl serde::Serialize) -> Response<Answer> {
    match serde_json::to_vec(value) {
        Ok(json) => answer(StatusCode::OK, "application/json", json),
        Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "the answer cannot be encoded"),
    }
}

/// A `Status`, as the Kubernetes API answers what it does not do.
fn failure(code: StatusCode, reason: &str, message: &str) -> Response<Answer> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    answer(code, "application/json", status.to_string())
}

#[cfg(test)]
mod tests;
