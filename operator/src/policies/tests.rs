//! From objects as people write them to what the proxies are sent, and what people are told.

use std::fmt::Write as _;

use kube::runtime::watcher::Event;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weft_crds::smi::KINDS;

use super::*;
use crate::index::changes::{About, Changed};
use crate::index::kinds::{MeshKind, ServiceKind};
use crate::index::pods::PodKind;
use crate::index::smi::SmiKind;
use crate::index::watch::Kind;
use crate::names::ShadowName;
use crate::publish::Publisher;

fn put(index: &Index, object: Value) {
    match object["kind"].as_str().unwrap() {
        "MeshConfig" => apply(index, &MeshKind, object),
        "Service" => apply(index, &ServiceKind, object),
        "Pod" => apply(index, &PodKind, object),
        smi => {
            let kind = *KINDS.iter().find(|kind| kind.kind == smi).unwrap();
            apply(index, &SmiKind::new(kind, kind.versions[0]), object);
        }
    }
}

fn apply<K: Kind<Object: DeserializeOwned>>(index: &Index, kind: &K, object: Value) {
    index.take(kind, Event::Apply(serde_json::from_value(object).unwrap()), &mut None);
}

/// Every Service has a shadow, as if it had been made.
fn index(yaml: &str) -> Index {
    let index = Index::new("weft-system");
    let documents = serde_yaml_ng::Deserializer::from_str(yaml);
    let mut listen_port = 10000;
    for document in documents {
        let object = Value::deserialize(document).unwrap();
        if object["kind"] == "Service" {
            let metadata = &object["metadata"];
            let id =
                ServiceId::new(metadata["namespace"].as_str().unwrap(), metadata["name"].as_str().unwrap());
            let ports = object["spec"]["ports"].as_array().unwrap().iter().map(|port| {
                listen_port += 1;
                json!({"port": port["port"], "targetPort": listen_port})
            });
            let shadow = json!({"kind": "Service", "metadata": {"namespace": "weft-system", "name": ShadowName::of(&id).as_str(),
                "labels": {"weft.mesh/shadow": "true", "weft.mesh/service-namespace": &*id.namespace, "weft.mesh/service-name": &*id.name},
                "ownerReferences": [{"apiVersion": "weft.mesh/v1alpha1", "kind": "MeshConfig", "name": "weft", "uid": "u"}]},
                "spec": {"ports": ports.collect::<Vec<_>>()}});
            put(&index, shadow);
        }
        put(&index, object);
    }
    index
}

/// A mesh with access control, splits and targets, good and bad.
pub(crate) fn enforced() -> Index {
    index(include_str!("enforced.yaml"))
}

fn mesh(spec: &Value) -> Value {
    json!({"kind": "MeshConfig", "apiVersion": "weft.mesh/v1alpha1", "spec": spec,
        "metadata": {"namespace": "weft-system", "name": "weft"}})
}

/// What a proxy is sent, as people read it; endpoints, of which there are none here, apart.
async fn published(index: &Index) -> String {
    for kind in index.awaited() {
        index.listed(kind);
    }
    let publisher = Publisher::default();
    let mut run = Box::pin(publisher.clone().run(index.clone(), std::sync::Arc::default()));
    assert!(futures::poll!(&mut run).is_pending());
    let mut text = String::new();
    for entry in publisher.configuration() {
        match &*entry.resource {
            Resource::Endpoints(..) => {}
            Resource::Service(service) => {
                let _ = writeln!(text, "Service {}", service.id);
                for port in &service.ports {
                    let restricted = port.restriction.map(|restriction| restriction.denied_status);
                    let split =
                        port.split.as_ref().map(|split| format!(" {}", shown(split))).unwrap_or_default();
                    let _ = writeln!(text, "  port {} denied with {restricted:?}{split}", port.port);
                }
            }
            Resource::Identity(account, identity) => {
                let _ = writeln!(text, "Identity {account} {:?}", identity.addresses);
            }
            Resource::Access(account, access) => {
                let _ = writeln!(text, "Access {account}");
                for grant in &access.grants {
                    let sources: Vec<_> = grant.sources.iter().map(ToString::to_string).collect();
                    let http =
                        grant.http.as_ref().map(|matches| matches.iter().map(request).collect::<Vec<_>>());
                    let _ = writeln!(
                        text,
                        "  {} from {sources:?}: http {http:?} tcp {:?} udp {:?}",
                        grant.name, grant.tcp, grant.udp
                    );
                }
            }
        }
    }
    text
}

fn request(one: &weft_config::HttpMatch) -> String {
    format!(
        "{} {}",
        one.methods.join(","),
        one.path.as_ref().map(weft_config::Pattern::as_str).unwrap_or_default()
    )
}

fn shown(split: &Split) -> String {
    let backend = |one: &weft_config::SplitBackend| {
        let nested = one.split.as_ref().map(|split| format!(" {}", shown(split))).unwrap_or_default();
        format!("{} {}{nested}", one.weight, one.endpoints)
    };
    let backends: Vec<_> = split.backends.iter().map(backend).collect();
    let of: Vec<_> = split.matches.iter().map(request).collect();
    format!("[{}{}]", backends.join(" + "), if of.is_empty() { String::new() } else { format!(" of {of:?}") })
}

#[tokio::test]
async fn what_is_enforced_and_what_people_are_told() {
    let index = enforced();
    let mut text = published(&index).await;
    text.push('\n');
    for finding in findings(&index) {
        let _ = writeln!(text, "{} {:?}", finding.about, finding.verdict);
        for note in finding.notes {
            let _ = writeln!(text, "  {note}");
        }
    }
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn without_access_control_nobody_s_address_or_right_is_sent() {
    let index = enforced();
    put(&index, mesh(&json!({})));
    let text = published(&index).await;
    assert!(!text.contains("Identity") && !text.contains("Access") && !text.contains("Some(4"), "{text}");
    assert!(text.contains("9000 shop/v1:80"), "splits are in force all the same: {text}");
}

#[tokio::test]
async fn a_pod_concerns_its_account_and_a_service_the_splits_above_it() {
    let index = enforced();
    let changes = index.changes(About::Everything);
    changes.next().await;
    put(
        &index,
        json!({"kind": "Pod", "metadata": {"namespace": "front", "name": "another"},
        "spec": {"serviceAccountName": "clients", "containers": []}, "status": {"podIP": "10.0.0.9"}}),
    );
    let Changed { services, accounts, policies, .. } = changes.next().await;
    assert!(services.is_empty() && !policies, "{services:?}");
    assert_eq!(accounts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["front/clients"]);

    put(
        &index,
        json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "v3"}, "spec": {"ports": [{"port": 82}]}}),
    );
    let Changed { services, policies, .. } = changes.next().await;
    let names: Vec<_> = services.iter().map(|id| &*id.name).collect();
    assert!(policies, "what is wrong with a split may be another thing now");
    assert_eq!(names, ["v2", "v3", "web"]);

    put(
        &index,
        json!({"kind": "Service", "metadata": {"namespace": "shop", "name": "apart"}, "spec": {"ports": [{"port": 80}]}}),
    );
    assert_eq!(changes.next().await, Changed::services([ServiceId::new("shop", "apart")]));
}
