//! What `schemars` writes and a CRD does not want, put right. Applied to each top-level type of the crate.

use schemars::Schema;
use serde_json::{Map, Value};

/// Prepares a derived schema for a CRD:
/// - number formats the API server does not know (`uint16`, …) are removed, as it warns about them; the bounds
///   stay;
/// - the default of an object loses what the defaults of its own properties say anyway, mostly all of it, so that
///   `default: {}` remains and each default stands in one place;
/// - line breaks of the source are taken out of descriptions: whoever shows them breaks lines anew;
/// - values of maps lose their descriptions, which nothing shows (that of a quantity is a screen long).
pub(crate) fn for_crd(schema: &mut Schema) {
    if let Some(object) = schema.as_object_mut() {
        walk(object);
    }
}

fn walk(schema: &mut Map<String, Value>) {
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        schema.remove("format");
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = unbroken(description);
    }
    // The API server tries an object's rules on its default as it stands, without the defaults of the properties.
    let has_rules = schema.contains_key("x-kubernetes-validations");
    if let Some(mut default) = schema.remove("default") {
        if !has_rules {
            strip_inherited(&mut default, schema);
        }
        schema.insert("default".to_owned(), default);
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().filter_map(Value::as_object_mut).for_each(walk);
    }
    if let Some(item) = schema.get_mut("items").and_then(Value::as_object_mut) {
        walk(item);
    }
    if let Some(value) = schema.get_mut("additionalProperties").and_then(Value::as_object_mut) {
        value.remove("description");
        walk(value);
    }
}

fn unbroken(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}

fn strip_inherited(default: &mut Value, schema: &Map<String, Value>) {
    let (Some(default), Some(properties)) = (default.as_object_mut(), schema.get("properties")) else {
        return;
    };
    default.retain(|name, value| {
        let Some(property) = properties.get(name).and_then(Value::as_object) else { return true };
        let inherited = property.get("default");
        inherited != Some(value)
    });
}
