//! Whether an object is as it is wanted, by what the API server has of it and by whose its fields are. Pure.

use serde_json::Value;

use super::{FIELD_MANAGER, quantity};

/// What holds amounts, by their names.
const OF_AMOUNTS: [&str; 2] = ["limits", "requests"];

/// Whether `live` has everything that `wanted` says. Lists are compared item by item: of the same length, each item of `live`
/// having what that of `wanted` says, since the API server adds defaults inside of them.
pub(super) fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| match live.get(key) {
                Some(live) if OF_AMOUNTS.contains(&key.as_str()) => contains_amounts(live, wanted),
                Some(live) => contains(live, wanted),
                // Absent and empty are the same to the API server.
                None => is_empty(wanted),
            })
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| contains(live, wanted))
        }
        _ => live == wanted,
    }
}

/// The same of amounts, which the API server writes in its own way.
fn contains_amounts(live: &Value, wanted: &Value) -> bool {
    let (Some(live), Some(wanted)) = (live.as_object(), wanted.as_object()) else { return live == wanted };
    wanted.iter().all(|(name, wanted)| {
        let both = live.get(name).and_then(Value::as_str).zip(wanted.as_str());
        both.is_some_and(|(live, wanted)| quantity::same(live, wanted))
    })
}

/// Whether we own a field of `live` that `wanted` does not set any more, so that applying it takes the field out.
pub(super) fn takes_out(live: &Value, wanted: &Value) -> bool {
    let managers = live["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut ours = managers
        .filter(|m| m["manager"] == FIELD_MANAGER && m["operation"] == "Apply" && m["subresource"].is_null());
    ours.any(|manager| misses(&manager["fieldsV1"], wanted))
}

/// Whether `wanted` lacks one of the `owned` fields (`fieldsV1`: `f:` before a field, `k:` before the keys of a list's item).
fn misses(owned: &Value, wanted: &Value) -> bool {
    owned.as_object().into_iter().flatten().any(|(field, below)| match field.split_once(':') {
        Some(("f", name)) => match wanted.get(name) {
            None | Some(Value::Null) => true,
            Some(wanted) => misses(below, wanted),
        },
        Some(("k", keys)) => {
            let keys: Value = serde_json::from_str(keys).unwrap_or_default();
            let mut items = wanted.as_array().into_iter().flatten();
            // An item too many shows in the length of the list.
            items.find(|item| contains(item, &keys)).is_some_and(|item| misses(below, item))
        }
        _ => false,
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_of_the_api_server_are_no_change() {
        let live = json!({"a": 1, "list": [{"port": 80, "protocol": "TCP"}], "more": true});
        assert!(contains(&live, &json!({"a": 1, "list": [{"port": 80}], "empty": {}, "none": null})));
        assert!(!contains(&live, &json!({"a": 2})));
        assert!(!contains(&live, &json!({"list": []})), "an item too many is a change");
        assert!(!contains(&live, &json!({"new": 1})));
    }

    #[test]
    fn amounts_are_compared_as_amounts_and_nothing_else_is() {
        let limits = |cpu: &str| json!({"resources": {"limits": {"cpu": cpu}}});
        assert!(contains(&limits("1"), &limits("1000m")) && !contains(&limits("1"), &limits("1001m")));
        assert!(!contains(&json!({"resources": {"limits": {}}}), &limits("1")));
        assert!(!contains(&json!({"labels": {"cpu": "1"}}), &json!({"labels": {"cpu": "1000m"}})));
        assert!(!contains(&json!({"data": {"limits": "1"}}), &json!({"data": {"limits": "1000m"}})));
    }

    #[test]
    fn a_field_of_ours_that_is_no_longer_asked_for_is_a_change() {
        let owned = json!({"f:spec": {
            "f:nodeSelector": {"f:mesh": {}},
            "f:containers": {"k:{\"name\":\"proxy\"}": {".": {}, "f:name": {}, "f:resources": {"f:limits": {"f:memory": {}}}}},
        }});
        let wanted = |selector: Value, limits: Value| json!({"spec": {"nodeSelector": selector, "containers": [{"name": "proxy", "resources": {"limits": limits}}]}});
        let live = |manager: &str, operation: &str| {
            let manager = json!({"manager": manager, "operation": operation, "fieldsV1": owned});
            json!({"metadata": {"managedFields": [manager]}})
        };
        let (ours, selector, limits) =
            (live(FIELD_MANAGER, "Apply"), json!({"mesh": "yes"}), json!({"memory": "1Gi"}));
        assert!(!takes_out(&ours, &wanted(selector.clone(), limits.clone())));
        for (selector, limits) in [
            (json!({}), limits.clone()),
            (json!(null), limits.clone()),
            (selector.clone(), json!({"cpu": "1"})),
            (selector.clone(), json!(null)),
        ] {
            assert!(takes_out(&ours, &wanted(selector, limits)));
        }
        assert!(!takes_out(&live("somebody", "Apply"), &json!({})));
        assert!(!takes_out(&live(FIELD_MANAGER, "Update"), &json!({})), "merged, not applied");
    }
}
