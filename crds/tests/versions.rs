//! A MeshConfig is the same in every version it is served in: whatever is written in one and read in another, and back, is as it
//! was. The API server's part, pruning and defaults, is done here as it does it; nothing else happens to an object, since its
//! conversion is `None`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use weft_crds::{MeshConfig, VERSIONS};

fn crd() -> Value {
    serde_json::to_value(weft_crds::crd()).unwrap()
}

fn version<'a>(crd: &'a Value, name: &str) -> &'a Value {
    crd["spec"]["versions"].as_array().unwrap().iter().find(|version| version["name"] == name).unwrap()
}

fn schema<'a>(crd: &'a Value, name: &str) -> &'a Value {
    &version(crd, name)["schema"]["openAPIV3Schema"]
}

/// What the API server makes of `value` whenever it comes in or is read: what the schema does not know goes, and what is absent
/// and has a default gets it.
fn pruned_and_filled(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(object) => {
            if let Some(each) = schema.get("additionalProperties").filter(|each| each.is_object()) {
                object.values_mut().for_each(|value| pruned_and_filled(value, each));
                return;
            }
            let empty = Map::new();
            let properties = schema["properties"].as_object().unwrap_or(&empty);
            object.retain(|name, _| properties.contains_key(name));
            for (name, property) in properties {
                if !object.contains_key(name) && !property["default"].is_null() {
                    object.insert(name.clone(), property["default"].clone());
                }
                if let Some(value) = object.get_mut(name) {
                    pruned_and_filled(value, property);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| pruned_and_filled(item, &schema["items"])),
        _ => {}
    }
}

/// `object` as it is served in `name`.
fn read(crd: &Value, object: &Value, name: &str) -> Value {
    let mut read = object.clone();
    read["apiVersion"] = json!(format!("weft.mesh/{name}"));
    for part in ["spec", "status"] {
        let property = &schema(crd, name)["properties"][part];
        if read[part].is_null() && !property["default"].is_null() {
            read[part] = property["default"].clone();
        }
        if !read[part].is_null() {
            pruned_and_filled(&mut read[part], property);
        }
    }
    read
}

/// A small generator of numbers, so that one seed makes a whole object.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides.max(1)
    }

    fn one<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[usize::try_from(self.roll(list.len() as u64)).unwrap()]
    }
}

/// Any value that the schema describes, now and then with fields it does not know.
fn any_value(schema: &Value, dice: &mut Dice) -> Value {
    if let Some(values) = schema["enum"].as_array() {
        return dice.one(values).clone();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return if dice.roll(2) == 0 {
            json!(dice.roll(100))
        } else {
            json!(format!("{}Mi", dice.roll(100)))
        };
    }
    match schema["type"].as_str().unwrap() {
        "object" => any_object(schema, dice),
        "array" => (0..dice.roll(3)).map(|_| any_value(&schema["items"], dice)).collect(),
        "integer" => {
            let (least, most) =
                (schema["minimum"].as_f64().unwrap_or(0.0), schema["maximum"].as_f64().unwrap_or(9999.0));
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "bounds of the schema"
            )]
            let (least, most) = (least.max(0.0) as u64, most as u64);
            json!(least + dice.roll((most - least).min(10_000) + 1))
        }
        "boolean" => json!(dice.roll(2) == 0),
        "string" if schema["format"] == "date-time" => json!("2026-01-01T00:00:00Z"),
        "string" => json!(format!("text-{}", dice.roll(100))),
        other => panic!("{other} is new to the schema: say here what values it has"),
    }
}

fn any_object(schema: &Value, dice: &mut Dice) -> Value {
    if let Some(each) = schema.get("additionalProperties").filter(|each| each.is_object()) {
        return (0..dice.roll(3))
            .map(|n| (format!("key{n}"), any_value(each, dice)))
            .collect::<Map<_, _>>()
            .into();
    }
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
    let mut object = Map::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if required.contains(&&json!(name)) || dice.roll(2) == 0 {
            object.insert(name.clone(), any_value(property, dice));
        }
    }
    if dice.roll(4) == 0 {
        object.insert("aFieldNobodyKnows".to_owned(), json!({"a": [1, 2]}));
    }
    object.into()
}

fn any_mesh(crd: &Value, name: &str, seed: u64) -> Value {
    let mut dice = Dice(seed);
    let mut object = json!({"apiVersion": format!("weft.mesh/{name}"), "kind": "MeshConfig", "metadata": {"name": "weft"}});
    for part in ["spec", "status"] {
        if dice.roll(8) > 0 {
            object[part] = any_value(&schema(crd, name)["properties"][part], &mut dice);
        }
    }
    object
}

#[test]
fn one_version_is_stored_and_all_are_served_without_conversion() {
    let crd = crd();
    let all: Vec<_> = crd["spec"]["versions"].as_array().unwrap().iter().collect();
    let names: Vec<_> = all.iter().map(|version| version["name"].as_str().unwrap()).collect();
    assert_eq!(names, VERSIONS);
    let stored: Vec<_> = all.iter().filter(|version| version["storage"] == true).collect();
    assert_eq!((stored.len(), &stored[0]["name"]), (1, &json!(VERSIONS[0])));
    assert!(all.iter().all(|version| version["served"] == true));
    assert!(crd["spec"]["conversion"].is_null() || crd["spec"]["conversion"]["strategy"] == "None");
    for version in &all {
        assert_eq!(version["additionalPrinterColumns"], all[0]["additionalPrinterColumns"]);
        assert_eq!(version["subresources"], json!({"status": {}}));
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_between_versions(seed in any::<u64>(), from in 0..VERSIONS.len(), to in 0..VERSIONS.len()) {
        let crd = crd();
        let (from, to) = (VERSIONS[from], VERSIONS[to]);
        let written = any_mesh(&crd, from, seed);
        let admitted = read(&crd, &written, from);
        let stored = read(&crd, &admitted, VERSIONS[0]);
        let there = read(&crd, &stored, to);
        prop_assert_eq!(&there["spec"], &admitted["spec"], "written in {}, read in {}", from, to);
        // Taken from there and written again, as `kubectl get -o yaml | kubectl apply` does.
        let back = read(&crd, &read(&crd, &there, VERSIONS[0]), from);
        prop_assert_eq!(&back, &admitted);
        // What nobody knows is gone in both alike, so that it cannot be in one and not in the other.
        prop_assert!(!back["spec"].to_string().contains("aFieldNobodyKnows"));
    }

    #[test]
    fn the_operator_reads_the_same_whichever_version_it_was_written_in(seed in any::<u64>()) {
        let crd = crd();
        let written = any_mesh(&crd, VERSIONS[0], seed);
        let typed = |name: &str| {
            let object = read(&crd, &read(&crd, &written, name), VERSIONS[0]);
            serde_json::from_value::<MeshConfig>(object.clone()).map_err(|error| format!("{error}: {object:#}"))
        };
        let read: Result<Vec<_>, _> = VERSIONS.map(typed).into_iter().collect();
        let read = read.map_err(TestCaseError::fail)?;
        prop_assert!(read.iter().all(|mesh| mesh.spec == read[0].spec && mesh.status == read[0].status));
        // And what it would write of the spec is what it read.
        let mut again = serde_json::to_value(&read[0].spec).unwrap();
        pruned_and_filled(&mut again, &schema(&crd, VERSIONS[0])["properties"]["spec"]);
        prop_assert_eq!(serde_json::from_value::<weft_crds::MeshConfigSpec>(again).unwrap(), read[0].spec.clone());
    }
}
