use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// A mesh of two domains with one Service of both families and one of IPv6 alone.
struct Mesh {
    complete: bool,
    domains: Vec<String>,
}

impl Default for Mesh {
    fn default() -> Self {
        Self { complete: true, domains: vec!["weft.mesh".into(), "traefik.mesh".into()] }
    }
}

const V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x20);
const API: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

impl Names for Mesh {
    fn complete(&self) -> bool {
        self.complete
    }

    fn domains(&self) -> Vec<String> {
        self.domains.clone()
    }

    fn addresses(&self, service: &str, namespace: &str) -> Option<Vec<IpAddr>> {
        match (service, namespace) {
            ("cart", "shop") => Some(vec![V4.into(), V6.into()]),
            ("six", "shop") => Some(vec![V6.into()]),
            _ => None,
        }
    }

    fn has_any(&self, namespace: &str) -> bool {
        namespace == "shop"
    }

    fn api_server(&self) -> Vec<IpAddr> {
        vec![API.into()]
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut question = Message::new(77, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    question
}

fn ask(mesh: &Mesh, question: &Message) -> Message {
    let bytes = answer_bytes(&question.to_vec().unwrap(), LONGEST_DATAGRAM, mesh).unwrap();
    Message::from_vec(&bytes).unwrap()
}

/// Code, whether it is authoritative, the answers and how many SOA records came with it.
fn told(mesh: &Mesh, name: &str, kind: RecordType) -> (ResponseCode, bool, Vec<IpAddr>, usize) {
    let answer = ask(mesh, &question(name, kind));
    assert_eq!((answer.id, answer.message_type), (77, MessageType::Response));
    assert!(answer.recursion_desired && !answer.recursion_available && !answer.truncation);
    let addresses = answer.answers.iter().filter_map(|record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    });
    (answer.response_code, answer.authoritative, addresses.collect(), answer.authorities.len())
}

#[test]
fn a_mesh_name_leads_to_the_shadows_addresses_by_family() {
    let mesh = Mesh::default();
    for domain in ["weft.mesh.", "traefik.mesh."] {
        let name = format!("cart.shop.{domain}");
        assert_eq!(told(&mesh, &name, RecordType::A), (ResponseCode::NoError, true, vec![V4.into()], 0));
        assert_eq!(told(&mesh, &name, RecordType::AAAA), (ResponseCode::NoError, true, vec![V6.into()], 0));
        let both = vec![V4.into(), V6.into()];
        assert_eq!(told(&mesh, &name, RecordType::ANY), (ResponseCode::NoError, true, both, 0));
    }
    let check = told(&mesh, "dns-check.weft.mesh.", RecordType::A);
    assert_eq!(check, (ResponseCode::NoError, true, vec![API.into()], 0));
}

#[test]
fn what_is_not_there_is_told_from_what_has_no_such_record() {
    let mesh = Mesh::default();
    for (name, kind, code) in [
        ("six.shop.weft.mesh.", RecordType::A, ResponseCode::NoError),
        ("cart.shop.weft.mesh.", RecordType::TXT, ResponseCode::NoError),
        ("cart.shop.weft.mesh.", RecordType::SRV, ResponseCode::NoError),
        ("weft.mesh.", RecordType::A, ResponseCode::NoError),
        // A resolver that asks label by label would take NXDOMAIN for everything below.
        ("shop.weft.mesh.", RecordType::NS, ResponseCode::NoError),
        ("nobody.weft.mesh.", RecordType::A, ResponseCode::NXDomain),
        ("nobody.shop.weft.mesh.", RecordType::A, ResponseCode::NXDomain),
        ("a.cart.shop.weft.mesh.", RecordType::A, ResponseCode::NXDomain),
        ("cart\\.shop.weft.mesh.", RecordType::A, ResponseCode::NXDomain),
    ] {
        assert_eq!(told(&mesh, name, kind), (code, true, vec![], 1), "{name} {kind}");
    }
    let apex = ask(&mesh, &question("weft.mesh.", RecordType::SOA));
    assert!(matches!(apex.answers.as_slice(), [Record { data: RData::SOA(_), .. }]), "{apex:?}");
}

#[test]
fn other_names_are_refused_and_nothing_is_said_before_all_is_known() {
    let mesh = Mesh::default();
    for name in ["example.org.", "mesh.", ".", "notweft.mesh.", "weft.mesh.example.org."] {
        assert_eq!(told(&mesh, name, RecordType::A), (ResponseCode::Refused, false, vec![], 0), "{name}");
    }
    let without = Mesh { domains: vec![], ..Mesh::default() };
    let refused = told(&without, "cart.shop.weft.mesh.", RecordType::A);
    assert_eq!(refused, (ResponseCode::Refused, false, vec![], 0), "there is no MeshConfig");
    let starting = Mesh { complete: false, ..Mesh::default() };
    let fails = told(&starting, "nobody.shop.weft.mesh.", RecordType::A);
    assert_eq!(fails, (ResponseCode::ServFail, false, vec![], 0), "it may be there all the same");
}

#[test]
fn names_are_answered_as_they_were_asked_for() {
    let answer = ask(&Mesh::default(), &question("CaRt.Shop.WEFT.mesh.", RecordType::A));
    assert_eq!(answer.answers[0].name.to_ascii(), "CaRt.Shop.WEFT.mesh.");
    assert_eq!(answer.answers[0].ttl, TTL);
    let mut chaos = question("cart.shop.weft.mesh.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(ask(&Mesh::default(), &chaos).response_code, ResponseCode::Refused);
}

#[test]
fn extensions_are_answered_in_kind() {
    let mut asked = question("cart.shop.weft.mesh.", RecordType::A);
    asked.set_edns(Edns::new());
    let answer = ask(&Mesh::default(), &asked);
    assert_eq!(answer.edns.as_ref().map(Edns::max_payload), Some(LONGEST_DATAGRAM));
    let mut newer = Edns::new();
    newer.set_version(1);
    asked.set_edns(newer);
    let answer = ask(&Mesh::default(), &asked);
    // 16, which has two names.
    let badvers = u16::from(ResponseCode::BADVERS);
    assert_eq!((u16::from(answer.response_code), answer.answers.len()), (badvers, 0));
}

#[test]
fn what_is_too_long_for_a_datagram_is_said_to_be() {
    /// A Service with more addresses than fit.
    struct Long;
    impl Names for Long {
        fn complete(&self) -> bool {
            true
        }
        fn domains(&self) -> Vec<String> {
            vec!["weft.mesh".into()]
        }
        fn addresses(&self, _: &str, _: &str) -> Option<Vec<IpAddr>> {
            Some((0..60).map(|n| IpAddr::from([10, 0, 0, n])).collect())
        }
        fn has_any(&self, _: &str) -> bool {
            true
        }
        fn api_server(&self) -> Vec<IpAddr> {
            vec![]
        }
    }
    let asked = question("cart.shop.weft.mesh.", RecordType::A);
    let bytes = asked.to_vec().unwrap();
    let short = answer_bytes(&bytes, LONGEST_DATAGRAM, &Long).unwrap();
    let answer = Message::from_vec(&short).unwrap();
    assert!(short.len() <= 512 && answer.truncation && answer.answers.is_empty(), "{answer:?}");
    let whole = Message::from_vec(&answer_bytes(&bytes, u16::MAX, &Long).unwrap()).unwrap();
    assert_eq!((whole.truncation, whole.answers.len()), (false, 60));
}

#[test]
fn what_is_no_question_gets_no_answer_and_a_bad_one_is_told() {
    let mesh = Mesh::default();
    let code = |bytes: &[u8]| {
        answer_bytes(bytes, LONGEST_DATAGRAM, &mesh)
            .map(|bytes| Message::from_vec(&bytes).unwrap().response_code)
    };
    let good = question("cart.shop.weft.mesh.", RecordType::A).to_vec().unwrap();
    let answer = answer_bytes(&good, LONGEST_DATAGRAM, &mesh).unwrap();
    assert_eq!(code(&answer), None, "two servers must not answer each other");
    assert_eq!((code(&[]), code(&good[..11])), (None, None));
    assert_eq!(code(&good[..20]), Some(ResponseCode::FormErr));
    let mut many = good.clone();
    many[4] = 0xff;
    assert_eq!(code(&many), Some(ResponseCode::FormErr));
    let mut notify = question("cart.shop.weft.mesh.", RecordType::A);
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&notify.to_vec().unwrap()), Some(ResponseCode::NotImp));
}

proptest! {
    #[test]
    fn nothing_that_comes_is_too_much(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Some(answer) = answer_bytes(&bytes, LONGEST_DATAGRAM, &Mesh::default()) {
            prop_assert!(answer.len() <= usize::from(LONGEST_DATAGRAM));
            prop_assert!(Message::from_vec(&answer).is_ok());
        }
    }

    /// As above, but from questions that are nearly good.
    #[test]
    fn nor_what_is_nearly_right(at in 0..50_usize, byte in any::<u8>(), cut in 0..60_usize) {
        let mut bytes = question("cart.shop.weft.mesh.", RecordType::A).to_vec().unwrap();
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(length.saturating_sub(cut % 4));
        if let Some(answer) = answer_bytes(&bytes, LONGEST_DATAGRAM, &Mesh::default()) {
            prop_assert!(Message::from_vec(&answer).is_ok());
        }
    }
}
