//! `TrafficSplit`: how the traffic of a Service is divided among others.

use serde::Deserialize;
use serde_json::Value;

use super::{Unreadable, fields};

/// The traffic of a Service goes to others, by weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficSplit {
    /// The Service clients call.
    pub service: String,
    /// Where it goes, in the same namespace.
    pub backends: Vec<SplitBackend>,
    /// `HTTPRouteGroup`s: only what one of them matches is divided. Everything when empty.
    pub matches: Vec<String>,
}

/// One share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitBackend {
    /// A Service.
    pub service: String,
    /// In thousandths; means something only beside the others.
    pub weight: u64,
}

impl TrafficSplit {
    /// Reads a split.
    pub fn read(object: &Value) -> Result<Self, Unreadable> {
        let split: Fields = fields(object)?;
        let backends = split.backends.into_iter().map(|backend| {
            let weight = backend.weight.as_ref().map_or(Ok(0), |weight| {
                let why =
                    || Unreadable::because(format!("backends: {}: {weight} is no weight", backend.service));
                thousandths(weight).ok_or_else(why)
            })?;
            Ok(SplitBackend { service: backend.service, weight })
        });
        let matches = split.matches.into_iter().map(|reference| {
            if reference.kind != "HTTPRouteGroup" {
                let kind = reference.kind;
                let why = format!("matches: kind {kind:?} is not known; it must be HTTPRouteGroup");
                return Err(Unreadable::because(why));
            }
            Ok(reference.name)
        });
        Ok(Self {
            service: split.service,
            backends: backends.collect::<Result<_, _>>()?,
            matches: matches.collect::<Result<_, _>>()?,
        })
    }
}

/// A weight is a whole number; v1alpha1 has a Kubernetes quantity, in which `500m` is a half. The definition of v1alpha4
/// lets fractions pass.
fn thousandths(weight: &Value) -> Option<u64> {
    let text = match weight {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return None,
    };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let unit: u64 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let whole = if whole.is_empty() && !fraction.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    // Three places are as fine as it gets.
    let places = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let fraction = places.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    whole.checked_mul(unit)?.checked_add(fraction * unit / 1000)
}

#[derive(Deserialize)]
struct Fields {
    service: String,
    #[serde(default)]
    backends: Vec<BackendFields>,
    #[serde(default)]
    matches: Vec<Reference>,
}

#[derive(Deserialize)]
struct BackendFields {
    service: String,
    weight: Option<Value>,
}

#[derive(Deserialize)]
struct Reference {
    kind: String,
    name: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_split_is_read() {
        let object = json!({"spec": {
            "service": "web",
            "backends": [{"service": "web-v1", "weight": 90}, {"service": "web-v2", "weight": "10"}, {"service": "web-v3"}],
            "matches": [{"kind": "HTTPRouteGroup", "name": "canary", "apiGroup": "specs.smi-spec.io"}]}});
        let split = TrafficSplit::read(&object).unwrap();
        let weights: Vec<_> = split.backends.iter().map(|b| (b.service.as_str(), b.weight)).collect();
        assert_eq!(weights, [("web-v1", 90_000), ("web-v2", 10_000), ("web-v3", 0)]);
        assert_eq!((split.service.as_str(), split.matches), ("web", vec!["canary".to_owned()]));
    }

    #[test]
    fn weights_of_every_version_are_read() {
        let read = |weight: Value| thousandths(&weight);
        for (weight, expected) in [
            (json!(0), 0),
            (json!(1), 1000),
            (json!(0.5), 500),
            (json!("500m"), 500),
            (json!("1500m"), 1500),
            (json!("1"), 1000),
            (json!("1k"), 1_000_000),
            (json!(".25"), 250),
            (json!("0.0019"), 1),
        ] {
            assert_eq!(read(weight.clone()), Some(expected), "{weight}");
        }
        for wrong in [
            json!(-1),
            json!("much"),
            json!(""),
            json!("."),
            json!([1]),
            json!("1e3"),
            json!("1.2.3"),
            json!(true),
        ] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
        assert_eq!(read(json!(u64::MAX)), None);
    }

    #[test]
    fn a_split_that_is_only_half_understood_is_refused_with_the_reason() {
        for (wrong, why) in [
            (json!({"spec": {"service": "web", "backends": [{"service": "a", "weight": -5}]}}), "a: -5"),
            (json!({"spec": {"service": "web", "matches": [{"kind": "TCPRoute", "name": "x"}]}}), "TCPRoute"),
            (json!({"spec": {"backends": []}}), "service"),
        ] {
            let error = TrafficSplit::read(&wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
