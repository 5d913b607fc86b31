//! Names to addresses as a pod's resolver does it: nameserver, search list and `ndots` of `/etc/resolv.conf`, by UDP.
//! Load and measurements try once ([`Resolver::strict`]), so that a lost answer is seen and counted; everything else asks a second
//! time, as C libraries do ([`Resolver::of_pod`]): one datagram lost on a busy machine says nothing about what is looked at.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;

use crate::Failure;

/// How long the answer to one query may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// How often a name is asked for, as C libraries do by default (resolv.conf(5), `attempts`).
const ATTEMPTS: u8 = 2;

/// The pod's resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolver {
    server: SocketAddr,
    search: Vec<String>,
    ndots: usize,
    attempts: u8,
}

/// An answer to one query.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: ResponseCode,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Resolver {
    /// The resolver of this pod.
    pub(crate) fn of_pod() -> Result<Self, Failure> {
        Self::parse(&std::fs::read_to_string("/etc/resolv.conf")?)
    }

    /// The same for those who count what is lost: it asks once.
    pub(crate) fn strict() -> Result<Self, Failure> {
        Ok(Self { attempts: 1, ..Self::of_pod()? })
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let (mut server, mut search, mut ndots) = (None, Vec::new(), 1);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if server.is_none() => {
                    server = words.next().map(str::parse::<IpAddr>).transpose()?;
                }
                Some("search") => search = words.map(|word| word.trim_end_matches('.').to_owned()).collect(),
                Some("options") => {
                    for option in words {
                        if let Some(value) = option.strip_prefix("ndots:") {
                            ndots = value.parse()?;
                        }
                    }
                }
                _ => (),
            }
        }
        let server = server.ok_or("/etc/resolv.conf names no nameserver")?;
        Ok(Self { server: SocketAddr::new(server, 53), search, ndots, attempts: ATTEMPTS })
    }

    /// The IPv4 addresses of `host`, by the search list as a C library goes through it.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        for name in self.candidates(host) {
            let answer = self.query(&name).await?;
            match answer.code {
                ResponseCode::NoError if !answer.addresses.is_empty() => return Ok(answer.addresses),
                ResponseCode::NoError | ResponseCode::NXDomain => (),
                code => return Err(format!("{name}: {code}").into()),
            }
        }
        Err(format!("{host}: no such name").into())
    }

    /// One of them.
    pub(crate) async fn address(&self, host: &str) -> Result<IpAddr, Failure> {
        let addresses = self.addresses(host).await?;
        Ok(*fastrand::choice(&addresses).ok_or("the name has no address")?)
    }

    fn candidates(&self, host: &str) -> Vec<String> {
        if host.ends_with('.') {
            return vec![host.to_owned()];
        }
        let absolute = format!("{host}.");
        let mut searched: Vec<_> = self.search.iter().map(|domain| format!("{host}.{domain}.")).collect();
        if host.matches('.').count() >= self.ndots {
            searched.insert(0, absolute);
        } else {
            searched.push(absolute);
        }
        searched
    }

    /// Asks for the A records of the absolute `name`, from a socket of its own each time.
    pub(crate) async fn query(&self, name: &str) -> Result<Answer, Failure> {
        for _ in 0..self.attempts {
            if let Ok(answer) = tokio::time::timeout(PATIENCE, self.exchange(name)).await {
                return answer;
            }
        }
        Err(format!("{name}: no answer within {} s, asked {} times", PATIENCE.as_secs(), self.attempts)
            .into())
    }

    async fn exchange(&self, name: &str) -> Result<Answer, Failure> {
        let mut question = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
        let any: SocketAddr =
            if self.server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(self.server).await?;
        socket.send(&question.to_vec()?).await?;
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let answer = Message::from_vec(&buffer[..length])?;
            if answer.id == question.id {
                let addresses = answer.answers.iter().filter_map(|record| match &record.data {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    _ => None,
                });
                return Ok(Answer { code: answer.response_code, addresses: addresses.collect() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_A_POD: &str = "search demo.svc.cluster.local svc.cluster.local cluster.local\n\
                            nameserver 10.96.0.10\noptions ndots:5\n";

    #[test]
    fn a_pods_resolv_conf_is_understood() {
        let resolver = Resolver::parse(OF_A_POD).unwrap();
        assert_eq!(resolver.server, "10.96.0.10:53".parse().unwrap());
        assert_eq!(resolver.search.len(), 3);
        assert_eq!(resolver.ndots, 5);
        assert!(Resolver::parse("search x\n").is_err());
    }

    #[test]
    fn short_names_go_through_the_search_list_first() {
        let resolver = Resolver::parse(OF_A_POD).unwrap();
        assert_eq!(
            resolver.candidates("whoami.demo"),
            [
                "whoami.demo.demo.svc.cluster.local.",
                "whoami.demo.svc.cluster.local.",
                "whoami.demo.cluster.local.",
                "whoami.demo.",
            ]
        );
        assert_eq!(resolver.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f.");
        assert_eq!(resolver.candidates("whoami.demo."), ["whoami.demo."]);
    }
}
