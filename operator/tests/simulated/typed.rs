//! What is left of an object once the API server has read it into Kubernetes' own types and written it again: fields that are
//! left out when they are zero or empty, and amounts, which it writes in a form of its own. As far as our objects need it.

use serde_json::Value;

use super::paths::Key;

/// Makes `object` what the API server keeps of it.
pub(crate) fn through(key: &Key, object: &mut Value) {
    if !key.0.ends_with(" daemonsets") {
        return;
    }
    let Some(spec) = object.get_mut("spec") else { return };
    leave_out(spec, &["minReadySeconds"]);
    let Some(pod) = spec.pointer_mut("/template/spec") else { return };
    leave_out(pod, &["priorityClassName"]);
    for toleration in items(pod, "tolerations") {
        leave_out(toleration, &["key", "operator", "value", "effect"]);
    }
    for container in items(pod, "containers") {
        for amounts in ["/resources/limits", "/resources/requests"] {
            let amounts = container.pointer_mut(amounts).and_then(Value::as_object_mut);
            for (_, amount) in amounts.into_iter().flatten() {
                *amount = canonical(amount.as_str().unwrap()).into();
            }
        }
    }
}

fn items<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn leave_out(object: &mut Value, fields: &[&str]) {
    let Some(map) = object.as_object_mut() else { return };
    map.retain(|key, value| !(fields.contains(&key.as_str()) && (*value == 0 || *value == "")));
}

/// The form of an amount that has no fraction and the largest suffix. Of suffixes in powers of ten the least is `m`.
fn canonical(amount: &str) -> String {
    let (units, step): (&[_], u32) = if amount.ends_with('i') {
        (&["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"], 1024)
    } else {
        (&["m", "", "k", "M", "G", "T", "P", "E"], 1000)
    };
    let (number, suffix) = amount.split_at(amount.trim_end_matches(|c: char| c.is_alphabetic()).len());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let at = units.iter().position(|unit| *unit == suffix).unwrap();
    let mut amount = format!("{whole}{fraction}").parse::<u128>().unwrap()
        * u128::from(step).pow(u32::try_from(at).unwrap())
        / 10_u128.pow(u32::try_from(fraction.len()).unwrap());
    let mut unit = 0;
    while amount > 0 && amount.is_multiple_of(step.into()) && unit + 1 < units.len() {
        (amount, unit) = (amount / u128::from(step), unit + 1);
    }
    if amount == 0 { "0".to_owned() } else { format!("{amount}{}", units[unit]) }
}
