//! Asks the DNS pods themselves whether they answer for a mesh domain: only they know which Corefile they run.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;

use super::block::CHECK;

/// How long a DNS pod may take. A pod on the same network needs a millisecond.
const PATIENCE: Duration = Duration::from_millis(1000);

/// What a DNS pod said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has our block.
    Configured,
    /// It works, but does not have our block.
    NotConfigured,
    /// It did not answer, or not sensibly.
    Silent(String),
}

/// Asks the DNS server at `server` for the check name below `domain`.
pub async fn ask(server: SocketAddr, domain: &str) -> Answer {
    match tokio::time::timeout(PATIENCE, exchange(server, domain)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::Silent(error.to_string()),
        Err(_) => Answer::Silent("no answer in time".to_owned()),
    }
}

/// The DNS server of this pod: where a NodeLocal DNSCache stands in front, that of our node.
pub fn own_server() -> Option<SocketAddr> {
    own_servers().into_iter().next()
}

/// All DNS servers of this pod.
pub fn own_servers() -> Vec<SocketAddr> {
    nameservers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn nameservers(resolv_conf: &str) -> Vec<SocketAddr> {
    let named = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = named.filter_map(|address| address.trim().parse().ok());
    addresses.map(|address| SocketAddr::new(address, 53)).collect()
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The check name has the API server's addresses: in a cluster of IPv6 alone it has none of IPv4.
async fn exchange(server: SocketAddr, domain: &str) -> Result<Answer, Failure> {
    let answer = question(server, domain, RecordType::A).await?;
    if answer.response_code == ResponseCode::NoError && !has_address(&answer) {
        return Ok(classify(&question(server, domain, RecordType::AAAA).await?));
    }
    Ok(classify(&answer))
}

async fn question(server: SocketAddr, domain: &str, kind: RecordType) -> Result<Message, Failure> {
    let name = Name::from_ascii(format!("{CHECK}.{domain}."))?;
    let mut question = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, kind));
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&question.to_vec()?).await?;
    let mut buffer = [0; 1500];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = Message::from_vec(&buffer[..length])?;
        if answer.id == question.id {
            return Ok(answer);
        }
    }
}

fn has_address(answer: &Message) -> bool {
    answer.answers.iter().any(|record| matches!(record.data, RData::A(_) | RData::AAAA(_)))
}

fn classify(answer: &Message) -> Answer {
    match answer.response_code {
        ResponseCode::NoError if has_address(answer) => Answer::Configured,
        ResponseCode::NoError | ResponseCode::NXDomain => Answer::NotConfigured,
        code => Answer::Silent(code.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, AAAA};

    use super::*;

    fn answer(code: ResponseCode, address: bool) -> Answer {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.metadata.response_code = code;
        if address {
            let name = Name::from_ascii("dns-check.weft.mesh.").unwrap();
            message.add_answer(Record::from_rdata(name, 30, RData::A(A::new(10, 96, 0, 1))));
        }
        classify(&message)
    }

    #[test]
    fn the_pods_own_servers_are_those_of_its_resolv_conf() {
        let text = "search a.svc.cluster.local svc.cluster.local\nnameserver 169.254.20.10\n nameserver fd00::a \noptions ndots:5\n";
        let expected: Vec<SocketAddr> =
            ["169.254.20.10:53", "[fd00::a]:53"].map(|a| a.parse().unwrap()).into();
        assert_eq!(nameservers(text), expected);
        assert!(nameservers("# none\n").is_empty());
    }

    /// A DNS server that knows the check name, with addresses of IPv6 alone, or with none.
    async fn server(known: bool) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let mut answer = Message::new(question.id, MessageType::Response, OpCode::Query);
                let asked = &question.queries[0];
                if known && asked.query_type() == RecordType::AAAA {
                    let data = RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
                    answer.add_answer(Record::from_rdata(asked.name().clone(), 30, data));
                }
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn an_address_of_either_family_will_do() {
        assert_eq!(ask(server(true).await, "weft.mesh").await, Answer::Configured);
        assert_eq!(ask(server(false).await, "weft.mesh").await, Answer::NotConfigured);
    }

    #[test]
    fn an_address_means_the_block_is_live() {
        assert_eq!(answer(ResponseCode::NoError, true), Answer::Configured);
        assert_eq!(answer(ResponseCode::NXDomain, false), Answer::NotConfigured);
        assert_eq!(answer(ResponseCode::NoError, false), Answer::NotConfigured);
        assert!(matches!(answer(ResponseCode::ServFail, false), Answer::Silent(_)));
    }
}
