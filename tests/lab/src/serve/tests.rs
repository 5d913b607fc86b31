use std::time::Duration;

use hyper::Method;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::bulk::Digest;
use crate::http::body::Bulk;
use crate::http::{Answer, Connection, Shape, Target, Upload};

fn identity() -> Identity {
    Identity { app: "lab".to_owned(), pod: "pod-1".to_owned(), node: "node1".to_owned() }
}

async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(accept(listener, Arc::new(Server::new(identity(), Duration::ZERO))));
    port
}

async fn ask(port: u16, path: &str, change: impl FnOnce(&mut Shape)) -> Result<Answer, Failure> {
    let target = Target::parse(&format!("http://127.0.0.1:{port}{path}")).unwrap();
    let mut shape = Shape::get(&target);
    change(&mut shape);
    let mut connection =
        Connection::open("127.0.0.1".parse().unwrap(), port, shape.h2c, Duration::from_secs(1)).await?;
    connection.ask(&shape).await
}

fn account(answer: &Answer) -> Account {
    serde_json::from_slice(answer.text()).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn upload(size: u64, chunked: bool) -> Upload {
    Upload { bulk: Bulk { size, ..Bulk::default() }, chunked, expect_continue: None }
}

#[tokio::test]
async fn it_tells_who_answers_and_all_it_received() {
    let port = server().await;
    for h2c in [false, true] {
        let answer = ask(port, "/a?b=c", |shape| {
            shape.h2c = h2c;
            shape.method = Method::PUT;
            shape.headers = vec![
                ("x-more".parse().unwrap(), "1".parse().unwrap()),
                ("x-more".parse().unwrap(), "2".parse().unwrap()),
            ];
            shape.upload = Some(upload(300_000, true));
        });
        let account = account(&answer.await.unwrap());
        assert_eq!((&*account.app, &*account.pod, &*account.path), ("lab", "pod-1", "/a?b=c"));
        assert_eq!((&*account.method, &*account.headers["x-more"]), ("PUT", "1, 2"));
        assert_eq!((account.received_bytes, account.received_digest), (300_000, Digest::of_pattern(300_000)));
        assert_eq!((&*account.peer, account.tls_name), ("127.0.0.1", None));
    }
}

#[tokio::test]
async fn leave_is_given_before_the_body_comes_and_only_if_it_is_wanted() {
    let port = server().await;
    let mut wants = upload(1000, false);
    wants.expect_continue = Some(Duration::from_secs(5));
    let answer = ask(port, "/", |shape| shape.upload = Some(wants.clone())).await.unwrap();
    assert_eq!((&*answer.informational, account(&answer).received_bytes), (&[100][..], 1000));
    let answer = ask(port, "/?unread&status=413", |shape| shape.upload = Some(wants)).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.informational.len()), (413, 0));
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let port = server().await;
    let trailer = ("x-end", "yes");
    let answer = ask(port, "/", |shape| {
        let mut wanted = upload(10, true);
        wanted.bulk.trailers =
            Some([(trailer.0.parse().unwrap(), trailer.1.parse().unwrap())].into_iter().collect());
        shape.upload = Some(wanted);
    })
    .await
    .unwrap();
    assert_eq!(account(&answer).received_trailers["x-end"], "yes");
    for h2c in [false, true] {
        let answer = ask(port, "/?size=10&trailer=x-end:yes", |shape| {
            shape.h2c = h2c;
            shape.headers = vec![("te".parse().unwrap(), "trailers".parse().unwrap())];
        });
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.body.bytes, &answer.body.trailers["x-end"]),
            (10, &"yes".parse().unwrap()),
            "{h2c}"
        );
    }
}

#[tokio::test]
async fn it_misbehaves_on_demand() {
    let port = server().await;
    let answer = ask(port, "/?status=503&header=retry-after:1", |_| ()).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.headers["retry-after"]), (503, &"1".parse().unwrap()));
    for h2c in [false, true] {
        let error = ask(port, "/?close", |shape| shape.h2c = h2c).await.unwrap_err().to_string();
        assert!(error.starts_with("request: "), "{error}");
        let answer = ask(port, "/?size=1000000&cut=5000", |shape| shape.h2c = h2c).await.unwrap();
        assert_eq!(answer.body.bytes, 5000);
        assert!(answer.body.broken.is_some());
    }
    let answers =
        [1, 2, 3].map(async |_| ask(port, "/?first=2&key=k", |_| ()).await.unwrap().status.as_u16());
    let mut statuses = Vec::new();
    for answer in answers {
        statuses.push(answer.await);
    }
    assert_eq!(statuses, [503, 503, 200]);
    let seen = ask(port, "/seen?key=k", |_| ()).await.unwrap();
    assert!(String::from_utf8_lossy(seen.text()).contains("\"seen\":3"), "{seen:?}");
    assert_eq!(ask(port, "/?delay=soon", |_| ()).await.unwrap().status.as_u16(), 400);
}

#[tokio::test]
async fn bodies_flow_at_the_pace_asked_for() {
    let port = server().await;
    let began = Instant::now();
    let answer = ask(port, "/?size=2000&rate=10000", |_| ()).await.unwrap();
    assert_eq!((answer.body.bytes, answer.body.digest), (2000, Digest::of_pattern(2000)));
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    let began = Instant::now();
    let answer = ask(port, "/?read-rate=10000", |shape| shape.upload = Some(upload(2000, false)));
    assert_eq!(account(&answer.await.unwrap()).received_bytes, 2000);
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
}

#[tokio::test]
async fn websockets_echo_small_and_large_and_end_as_they_should() {
    let port = server().await;
    let report = crate::ws::against(&format!("ws://127.0.0.1:{port}/ws"), &[0, 5, 2_000_000]).await;
    assert_eq!(
        (&report["status"], &report["close"], &report["pongs"]),
        (&101.into(), &1000.into(), &2.into())
    );
    let echoes = report["echoes"].as_array().unwrap();
    assert_eq!(echoes.len(), 12);
    assert!(echoes.iter().all(|echo| echo["intact"] == true), "{report}");
    assert_eq!(report["headers"]["x-lab-pod"], "pod-1");
    let report = crate::ws::against(&format!("ws://127.0.0.1:{port}/ws?end=2"), &[5]).await;
    assert!(report["error"].as_str().is_some(), "{report}");
    let report = crate::ws::against(&format!("ws://127.0.0.1:{port}/other"), &[5]).await;
    assert_eq!(report["status"], 200, "{report}");
}

#[tokio::test]
async fn over_tls_the_server_name_is_told() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["lab.test.svc".to_owned()]).unwrap();
    let acceptor = tls::acceptor(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(tls::accept(listener, acceptor, Arc::new(Server::new(identity(), Duration::ZERO))));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(cert.der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("lab.test.svc").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.contains("\"tls_name\":\"lab.test.svc\""), "{answer}");
}
