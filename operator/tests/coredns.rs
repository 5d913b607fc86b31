//! CoreDNS itself, in several versions, takes up our block and drops it without a restart, and answers by it. `make dns-versions`
//! builds them and names their files in `COREDNS`, separated by colons.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use weft_operator::dns::block::Block;
use weft_operator::dns::corefile;

const MESH: &str = "weft-system";
/// Not the usual one.
const CLUSTER: &str = "k8s.corp.example";
/// What the cluster's DNS knows, below its domain.
const KNOWN: [(&str, [u8; 4]); 3] = [
    ("kubernetes.default.svc", [10, 96, 0, 1]),
    ("cart-weft-shop.weft-system.svc", [10, 96, 1, 1]),
    ("weft-0123456789.weft-system.svc", [10, 96, 1, 2]),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs CoreDNS in several versions: make dns-versions"]
async fn every_coredns_takes_up_the_block_and_answers_by_it() {
    let binaries = std::env::var("COREDNS").unwrap();
    let cluster = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let cluster_dns = cluster.local_addr().unwrap();
    tokio::spawn(the_clusters_dns(cluster));
    for binary in std::env::split_paths(&binaries) {
        let seen = lives_with(&binary, cluster_dns).await;
        println!("{}: taken up after {:.1?}, dropped after {:.1?}", binary.display(), seen.0, seen.1);
    }
}

/// How long it took to take the block up, and to drop it.
async fn lives_with(binary: &Path, cluster_dns: SocketAddr) -> (Duration, Duration) {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let port = server.port();
    let bare = format!(".:{port} {{\n    errors\n    forward . {cluster_dns}\n    reload 2s\n}}\n");
    let domains = ["weft.mesh".to_owned(), "traefik.mesh".to_owned()];
    let block = Block {
        domains: &domains,
        cluster_domain: CLUSTER,
        namespace: MESH,
        dns_service: &cluster_dns.to_string(),
        port,
        exact: &[("a-weft-b".to_owned(), "shop".to_owned(), "weft-0123456789".to_owned())],
    };
    let file = std::env::temp_dir().join(format!("weft-coredns-{port}"));
    std::fs::write(&file, &bare).unwrap();
    let mut coredns = start(binary, &file);
    let refused = Err(ResponseCode::NXDomain);
    until(server, "kubernetes.default.svc.k8s.corp.example", Ok([10, 96, 0, 1])).await;
    assert_eq!(ask(server, "cart.shop.weft.mesh").await, Some(refused));

    std::fs::write(&file, corefile::edit(&bare, MESH, Some(&block.render())).unwrap()).unwrap();
    let taken_up = until(server, "cart.shop.weft.mesh", Ok([10, 96, 1, 1])).await;
    for (name, answer) in [
        ("dns-check.weft.mesh", Ok([10, 96, 0, 1])),
        ("cart.shop.traefik.mesh", Ok([10, 96, 1, 1])),
        ("a-weft-b.shop.weft.mesh", Ok([10, 96, 1, 2])),
        ("nobody.shop.weft.mesh", refused),
        ("shop.weft.mesh", refused),
        ("a.b.c.weft.mesh", refused),
        ("weft.mesh", refused),
        ("kubernetes.default.svc.k8s.corp.example", Ok([10, 96, 0, 1])),
    ] {
        assert_eq!(ask(server, name).await, Some(answer), "{name}, {}", binary.display());
    }

    let with = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, corefile::edit(&with, MESH, None).unwrap()).unwrap();
    let dropped = until(server, "cart.shop.weft.mesh", refused).await;
    assert!(coredns.0.try_wait().unwrap().is_none(), "{} has ended", binary.display());
    std::fs::remove_file(&file).unwrap();
    (taken_up, dropped)
}

/// Ends when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(binary: &Path, corefile: &Path) -> Running {
    Running(Command::new(binary).arg("-conf").arg(corefile).spawn().unwrap())
}

/// Asks until this is the answer; how long that took.
async fn until(server: SocketAddr, name: &str, wanted: Result<[u8; 4], ResponseCode>) -> Duration {
    let began = Instant::now();
    loop {
        let answer = ask(server, name).await;
        if answer == Some(wanted) {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{name}: {answer:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The address, which must be given for the name that was asked for, or why there is none. `None`: no answer in time.
async fn ask(server: SocketAddr, name: &str) -> Option<Result<[u8; 4], ResponseCode>> {
    let asked = Name::from_ascii(format!("{name}.")).unwrap();
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(asked.clone(), RecordType::A));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&question.to_vec().unwrap()).await.ok()?;
    let mut buffer = [0; 1500];
    let length = tokio::time::timeout(Duration::from_secs(2), socket.recv(&mut buffer)).await.ok()?.ok()?;
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    let address = answer.answers.iter().find_map(|record| match &record.data {
        RData::A(A(address)) if record.name == asked => Some(address.octets()),
        _ => None,
    });
    Some(address.ok_or(answer.response_code))
}

/// Knows [`KNOWN`] and nothing else.
async fn the_clusters_dns(socket: UdpSocket) {
    let mut buffer = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let question = Message::from_vec(&buffer[..length]).unwrap();
        let Some(query) = question.queries.first() else { continue };
        let name = query.name().to_ascii().to_lowercase();
        let mut answer = Message::new(question.id, MessageType::Response, OpCode::Query);
        answer.add_query(query.clone());
        match KNOWN.iter().find(|(known, _)| name == format!("{known}.{CLUSTER}.")) {
            Some((_, [a, b, c, d])) => {
                let address = RData::A(A::new(*a, *b, *c, *d));
                answer.add_answer(Record::from_rdata(query.name().clone(), 5, address));
            }
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
    }
}
