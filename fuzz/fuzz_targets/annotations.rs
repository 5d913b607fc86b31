//! Any annotations of a Service are read or told to be wrong; what was read compiles to a policy. The text holds one
//! annotation in each line, `key: value`, the prefix of the key left out.

#![no_main]

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use libfuzzer_sys::fuzz_target;
use weft_operator::annotations::{PREFIXES, Settings};
use weft_operator::index::facts::ServiceFacts;

fuzz_target!(|text: &str| {
    let annotations = text.lines().enumerate().filter_map(|(number, line)| {
        let (key, value) = line.split_once(": ")?;
        Some((format!("{}{key}", PREFIXES[number % PREFIXES.len()]), value.to_owned()))
    });
    let port = ServicePort { port: 80, ..ServicePort::default() };
    let service = Service {
        metadata: ObjectMeta {
            name: Some("cart".into()),
            namespace: Some("shop".into()),
            annotations: Some(annotations.collect()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec { ports: Some(vec![port]), ..ServiceSpec::default() }),
        ..Service::default()
    };
    let facts = ServiceFacts::of(&service).expect("it has a name");
    let (settings, problems) = Settings::of(&facts, &Settings::default());
    let _ = (settings.traffic(&facts), settings.clone());
    for problem in problems {
        assert!(problem.to_string().starts_with("annotation "), "{problem}");
    }
});
