//! The whole way of a question but for the proxies: TLS, the front proxy's certificate, the review, the answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::*;
use crate::apply::Writer;
use crate::index::Index;
use crate::lease::Fence;
use crate::outside::Network;
use crate::publish::Publisher;

const METRICS: &str = "/apis/metrics.smi-spec.io/v1alpha1";

/// Who issues the certificates of front proxies.
struct FrontCa {
    params: CertificateParams,
    key: KeyPair,
}

/// A certificate and its key.
type Certificate = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl FrontCa {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "front-proxy-ca");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    fn map(&self) -> ConfigMap {
        let pem = self.params.clone().self_signed(&self.key).unwrap().pem();
        let data = json!({
            "requestheader-client-ca-file": pem,
            "requestheader-allowed-names": r#"["front-proxy-client"]"#,
            "requestheader-username-headers": r#"["X-Remote-User"]"#,
            "requestheader-group-headers": r#"["X-Remote-Group"]"#,
        });
        serde_json::from_value(json!({ "data": data })).unwrap()
    }

    fn front(&self) -> FrontProxy {
        FrontProxy::read(&self.map()).unwrap()
    }

    fn issue(&self, name: &str) -> Certificate {
        let issuer = Issuer::new(self.params.clone(), KeyPair::from_pem(&self.key.serialize_pem()).unwrap());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
        (certificate, PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap())
    }
}

/// The API under test, and the API server's mind.
struct Bed {
    address: SocketAddr,
    ca: Pair,
    front_ca: FrontCa,
    allows: Arc<AtomicBool>,
    reviews: Arc<AtomicUsize>,
}

/// The API of a replica whose API server is at `url`.
fn api(url: &str) -> Arc<Api> {
    let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    let index = Index::new("weft-system");
    for kind in index.awaited() {
        index.listed(kind);
    }
    let ctx = Context {
        client: client.clone(),
        writer: Writer::new(client.clone(), Fence::default()),
        index,
        publisher: Publisher::default(),
        outside: Arc::new(Network),
        namespace: "weft-system".into(),
        pod: "me".into(),
        proxy_image: "".into(),
        smi_metrics: true,
        metrics: Arc::default(),
        contact: crate::lease::Contact::default(),
    };
    Arc::new(Api { ctx, reviews: Reviews::new(client), gatherer: Gatherer::default() })
}

impl Bed {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (allows, reviews) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (says, counts) = (Arc::clone(&allows), Arc::clone(&reviews));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(crate::serve::http::serve(listener, move |request| {
            assert_eq!(request.uri().path(), "/apis/authorization.k8s.io/v1/subjectaccessreviews");
            counts.fetch_add(1, SeqCst);
            let review = json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {},
                "spec": {}, "status": {"allowed": says.load(SeqCst)}});
            std::future::ready(answer(StatusCode::CREATED, "application/json", review.to_string()))
        }));
        let api = api(&url);
        let front_ca = FrontCa::new();
        let setup = Setup { ca: ca::make().unwrap(), front: front_ca.front() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = tls(&setup, "weft-system").unwrap();
        tokio::spawn(api.accept(listener, acceptor, Arc::new(setup.front.clone())));
        Self { address, ca: setup.ca, front_ca, allows, reviews }
    }

    /// Asks as `user`, with `certificate`.
    async fn ask(
        &self,
        certificate: Option<Certificate>,
        user: &str,
        path: &str,
    ) -> Result<(u16, Value), Box<dyn std::error::Error>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.certificate.as_bytes())?)?;
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config = match certificate {
            Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key)?,
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("weft-operator.weft-system.svc")?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path).header("host", "weft-operator").header("x-remote-user", user);
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok((status, serde_json::from_slice(&body)?))
    }

    async fn ask_as_front_proxy(&self, path: &str) -> (u16, Value) {
        self.ask(Some(self.front_ca.issue("front-proxy-client")), "jane", path).await.unwrap()
    }
}

#[tokio::test]
async fn the_api_server_gets_answers() {
    let bed = Bed::new().await;
    let (status, list) = bed.ask_as_front_proxy(&format!("{METRICS}/namespaces/shop/pods")).await;
    assert_eq!((status, &list["kind"]), (200, &json!("TrafficMetricsList")), "{list}");
    let (status, missing) = bed.ask_as_front_proxy(&format!("{METRICS}/namespaces/shop/pods/web")).await;
    assert_eq!((status, &missing["reason"]), (404, &json!("NotFound")), "{missing}");
    for path in ["/", "/apis", "/apis/metrics.smi-spec.io", METRICS, "/openapi/v2", "/openapi/v3", "/livez"] {
        let (status, document) = bed.ask_as_front_proxy(path).await;
        assert_eq!(status, if path == "/" { 404 } else { 200 }, "{path}: {document}");
    }
    let (_, resources) = bed.ask_as_front_proxy(METRICS).await;
    assert_eq!(resources["resources"].as_array().unwrap().len(), 22, "each kind and its edges");
}

#[tokio::test]
async fn nobody_else_does() {
    let bed = Bed::new().await;
    let path = format!("{METRICS}/namespaces/shop/pods");
    for certificate in [None, Some(bed.front_ca.issue("somebody"))] {
        let (status, body) = bed.ask(certificate, "system:admin", &path).await.unwrap();
        assert_eq!((status, &body["reason"]), (401, &json!("Unauthorized")), "{body}");
    }
    let forged = FrontCa::new().issue("front-proxy-client");
    bed.ask(Some(forged), "system:admin", &path).await.expect_err("another CA's certificate");
    let front = || Some(bed.front_ca.issue("front-proxy-client"));
    let (status, _) = bed.ask(front(), "", &path).await.unwrap();
    assert_eq!(status, 401, "it names nobody");
    assert_eq!(bed.reviews.load(SeqCst), 0);
}

#[tokio::test]
async fn who_may_not_is_told_so_and_the_word_is_kept_for_a_moment() {
    let bed = Bed::new().await;
    bed.allows.store(false, SeqCst);
    let path = format!("{METRICS}/namespaces/shop/pods/web/edges");
    let (status, body) = bed.ask_as_front_proxy(&path).await;
    assert_eq!(status, 403);
    let message = body["message"].as_str().unwrap();
    assert!(
        message.contains("jane") && message.contains("pods/edges") && message.contains("shop"),
        "{message}"
    );
    bed.allows.store(true, SeqCst);
    assert_eq!(bed.ask_as_front_proxy(&path).await.0, 403);
    assert_eq!(bed.reviews.load(SeqCst), 1);
    let (status, _) = bed.ask_as_front_proxy(&format!("{METRICS}/namespaces/shop/pods/other")).await;
    assert_eq!((status, bed.reviews.load(SeqCst)), (404, 2), "another question is asked anew");
}

#[tokio::test]
async fn what_cannot_be_read_after_a_change_of_the_ca_is_asked_for_again_in_a_while() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (front_ca, asked) = (FrontCa::new(), Arc::new(AtomicUsize::new(0)));
    let (map, counts) = (json!(front_ca.map()).to_string(), Arc::clone(&asked));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(crate::serve::http::serve(listener, move |_| {
        std::future::ready(match counts.fetch_add(1, SeqCst) {
            0 => failure(StatusCode::FORBIDDEN, "Forbidden", "not now"),
            _ => answer(StatusCode::OK, "application/json", map.clone()),
        })
    }));
    let api = api(&url);
    let served = Setup { ca: ca::make().unwrap(), front: front_ca.front() };
    api.ctx.index.note_ca(ca::Stored::Whole(ca::make().unwrap()));
    let began = Instant::now();
    timeout(Duration::from_secs(20), api.outdated(&served)).await.unwrap();
    assert!(began.elapsed() >= LOOK, "{:?}", began.elapsed());
    assert_eq!(asked.load(SeqCst), 2);
}
