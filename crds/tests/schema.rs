//! What the generated CRD must be, whatever the types become.

use kube::CustomResourceExt;
use serde_json::Value;
use weft_crds::{MeshConfig, MeshConfigSpec};

fn schema() -> Value {
    let crd = serde_json::to_value(MeshConfig::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Calls `visit` with the path and schema of every property below `schema`.
fn properties(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    if let Some(map) = schema["properties"].as_object() {
        for (name, property) in map {
            let path = format!("{path}.{name}");
            visit(&path, property);
            properties(&path, property, visit);
        }
    }
    if schema["items"].is_object() {
        properties(&format!("{path}[]"), &schema["items"], visit);
    }
}

#[test]
fn every_field_is_described() {
    let mut missing = Vec::new();
    properties("", &schema(), &mut |path, property| {
        if property["description"].as_str().unwrap_or_default().is_empty() && path != ".metadata" {
            missing.push(path.to_owned());
        }
    });
    // The two that Kubernetes itself gives every object.
    missing.retain(|path| path != ".spec" && path != ".status");
    assert!(missing.is_empty(), "`kubectl explain` has nothing to say about {missing:?}");
}

#[test]
fn an_empty_spec_is_the_default() {
    let empty: MeshConfigSpec = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, MeshConfigSpec::default());
}

#[test]
fn the_schema_tells_the_same_defaults() {
    // What the API server fills in must be what the operator would assume.
    let spec = &schema()["properties"]["spec"];
    let mut filled = serde_json::Map::new();
    for (name, property) in spec["properties"].as_object().unwrap() {
        assert!(!property["default"].is_null(), "spec.{name} has no default in the schema");
        filled.insert(name.clone(), property["default"].clone());
    }
    let filled: MeshConfigSpec = serde_json::from_value(filled.into()).unwrap();
    assert_eq!(filled, MeshConfigSpec::default());
}

#[test]
fn nothing_in_the_schema_is_free_form() {
    let mut loose = Vec::new();
    properties("", &schema(), &mut |path, property| {
        if property["x-kubernetes-preserve-unknown-fields"] == true {
            loose.push(path.to_owned());
        }
    });
    assert!(loose.is_empty(), "{loose:?}");
}
