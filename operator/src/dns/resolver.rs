//! Answers for the mesh domains from what the index knows, as an authoritative server does: the addresses of shadow Services, and
//! for all else that it does not exist. Pure; [`crate::serve::dns`] has the sockets.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinDecodable;

use super::block::CHECK;

/// How long an answer may be kept: a shadow's address changes only with the Service, but a Service that is new must not be missing
/// for long.
const TTL: u32 = 5;
/// The longest answer over UDP: no network takes it apart.
pub const LONGEST_DATAGRAM: u16 = 1232;
/// The longest question. An honest one has a name of 255 bytes, and little else.
pub const LONGEST_QUESTION: usize = 1232;
/// Bytes of a header.
const HEADER: usize = 12;

/// What is known.
pub trait Names {
    /// Whether everything is known, so that absence means something.
    fn complete(&self) -> bool;
    /// The mesh domains.
    fn domains(&self) -> Vec<String>;
    /// Where the mesh name of a Service leads to. `None`: there is no such name.
    fn addresses(&self, service: &str, namespace: &str) -> Option<Vec<IpAddr>>;
    /// Whether a Service of the namespace has a mesh name.
    fn has_any(&self, namespace: &str) -> bool;
    /// The API server's address, for the name that tells that a DNS server asks us.
    fn api_server(&self) -> Vec<IpAddr>;
}

/// What the name asked for is.
enum Asked {
    /// One that has addresses, or could have.
    Host(Vec<IpAddr>),
    /// One that others lie below.
    Between,
    /// The domain itself.
    Domain,
    /// None.
    Nothing,
}

/// The answer to what came, in bytes; at most `longest`. `None`: what came is no question, and is left without an answer.
pub fn answer_bytes(question: &[u8], longest: u16, names: &impl Names) -> Option<Vec<u8>> {
    let (id, flags) = (u16::from_be_bytes([*question.first()?, *question.get(1)?]), *question.get(2)?);
    if question.len() < HEADER || flags & 0x80 != 0 {
        return None;
    }
    // Counted before it is read: nobody makes us take room for questions that are not there.
    let count = |at: usize| u16::from_be_bytes([question[at], question[at + 1]]);
    let plain = count(4) == 1 && count(6) == 0 && count(8) == 0 && count(10) <= 2;
    let read = if plain { Message::from_bytes(question).ok() } else { None };
    let Some(read) = read else {
        let code = OpCode::from_u8((flags >> 3) & 0x0f);
        return Message::error_msg(id, code, ResponseCode::FormErr).to_vec().ok();
    };
    let longest = longest.min(if longest == u16::MAX { longest } else { read.max_payload() });
    let answer = answer(&read, names);
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= usize::from(longest) { Some(bytes) } else { answer.truncate().to_vec().ok() }
}

/// The answer to a message with one question.
pub fn answer(question: &Message, names: &impl Names) -> Message {
    let mut answer = Message::response(question.id, question.op_code);
    answer.metadata.recursion_desired = question.recursion_desired;
    answer.add_queries(question.queries.iter().cloned());
    answer.metadata.response_code =
        match (question.message_type, question.op_code, question.queries.as_slice()) {
            (MessageType::Query, OpCode::Query, [query]) => fill(&mut answer, query, names),
            (MessageType::Query, OpCode::Query, _) => ResponseCode::FormErr,
            _ => ResponseCode::NotImp,
        };
    if let Some(edns) = &question.edns {
        let mut ours = Edns::new();
        ours.set_max_payload(LONGEST_DATAGRAM);
        answer.set_edns(ours);
        if edns.version() > 0 {
            answer.answers.clear();
            answer.authorities.clear();
            answer.metadata.response_code = ResponseCode::BADVERS;
        }
    }
    answer
}

fn fill(answer: &mut Message, query: &Query, names: &impl Names) -> ResponseCode {
    let asked = query.name().to_ascii().to_ascii_lowercase();
    let asked = asked.trim_end_matches('.');
    let domains = names.domains();
    // Of two that fit, which the API server does not let be, the longer one.
    let within = domains.iter().filter(|domain| below(asked, domain).is_some());
    let Some(domain) = within.max_by_key(|domain| domain.len()) else { return ResponseCode::Refused };
    if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
        return ResponseCode::Refused;
    }
    if !names.complete() {
        return ResponseCode::ServFail;
    }
    answer.metadata.authoritative = true;
    let what = look_up(below(asked, domain).unwrap_or_default(), names);
    let code = if matches!(what, Asked::Nothing) { ResponseCode::NXDomain } else { ResponseCode::NoError };
    match what {
        Asked::Host(addresses) => {
            for address in addresses.into_iter().filter(|address| fits(address, query.query_type())) {
                let data = match address {
                    IpAddr::V4(address) => RData::A(A(address)),
                    IpAddr::V6(address) => RData::AAAA(AAAA(address)),
                };
                answer.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
            }
        }
        Asked::Domain if query.query_type() == RecordType::SOA => {
            answer.answers.extend(authority(domain));
        }
        Asked::Domain | Asked::Between | Asked::Nothing => {}
    }
    if answer.answers.is_empty() {
        // How long that it is not there may be kept.
        answer.authorities.extend(authority(domain));
    }
    code
}

/// The labels of `name` before `domain`; empty when it is the domain. `None`: it lies elsewhere.
fn below<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    if name == domain {
        return Some("");
    }
    name.strip_suffix(domain)?.strip_suffix('.')
}

fn look_up(labels: &str, names: &impl Names) -> Asked {
    let labels: Vec<_> = labels.split('.').collect();
    match labels.as_slice() {
        [""] => Asked::Domain,
        [check] if *check == CHECK => Asked::Host(names.api_server()),
        [namespace] if names.has_any(namespace) => Asked::Between,
        [service, namespace] => names.addresses(service, namespace).map_or(Asked::Nothing, Asked::Host),
        _ => Asked::Nothing,
    }
}

fn fits(address: &IpAddr, asked: RecordType) -> bool {
    match asked {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    }
}

fn authority(domain: &str) -> Option<Record> {
    let name = |text: String| Name::from_ascii(text).ok();
    let (server, mailbox) = (name(format!("ns.dns.{domain}."))?, name(format!("hostmaster.{domain}."))?);
    let day = 86_400;
    let soa = SOA::new(server, mailbox, 1, day, 7200, day, TTL);
    Some(Record::from_rdata(name(format!("{domain}."))?, TTL, RData::SOA(soa)))
}

#[cfg(test)]
#[path = "resolver/tests.rs"]
mod tests;
