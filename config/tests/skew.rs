//! Operator and proxy of neighbouring versions understand each other: the schema of the version before is kept in `skew/`, and
//! messages of each side are read by the other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;
use prost::Message;
use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage,
    Value,
};
use weft_config::edges::{EdgeFigures, ProxyEdges, ServiceName};
use weft_config::policy::{HttpPolicy, RateLimit, Scheme, Timeouts, Traffic, UpstreamTls};
use weft_config::status::{ProxyStatus, Rejection};
use weft_config::wire::v1;
use weft_config::{
    Access, AccountId, Endpoints, EndpointsId, Entry, Identity, Port, Resource, Restriction, Service,
    ServiceId, Split, SplitBackend,
};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

fn schema(include: &str) -> DescriptorPool {
    let include = Path::new(HERE).join(include);
    let files = protox::compile(["weft/config/v1/config.proto"], [include]).unwrap();
    DescriptorPool::from_file_descriptor_set(files).unwrap()
}

fn previous() -> DescriptorPool {
    schema("tests/skew/previous")
}

/// What a field is on the wire.
fn shape(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        scalar => format!("{scalar:?}"),
    };
    let oneof =
        field.containing_oneof().filter(|oneof| !oneof.is_synthetic()).map(|oneof| oneof.name().to_owned());
    format!("{kind} {:?} in {oneof:?}", field.cardinality())
}

fn changed_fields(old: &MessageDescriptor, new: &MessageDescriptor, faults: &mut Vec<String>) {
    for was in old.fields() {
        let name = format!("{}.{}", old.full_name(), was.name());
        match new.get_field(was.number()) {
            Some(is) if is.name() == was.name() && shape(&is) == shape(&was) => {}
            Some(is) => faults.push(format!("{name}: was {}, is {} {}", shape(&was), is.name(), shape(&is))),
            None => faults.push(format!("{name} ({}) is gone", was.number())),
        }
    }
}

fn changed_values(old: &EnumDescriptor, new: &EnumDescriptor, faults: &mut Vec<String>) {
    for was in old.values() {
        if new.get_value(was.number()).is_none_or(|is| is.name() != was.name()) {
            faults.push(format!("{}: {} is another", old.full_name(), was.name()));
        }
    }
}

#[test]
fn fields_are_only_added_and_numbers_never_used_again() {
    let (old, new, mut faults) = (previous(), schema("proto"), Vec::new());
    let mut seen = 0;
    for was in old.all_messages() {
        seen += 1;
        match new.get_message_by_name(was.full_name()) {
            Some(is) => changed_fields(&was, &is, &mut faults),
            None => faults.push(format!("{} is gone", was.full_name())),
        }
    }
    for was in old.all_enums() {
        seen += 1;
        match new.get_enum_by_name(was.full_name()) {
            Some(is) => changed_values(&was, &is, &mut faults),
            None => faults.push(format!("{} is gone", was.full_name())),
        }
    }
    for was in old.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let service = new.get_service_by_name(was.parent_service().full_name());
        let is = service.and_then(|service| service.methods().find(|is| is.name() == was.name()));
        let same = is.is_some_and(|is| {
            (
                is.input().full_name(),
                is.output().full_name(),
                is.is_client_streaming(),
                is.is_server_streaming(),
            ) == (
                was.input().full_name(),
                was.output().full_name(),
                was.is_client_streaming(),
                was.is_server_streaming(),
            )
        });
        if !same {
            faults.push(format!("{} is another", was.full_name()));
        }
    }
    assert!(seen > 20, "only {seen} definitions were compared");
    assert!(faults.is_empty(), "the version before would not understand: {faults:#?}");
}

/// A small generator of numbers, so that one seed makes a whole message.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Any message of the schema: each field is there or not; of a oneof the last that is written stays.
fn message(of: &MessageDescriptor, dice: &mut Dice, depth: u32) -> DynamicMessage {
    let mut made = DynamicMessage::new(of.clone());
    for field in of.fields() {
        if dice.roll(3) == 0 || (depth == 0 && matches!(field.kind(), Kind::Message(_))) {
            continue;
        }
        let value = if field.is_list() {
            Value::List((0..=dice.roll(3)).map(|_| value(&field.kind(), dice, depth)).collect())
        } else {
            value(&field.kind(), dice, depth)
        };
        made.set_field(&field, value);
    }
    made
}

fn value(kind: &Kind, dice: &mut Dice, depth: u32) -> Value {
    match kind {
        Kind::Bool => Value::Bool(true),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(u32::try_from(dice.roll(1 << 20)).unwrap() + 1),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(dice.roll(1 << 31) + 1),
        Kind::Int32 | Kind::Sint32 => Value::I32(i32::try_from(dice.roll(1 << 20)).unwrap() + 1),
        Kind::String => Value::String(format!("text{}", dice.roll(1000))),
        Kind::Bytes => Value::Bytes(vec![1, 2, 3, u8::try_from(dice.roll(256)).unwrap()].into()),
        Kind::Message(of) => Value::Message(message(of, dice, depth - 1)),
        Kind::Enum(of) => {
            let numbers: Vec<_> =
                of.values().map(|value| value.number()).filter(|number| *number != 0).collect();
            Value::EnumNumber(numbers[usize::try_from(dice.roll(numbers.len() as u64)).unwrap()])
        }
        other => panic!("{other:?} is new to the schema: say here what values it has"),
    }
}

/// What came through the other side's types, read again.
fn through<T: Message + Default>(sent: &DynamicMessage) -> DynamicMessage {
    let read = T::decode(&*sent.encode_to_vec()).unwrap();
    DynamicMessage::decode(sent.descriptor(), &*read.encode_to_vec()).unwrap()
}

proptest! {
    /// What the version before says comes whole through the types of this one: nothing of it is lost or read as something else.
    #[test]
    fn what_the_version_before_sends_is_read_whole(seed in any::<u64>()) {
        let (old, mut dice) = (previous(), Dice(seed));
        let mut any = |name: &str| message(&old.get_message_by_name(name).unwrap(), &mut dice, 6);
        let (update, said) = (any("weft.config.v1.Update"), any("weft.config.v1.ProxyMessage"));
        let snapshot = any("weft.config.v1.Snapshot");
        prop_assert_eq!(&through::<v1::Update>(&update), &update);
        prop_assert_eq!(&through::<v1::ProxyMessage>(&said), &said);
        prop_assert_eq!(&through::<v1::Snapshot>(&snapshot), &snapshot);
    }

    /// What this version says is read by the version before, which skips what it does not know; what it knows is the same.
    #[test]
    fn what_this_version_sends_is_read_by_the_one_before(seed in any::<u64>()) {
        let (old, new, mut dice) = (previous(), schema("proto"), Dice(seed));
        for name in ["weft.config.v1.Update", "weft.config.v1.ProxyMessage", "weft.config.v1.Snapshot"] {
            let sent = message(&new.get_message_by_name(name).unwrap(), &mut dice, 6);
            let read = DynamicMessage::decode(old.get_message_by_name(name).unwrap(), &*sent.encode_to_vec()).unwrap();
            assert_agree(&read, &sent);
        }
    }
}

/// Every field that `read` has is as it was sent.
fn assert_agree(read: &DynamicMessage, sent: &DynamicMessage) {
    for (field, value) in read.fields() {
        let was = sent.get_field_by_number(field.number()).unwrap();
        agree(value, &was, field.full_name());
    }
}

fn agree(read: &Value, sent: &Value, path: &str) {
    match (read, sent) {
        (Value::Message(read), Value::Message(sent)) => assert_agree(read, sent),
        (Value::List(read), Value::List(sent)) => {
            assert_eq!(read.len(), sent.len(), "{path}");
            read.iter().zip(sent).for_each(|(read, sent)| agree(read, sent, path));
        }
        (read, sent) => assert_eq!(read, sent, "{path}"),
    }
}

/// A resource of each kind with all it can have.
fn resources() -> Vec<Resource> {
    let id = ServiceId::new("shop", "cart");
    let endpoints = EndpointsId { service: id.clone(), port: 80 };
    let tls =
        UpstreamTls { authorities: vec![vec![1, 2]], server_name: "cart.example".into(), unverified: true };
    let policy = HttpPolicy {
        scheme: Scheme::Https(tls),
        retry_attempts: Some(3),
        circuit_breaker: Some("NetworkErrorRatio() > 0.5".parse().unwrap()),
        rate_limit: Some(RateLimit { average: 10, burst: 20 }),
    };
    let backend = SplitBackend { endpoints: endpoints.clone(), weight: 7, split: None };
    let ms = |n| Some(std::time::Duration::from_millis(n));
    let port = Port {
        port: 80,
        name: "http".into(),
        listen_port: 10000,
        traffic: Traffic::Http(policy),
        timeouts: Timeouts { request: ms(1), idle: ms(2), connect: ms(3) },
        endpoints: endpoints.clone(),
        split: Some(Split { matches: Vec::new(), backends: vec![backend] }),
        restriction: Some(Restriction { denied_status: 404 }),
    };
    let list = Endpoints {
        ready: vec![([10, 0, 0, 1], 8080).into()],
        draining: vec![([0, 0, 0, 0, 0, 0, 0, 1], 8080).into()],
        unready: 3,
    };
    let account = AccountId { namespace: "shop".into(), name: "web".into() };
    vec![
        Resource::Service(Service { id, ports: vec![port] }),
        Resource::Endpoints(endpoints, list),
        Resource::Identity(account.clone(), Identity::default()),
        Resource::Access(account, Access::default()),
    ]
}

/// Resources as the version before encoded them: this one encodes the same to the same bytes, so that a proxy keeps what it
/// holds when the operator is upgraded.
#[test]
fn resources_recorded_from_the_version_before_have_the_same_bytes_and_hashes() {
    let mut now = String::new();
    for entry in resources().into_iter().map(Entry::new) {
        let mut sent = v1::Resource::from(&entry);
        // The version before did not say it.
        sent.kind = 0;
        let bytes: String = sent.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(now, "{} {:016x} {bytes}", entry.resource.key(), entry.hash).unwrap();
        assert_eq!(Entry::try_from(&sent).unwrap(), entry);
    }
    let path = Path::new(HERE).join("tests/skew/resources.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap();
    assert_eq!(now, recorded, "proxies of the version before would be sent everything anew");
}

#[test]
fn the_kind_of_a_resource_is_told_beside_its_body() {
    for entry in resources().into_iter().map(Entry::new) {
        let sent = v1::Resource::from(&entry);
        assert_eq!(sent.kind, v1::ResourceKey::from(&entry.resource.key()).kind, "{}", sent.name);
    }
}

#[test]
fn what_proxies_of_either_version_say_of_themselves_is_read() {
    let before = r#"{"digest":"00ff","listen_ports":[10000],"rejections":[{"resource":"Service a/b","reason":"no"}],"connected":true}"#;
    let read: ProxyStatus = serde_json::from_str(before).unwrap();
    let rejections = vec![Rejection { resource: "Service a/b".into(), reason: "no".into() }];
    let wanted = ProxyStatus {
        digest: "00ff".into(),
        listen_ports: vec![10000],
        rejections,
        connected: true,
        ..ProxyStatus::default()
    };
    assert_eq!(read, wanted, "and it has carried nothing, as far as we know");
    // What the version before must find in what this one says.
    let said = serde_json::to_value(&wanted).unwrap();
    for field in ["digest", "listen_ports", "rejections", "connected"] {
        assert!(!said[field].is_null(), "{field}");
    }
    let more = r#"{"digest":"00ff","something":"that only a later version says"}"#;
    assert_eq!(serde_json::from_str::<ProxyStatus>(more).unwrap().digest, "00ff");
}

#[test]
fn edges_of_the_version_before_are_read() {
    let before = r#"{"end":5,"edges":[{"source":"10.0.0.1","endpoint":"10.0.0.2:80","service":{"namespace":"a","name":"b"},
        "port":80,"backend":null,"failures":1,"buckets":[[3,2]]}]}"#;
    let read: ProxyEdges = serde_json::from_str(before).unwrap();
    let edge = EdgeFigures {
        source: [10, 0, 0, 1].into(),
        endpoint: Some(([10, 0, 0, 2], 80).into()),
        service: ServiceName { namespace: "a".into(), name: "b".into() },
        port: 80,
        backend: None,
        failures: 1,
        buckets: vec![(3, 2)],
    };
    assert_eq!(read, ProxyEdges { end: 5, edges: vec![edge] });
}
