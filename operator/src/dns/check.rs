//! Asks the DNS pods themselves whether they answer for a mesh domain: only they know which Corefile they run.

use std::net::{IpAddr, SocketAddr};
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

/// Asks the DNS pod at `pod` for the check name below `domain`.
pub async fn ask(pod: IpAddr, domain: &str) -> Answer {
    match tokio::time::timeout(PATIENCE, exchange(SocketAddr::new(pod, 53), domain)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::Silent(error.to_string()),
        Err(_) => Answer::Silent("no answer in time".to_owned()),
    }
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
    fn an_address_means_the_block_is_live() {
        assert_eq!(answer(ResponseCode::NoError, true), Answer::Configured);
        assert_eq!(answer(ResponseCode::NXDomain, false), Answer::NotConfigured);
        assert_eq!(answer(ResponseCode::NoError, false), Answer::NotConfigured);
        assert!(matches!(answer(ResponseCode::ServFail, false), Answer::Silent(_)));
    }
}
