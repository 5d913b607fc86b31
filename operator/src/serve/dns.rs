//! The resolver's sockets: questions about mesh names over UDP and TCP, answered by [`crate::dns::resolver`] from the index. Every
//! replica serves it. kube-dns asks it, and whatever DNS a person points at it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use weft_config::ServiceId;

use crate::dns::resolver::{LONGEST_DATAGRAM, LONGEST_QUESTION, Names, answer_bytes};
use crate::index::Index;

/// TCP connections at a time; more are closed at once.
const CONNECTIONS: usize = 64;
/// How long a TCP connection may be without a question.
const IDLE: Duration = Duration::from_secs(10);
/// Questions on one TCP connection.
const QUESTIONS: usize = 1000;
/// The wait after an error that could come again at once.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Answers on these sockets until the process ends.
pub async fn serve(index: Index, sockets: (UdpSocket, TcpListener)) {
    let names = Arc::new(index);
    let (datagrams, connections) = sockets;
    tokio::join!(serve_datagrams(&names, &datagrams), serve_connections(&names, &connections));
}

/// Listens on `port`, over UDP and TCP, of both families where the node has both.
pub async fn bind(port: u16) -> io::Result<(UdpSocket, TcpListener)> {
    let datagrams = match UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(socket) => socket,
        Err(_) => UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await?,
    };
    Ok((datagrams, super::bind(port).await?))
}

/// One at a time: an answer takes microseconds, and what comes faster waits in the socket or is lost there, not in our memory.
async fn serve_datagrams(names: &Arc<impl Names>, socket: &UdpSocket) {
    let mut buffer = [0; LONGEST_QUESTION];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(AFTER_ERROR).await;
            continue;
        };
        if let Some(answer) = answer_bytes(&buffer[..length], LONGEST_DATAGRAM, &**names)
            && let Err(error) = socket.send_to(&answer, from).await
        {
            tracing::debug!(%from, %error, "a DNS answer could not be sent");
        }
    }
}

async fn serve_connections(names: &Arc<impl Names + Send + Sync + 'static>, listener: &TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(AFTER_ERROR).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let names = Arc::clone(names);
        tokio::spawn(async move {
            if let Err(error) = converse(&*names, stream).await {
                tracing::debug!(%from, %error, "a DNS connection broke");
            }
            drop(place);
        });
    }
}

/// Questions and answers with their lengths before them, until the other end has enough, or says nothing, or no sense.
async fn converse(names: &impl Names, mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; LONGEST_QUESTION];
    for _ in 0..QUESTIONS {
        let question = async {
            let length = usize::from(stream.read_u16().await?);
            let question = buffer.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
            stream.read_exact(question).await?;
            Ok::<_, io::Error>(length)
        };
        let length = match timeout(IDLE, question).await {
            Ok(Ok(length)) => length,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let Some(answer) = answer_bytes(&buffer[..length], u16::MAX, names) else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        let whole = [length.to_be_bytes().as_slice(), answer.as_slice()].concat();
        timeout(IDLE, stream.write_all(&whole)).await??;
    }
    Ok(())
}

impl Names for Index {
    fn complete(&self) -> bool {
        self.awaited().is_empty()
    }

    fn domains(&self) -> Vec<String> {
        self.mesh().borrow().as_ref().map(|mesh| mesh.spec.domains.clone()).unwrap_or_default()
    }

    fn addresses(&self, service: &str, namespace: &str) -> Option<Vec<IpAddr>> {
        Some(self.shadow(&ServiceId::new(namespace, service))?.cluster_ips.clone())
    }

    fn has_any(&self, namespace: &str) -> bool {
        self.has_shadow_of(namespace)
    }

    fn api_server(&self) -> Vec<IpAddr> {
        let service = self.service(&ServiceId::new("default", "kubernetes"));
        service.and_then(|service| service.cluster_ip).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::{Name, RecordType};
    use kube::runtime::watcher::Event;
    use serde_json::json;
    use weft_crds::{MeshConfig, MeshConfigSpec};

    use super::*;
    use crate::index::kinds::{MeshKind, ServiceKind};

    /// An index with a mesh and the shadow of shop/cart. It is not complete: not every kind was listed.
    fn index() -> Index {
        let index = Index::new("weft-system");
        let mut mesh = MeshConfig::new("weft", MeshConfigSpec::default());
        mesh.metadata.namespace = Some("weft-system".into());
        index.take(&MeshKind, Event::Apply(mesh), &mut None);
        let labels = json!({"weft.mesh/shadow": "true", "weft.mesh/service-namespace": "shop", "weft.mesh/service-name": "cart"});
        let owner =
            json!({"apiVersion": "weft.mesh/v1alpha1", "kind": "MeshConfig", "name": "weft", "uid": "u"});
        let shadow = json!({"metadata": {"namespace": "weft-system", "name": "cart-weft-shop", "labels": labels, "ownerReferences": [owner]},
            "spec": {"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20", "fd00::20"], "ports": [{"port": 80, "targetPort": 10000}]}});
        index.take(&ServiceKind, Event::Apply(serde_json::from_value(shadow).unwrap()), &mut None);
        let api = json!({"metadata": {"namespace": "default", "name": "kubernetes"}, "spec": {"clusterIP": "10.96.0.1"}});
        index.take(&ServiceKind, Event::Apply(serde_json::from_value(api).unwrap()), &mut None);
        index
    }

    fn question(name: &str) -> Vec<u8> {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        question.to_vec().unwrap()
    }

    #[test]
    fn the_index_knows_names_by_their_shadows() {
        let index = index();
        assert_eq!(index.domains(), ["weft.mesh"]);
        let both: [IpAddr; 2] = [[10, 96, 0, 20].into(), "fd00::20".parse().unwrap()];
        assert_eq!(index.addresses("cart", "shop").unwrap(), both);
        assert_eq!(index.addresses("shop", "cart"), None);
        assert!(index.has_any("shop") && !index.has_any("cart"));
        assert_eq!(index.api_server(), [IpAddr::from([10, 96, 0, 1])]);
        assert!(!index.complete());
        for kind in index.awaited() {
            index.listed(kind);
        }
        assert!(index.complete());
    }

    #[tokio::test]
    async fn questions_are_answered_over_both_protocols() {
        let index = index();
        for kind in index.awaited() {
            index.listed(kind);
        }
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (datagrams, connections) =
            (UdpSocket::bind(any).await.unwrap(), TcpListener::bind(any).await.unwrap());
        let (udp, tcp) = (datagrams.local_addr().unwrap(), connections.local_addr().unwrap());
        let served = tokio::spawn(serve(index, (datagrams, connections)));

        let client = UdpSocket::bind(any).await.unwrap();
        client.send_to(b"nonsense that is long enough", udp).await.unwrap();
        client.send_to(&question("cart.shop.weft.mesh."), udp).await.unwrap();
        let mut buffer = [0; 1500];
        let answer = loop {
            let length = timeout(IDLE, client.recv(&mut buffer)).await.unwrap().unwrap();
            let answer = Message::from_vec(&buffer[..length]).unwrap();
            if answer.id == 7 {
                break answer;
            }
        };
        assert_eq!((answer.response_code, answer.answers.len()), (ResponseCode::NoError, 1));

        // Two questions on one connection.
        let mut client = TcpStream::connect(tcp).await.unwrap();
        for (name, code) in
            [("cart.shop.weft.mesh.", ResponseCode::NoError), ("no.shop.weft.mesh.", ResponseCode::NXDomain)]
        {
            let question = question(name);
            client.write_u16(u16::try_from(question.len()).unwrap()).await.unwrap();
            client.write_all(&question).await.unwrap();
            let length = timeout(IDLE, client.read_u16()).await.unwrap().unwrap();
            let mut answer = vec![0; usize::from(length)];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(Message::from_vec(&answer).unwrap().response_code, code, "{name}");
        }
        // A question that is too long ends the connection.
        client.write_u16(u16::MAX).await.unwrap();
        assert!(timeout(IDLE, client.read_u16()).await.unwrap().is_err());
        served.abort();
    }

    #[tokio::test]
    async fn more_connections_than_there_is_room_for_are_closed_and_the_rest_goes_on() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (datagrams, connections) =
            (UdpSocket::bind(any).await.unwrap(), TcpListener::bind(any).await.unwrap());
        let tcp = connections.local_addr().unwrap();
        let served = tokio::spawn(serve(index(), (datagrams, connections)));
        let ask = async |client: &mut TcpStream| -> io::Result<u16> {
            let question = question("cart.shop.weft.mesh.");
            client.write_u16(u16::try_from(question.len()).unwrap()).await?;
            client.write_all(&question).await?;
            let length = client.read_u16().await?;
            client.read_exact(&mut vec![0; usize::from(length)]).await?;
            Ok(length)
        };
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = TcpStream::connect(tcp).await.unwrap();
            assert!(ask(&mut client).await.is_ok());
            open.push(client);
        }
        let mut one_more = TcpStream::connect(tcp).await.unwrap();
        assert!(ask(&mut one_more).await.is_err());
        for client in &mut open {
            assert!(ask(client).await.is_ok());
        }
        served.abort();
    }
}
