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
    first_nameserver(&std::fs::read_to_string("/etc/resolv.conf").ok()?)
}

fn first_nameserver(resolv_conf: &str) -> Option<SocketAddr> {
    let mut servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    Some(SocketAddr::new(servers.next()?.trim().parse().ok()?, 53))
}

async fn exchange(
    server: SocketAddr,
    domain: &str,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let name = Name::from_ascii(format!("{CHECK}.{domain}."))?;
    let mut question = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, RecordType::A));
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&question.to_vec()?).await?;
    let mut buffer = [0; 1500];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = Message::from_vec(&buffer[..length])?;
        if answer.id == question.id {
            return Ok(classify(&answer));
        }
    }
}

fn classify(answer: &Message) -> Answer {
    let addresses = answer.answers.iter().any(|record| matches!(record.data, RData::A(_) | RData::AAAA(_)));
    match answer.response_code {
        ResponseCode::NoError if addresses => Answer::Configured,
        ResponseCode::NoError | ResponseCode::NXDomain => Answer::NotConfigured,
        code => Answer::Silent(code.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::A;

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
    fn the_pods_own_server_is_the_first_that_is_named() {
        let text =
            "search a.svc.cluster.local\nnameserver 169.254.20.10\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(first_nameserver(text), Some("169.254.20.10:53".parse().unwrap()));
        assert_eq!(first_nameserver("options ndots:5\n"), None);
    }

    #[test]
    fn an_address_means_the_block_is_live() {
        assert_eq!(answer(ResponseCode::NoError, true), Answer::Configured);
        assert_eq!(answer(ResponseCode::NXDomain, false), Answer::NotConfigured);
        assert_eq!(answer(ResponseCode::NoError, false), Answer::NotConfigured);
        assert!(matches!(answer(ResponseCode::ServFail, false), Answer::Silent(_)));
    }
}
