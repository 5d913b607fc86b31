//! Definitions of the kinds, for clusters that have none.
//!
//! All versions of a kind are served and have one schema, which takes every layout: nothing is converted, an object stays
//! as it was written, and none of its fields is pruned when it is read in another version.

use serde_json::{Value, json};

use super::{HTTP_ROUTE_GROUP, KINDS, Kind, TCP_ROUTE, TRAFFIC_SPLIT, TRAFFIC_TARGET, UDP_ROUTE};

/// The definitions as YAML documents.
pub fn crds_yaml() -> Result<String, serde_yaml_ng::Error> {
    let documents = KINDS.iter().map(|kind| serde_yaml_ng::to_string(&crd(*kind)));
    Ok(documents.collect::<Result<Vec<_>, _>>()?.join("---\n"))
}

fn crd(kind: Kind) -> Value {
    let schema = schema(kind);
    let columns = if kind == TRAFFIC_SPLIT {
        json!([{"name": "Service", "type": "string", "jsonPath": ".spec.service",
            "description": "The Service that is split"}])
    } else {
        json!([])
    };
    let versions: Vec<_> = kind
        .versions
        .iter()
        .enumerate()
        .map(|(i, version)| {
            json!({"name": version, "served": true, "storage": i == 0,
                "schema": {"openAPIV3Schema": schema}, "additionalPrinterColumns": columns})
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name()},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {"kind": kind.kind, "listKind": format!("{}List", kind.kind), "plural": kind.plural,
                "singular": kind.kind.to_lowercase(), "shortNames": [kind.short], "categories": ["smi"]},
            "versions": versions,
        },
    })
}

/// The fields stand under `spec`, in the first versions at the top.
fn schema(kind: Kind) -> Value {
    let (about, fields) = match kind {
        TRAFFIC_TARGET => ("Allows traffic from some ServiceAccounts to another.", traffic_target()),
        HTTP_ROUTE_GROUP => ("Describes HTTP requests.", http_route_group()),
        TCP_ROUTE => ("Describes TCP traffic.", port_route()),
        UDP_ROUTE => ("Describes UDP traffic.", port_route()),
        TRAFFIC_SPLIT => ("Divides the traffic of a Service among others.", traffic_split()),
        _ => ("", json!({})),
    };
    let mut properties = fields.clone();
    properties["spec"] = json!({"type": "object", "properties": fields});
    json!({"type": "object", "description": about, "properties": properties})
}

fn traffic_target() -> Value {
    let subject = json!({
        "kind": {"type": "string", "description": "ServiceAccount."},
        "name": {"type": "string"},
        "namespace": {"type": "string", "description": "The target's own when missing."},
        "port": {"x-kubernetes-int-or-string": true,
            "description": "Of the destination, until v1alpha2: traffic to this port only."},
    });
    let subject = json!({"type": "object", "required": ["kind", "name"], "properties": subject});
    let rule = json!({"type": "object", "required": ["kind", "name"], "properties": {
        "kind": {"type": "string", "description": "HTTPRouteGroup, TCPRoute or UDPRoute."},
        "name": {"type": "string"},
        "matches": {"type": "array", "items": {"type": "string"},
            "description": "Names of matches of an HTTPRouteGroup; all of them when missing."},
    }});
    json!({
        "destination": subject,
        "sources": {"type": "array", "items": subject},
        "rules": {"type": "array", "items": rule},
        "specs": {"type": "array", "items": rule, "description": "The rules, in v1alpha1."},
    })
}

fn http_route_group() -> Value {
    let methods = ["*", "GET", "HEAD", "PUT", "POST", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    json!({"matches": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "description": "By which the match is referred to."},
        "methods": {"type": "array", "items": {"type": "string", "enum": methods},
            "description": "Any when missing or *."},
        "pathRegex": {"type": "string",
            "description": "Regular expression for the beginning of the path. Any when missing."},
        "headers": {"type": "array",
            "description": "Regular expressions for the values of headers, by their names.",
            "items": {"type": "object", "additionalProperties": {"type": "string"}}},
    }}}})
}

fn port_route() -> Value {
    json!({"matches": {"type": "object", "properties": {
        "name": {"type": "string"},
        "ports": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535},
            "description": "Any when missing or empty."},
    }}})
}

fn traffic_split() -> Value {
    json!({
        "service": {"type": "string", "description": "The Service clients call."},
        "backends": {"type": "array", "items": {"type": "object", "required": ["service"], "properties": {
            "service": {"type": "string", "description": "A Service of the same namespace."},
            // In v1alpha1 a quantity, later a number.
            "weight": {"x-kubernetes-preserve-unknown-fields": true,
                "description": "Its share, in relation to the others. 0 when missing."},
        }}},
        "matches": {"type": "array", "items": {"type": "object", "required": ["kind", "name"], "properties": {
            "kind": {"type": "string", "description": "HTTPRouteGroup."},
            "name": {"type": "string"},
            "apiGroup": {"type": "string"},
        }}},
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

    use super::*;

    #[test]
    fn the_definitions_are_definitions() {
        for kind in KINDS {
            let crd: CustomResourceDefinition = serde_json::from_value(crd(kind)).unwrap();
            let storage = crd.spec.versions.iter().filter(|version| version.storage).count();
            assert_eq!((storage, crd.spec.versions.len()), (1, kind.versions.len()), "{}", kind.kind);
            assert!(crd.spec.versions.iter().all(|version| version.served), "{}", kind.kind);
        }
    }
}
