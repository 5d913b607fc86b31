//! Whoever has a MeshConfig of the version before has it with this one, too: fields are only added, and what was allowed still is.
//! `previous/` has the definition as it was; it is put anew with each release (and with the schema of `config/tests/skew`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;

/// What is otherwise than in the version before, each with its reason. A line that is true no more is to be taken out.
const CHANGED: [(&str, &str); 7] = [
    (".spec default", "follows from that of provider"),
    (".spec.dns default", "follows from that of provider"),
    (".spec.dns.provider default", "CoreDNS was all there was; Auto finds it"),
    (".spec.domains x-kubernetes-list-type", "a set has a default that server-side apply adds to"),
    (".spec.dns.provider maxLength", "no value that is allowed is as long"),
    (".spec.proxy.resources.limits{} pattern", "what is no quantity was refused by the DaemonSet before"),
    (".spec.proxy.resources.requests{} pattern", "what is no quantity was refused by the DaemonSet before"),
];

/// What in a schema decides what is allowed, and what an object says. Validations are rules of their own, whose texts change.
const DECIDES: [&str; 12] = [
    "type",
    "format",
    "default",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "x-kubernetes-list-type",
];

/// What the later schema does not allow, or understands otherwise, of what the earlier one has.
fn differences(earlier: &Value, later: &Value, at: &str, found: &mut Vec<String>) {
    for key in DECIDES {
        let same = match key {
            "enum" => earlier[key].as_array().is_none_or(|had| {
                later[key].as_array().is_none_or(|has| had.iter().all(|value| has.contains(value)))
            }),
            "maximum" | "maxLength" | "maxItems" => {
                let bound = |schema: &Value| schema[key].as_f64().unwrap_or(f64::INFINITY);
                bound(later) >= bound(earlier)
            }
            "minimum" | "minLength" | "minItems" => {
                let bound = |schema: &Value| schema[key].as_f64().unwrap_or(f64::NEG_INFINITY);
                bound(later) <= bound(earlier)
            }
            _ => earlier[key] == later[key],
        };
        if !same {
            found.push(format!("{at} {key}"));
        }
    }
    let required = |schema: &Value| schema["required"].as_array().cloned().unwrap_or_default();
    let more = required(later).into_iter().filter(|name| !required(earlier).contains(name));
    found.extend(more.map(|name| format!("{at} requires {name}")));
    for (name, property) in earlier["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match later["properties"].get(name) {
            Some(later) => differences(property, later, &at, found),
            None => found.push(format!("{at} is gone")),
        }
    }
    for (key, sign) in [("items", "[]"), ("additionalProperties", "{}")] {
        if earlier[key].is_object() {
            differences(&earlier[key], &later[key], &format!("{at}{sign}"), found);
        }
    }
}

#[test]
fn fields_are_only_added_and_what_was_allowed_still_is() {
    let before: Value = serde_yaml_ng::from_str(include_str!("previous/meshconfigs.weft.mesh.yaml")).unwrap();
    let now = serde_json::to_value(weft_crds::crd()).unwrap();
    let versions = |crd: &Value| crd["spec"]["versions"].as_array().unwrap().clone();
    for field in ["group", "names", "scope"] {
        assert_eq!(before["spec"][field], now["spec"][field]);
    }
    let stored = |crd: &Value| {
        versions(crd).into_iter().find(|version| version["storage"] == true).unwrap()["name"].clone()
    };
    assert_eq!(stored(&before), stored(&now), "what is stored must be readable");
    for before in versions(&before).iter().filter(|version| version["served"] == true) {
        let now =
            versions(&now).into_iter().find(|now| now["name"] == before["name"] && now["served"] == true);
        let now = now.unwrap_or_else(|| panic!("{} is served no more", before["name"]));
        let mut found = Vec::new();
        let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
        differences(&schema(before), &schema(&now), "", &mut found);
        found.sort();
        let mut known = CHANGED.map(|(what, _)| what.to_owned());
        known.sort();
        assert_eq!(found, known, "of {}", before["name"]);
    }
}

#[test]
fn what_is_taken_away_is_found() {
    let schema = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let had = schema(
        r#"{"properties": {"a": {"type": "string", "enum": ["x", "y"]}, "b": {"type": "integer", "maximum": 9}}}"#,
    );
    for (has, what) in [
        (
            r#"{"properties": {"a": {"type": "string", "enum": ["x"]}, "b": {"type": "integer", "maximum": 9}}}"#,
            ".a enum",
        ),
        (r#"{"properties": {"a": {"type": "string", "enum": ["x", "y"]}}}"#, ".b is gone"),
        (
            r#"{"properties": {"a": {"type": "string", "enum": ["x", "y"]}, "b": {"type": "integer", "maximum": 8}}}"#,
            ".b maximum",
        ),
        (
            r#"{"required": ["a"], "properties": {"a": {"type": "string", "enum": ["x", "y"]}, "b": {"type": "integer", "maximum": 9}}}"#,
            " requires \"a\"",
        ),
    ] {
        let mut found = Vec::new();
        differences(&had, &schema(has), "", &mut found);
        assert_eq!(found, [what]);
    }
    let more = schema(
        r#"{"properties": {"a": {"type": "string", "enum": ["x", "y", "z"]}, "b": {"type": "integer", "maximum": 10}, "c": {}}}"#,
    );
    let mut found = Vec::new();
    differences(&had, &more, "", &mut found);
    assert_eq!(found, [""; 0]);
}
