//! What the generated CRD must be, whatever the types become.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use weft_crds::MeshConfigSpec;

fn schema() -> Value {
    let crd = serde_json::to_value(weft_crds::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Calls `visit` with the path and schema of every value that can stand below `schema`.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    for nested in ["items", "additionalProperties"] {
        if schema[nested].is_object() {
            walk(&format!("{path}[]"), &schema[nested], visit);
        }
    }
}

/// Paths whose schema `fault` finds wanting.
fn faults(fault: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    walk("", &schema(), &mut |path, schema| {
        if fault(schema) {
            found.push(path.to_owned());
        }
    });
    found
}

/// What the API server makes of `value`: absent properties that have a default get it, at every level.
fn with_defaults(value: &mut Value, schema: &Value) {
    let Some(object) = value.as_object_mut() else { return };
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if !object.contains_key(name) && !property["default"].is_null() {
            object.insert(name.clone(), property["default"].clone());
        }
        if let Some(value) = object.get_mut(name) {
            with_defaults(value, property);
        }
    }
}

#[test]
fn the_chart_carries_the_crd_of_these_types() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/weft/crds/meshconfigs.weft.mesh.yaml");
    let in_chart = std::fs::read_to_string(path).unwrap();
    assert!(in_chart == weft_crds::crd_yaml().unwrap(), "{path} is out of date: run 'make generate'");
}

#[test]
fn the_chart_carries_the_definitions_of_the_service_mesh_interface() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/weft/files/smi-crds.yaml");
    let in_chart = std::fs::read_to_string(path).unwrap();
    assert!(in_chart == weft_crds::smi::crds_yaml().unwrap(), "{path} is out of date: run 'make generate'");
}

#[test]
fn a_denied_status_is_one_of_two() {
    let status = &schema()["properties"]["spec"]["properties"]["deniedStatus"];
    assert_eq!((&status["enum"], &status["default"]), (&json!([403, 404]), &json!(403)), "{status}");
}

#[test]
fn every_field_is_described() {
    let mut missing = Vec::new();
    walk("", &schema(), &mut |path, schema| {
        // The elements of a list or map are described with it.
        if !path.ends_with("[]") && schema["description"].as_str().unwrap_or_default().is_empty() {
            missing.push(path.to_owned());
        }
    });
    assert!(missing.is_empty(), "`kubectl explain` has nothing to say about {missing:?}");
}

#[test]
fn an_empty_spec_is_the_default() {
    let empty: MeshConfigSpec = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, MeshConfigSpec::default());
}

/// Applying `spec: {}` twice on the server side drops the empty map: the second must not be refused.
#[test]
fn the_spec_as_a_whole_has_a_default() {
    let schema = schema();
    assert!(schema["required"].is_null(), "{}", schema["required"]);
    let default = schema["properties"]["spec"]["default"].clone();
    assert_eq!(serde_json::from_value::<MeshConfigSpec>(default).unwrap(), MeshConfigSpec::default());
}

#[test]
fn the_api_server_fills_in_the_same_defaults() {
    let mut filled = json!({});
    with_defaults(&mut filled, &schema()["properties"]["spec"]);
    assert_eq!(filled, serde_json::to_value(MeshConfigSpec::default()).unwrap());
}

#[test]
fn every_field_of_the_spec_has_a_default_or_may_be_absent() {
    let spec = schema()["properties"]["spec"].clone();
    let mut required = Vec::new();
    walk("spec", &spec, &mut |path, schema| {
        // A part that is asked for as a whole, or not at all.
        let asked_for = ["spec.defaults.retry", "spec.defaults.circuitBreaker", "spec.defaults.rateLimit"];
        if !path.ends_with("[]") && schema["required"].is_array() && !asked_for.contains(&path) {
            required.push(path.to_owned());
        }
    });
    assert!(required.is_empty(), "{required:?} have required fields");
}

#[test]
fn the_schema_is_structural() {
    let free_form = faults(|schema| schema["x-kubernetes-preserve-unknown-fields"] == true);
    assert!(free_form.is_empty(), "anything may stand in {free_form:?}");

    let untyped = faults(|schema| schema["type"].is_null() && schema["x-kubernetes-int-or-string"] != true);
    assert!(untyped.is_empty(), "{untyped:?} have no type");

    let references = faults(|schema| !schema["$ref"].is_null());
    assert!(references.is_empty(), "{references:?} refer to another schema");

    let known = ["int32", "int64", "float", "double", "date-time"];
    let unknown_format =
        faults(|schema| schema["format"].as_str().is_some_and(|format| !known.contains(&format)));
    assert!(unknown_format.is_empty(), "the API server does not know the formats of {unknown_format:?}");
}

#[test]
fn every_rule_says_what_to_write_instead() {
    let mut rules = 0;
    walk("", &schema(), &mut |path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            rules += 1;
            let message = rule["message"].as_str().unwrap_or_default();
            assert!(message.contains(": "), "{path}: {rule} has no message with a next step after its colon");
        }
    });
    assert!(rules >= 8, "only {rules} rules are left in the schema");
}

#[test]
fn no_value_is_a_boolean_to_yaml() {
    // YAML 1.1, which Kubernetes reads, takes these words for booleans: nobody could write such a value without quotes.
    const BOOLEANS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    let mut values = 0;
    walk("", &schema(), &mut |path, schema| {
        for value in schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            values += 1;
            assert!(!BOOLEANS.contains(&value.to_lowercase().as_str()), "{path}: {value}");
        }
    });
    assert!(values >= 15, "only {values} values were seen");
}

#[test]
fn conditions_merge_by_type() {
    let conditions = &schema()["properties"]["status"]["properties"]["conditions"];
    assert_eq!(conditions["x-kubernetes-list-type"], "map");
    assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
}

#[test]
fn what_the_api_server_admits_can_be_read() {
    // One object that cannot be read would stop the watch for all of them.
    let spec = json!({"proxy": {
        "image": null,
        "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
        "tolerations": [{"operator": "Exists", "tolerationSeconds": 5}],
    }});
    let spec: MeshConfigSpec = serde_json::from_value(spec).unwrap();
    let limits = spec.proxy.resources.unwrap().limits.unwrap();
    assert_eq!(limits["cpu"].0, "1");
}
