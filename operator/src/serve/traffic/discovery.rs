//! What the API tells of itself.

use serde_json::{Value, json};

use crate::traffic::{GROUP, GROUP_VERSION, KINDS, VERSION};

/// `/apis/metrics.smi-spec.io/v1alpha1`.
pub(super) fn resources() -> Value {
    let of = KINDS.iter().flat_map(|kind| {
        let resource = |name: String, verbs: &[&str]| {
            json!({"name": name, "singularName": "", "namespaced": kind.namespaced, "kind": "TrafficMetrics", "verbs": verbs})
        };
        [resource(kind.plural.to_owned(), &["get", "list"]), resource(format!("{}/edges", kind.plural), &["get"])]
    });
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION, "resources": of.collect::<Vec<_>>()})
}

/// `/apis/metrics.smi-spec.io`.
pub(super) fn group() -> Value {
    let mut group = named();
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    group
}

/// `/apis`.
pub(super) fn groups() -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [named()]})
}

fn named() -> Value {
    let version = json!({"groupVersion": GROUP_VERSION, "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

fn info() -> Value {
    json!({"title": "Weft traffic metrics", "version": VERSION})
}

/// `/openapi/v2`: no schemas. Without any document the API server asks again and again.
pub(super) fn openapi_v2() -> Value {
    json!({"swagger": "2.0", "info": info(), "paths": {}})
}

/// `/openapi/v3`.
pub(super) fn openapi_v3() -> Value {
    let url = format!("/openapi/v3/apis/{GROUP_VERSION}?hash={}", env!("CARGO_PKG_VERSION"));
    json!({"paths": {format!("apis/{GROUP_VERSION}"): {"serverRelativeURL": url}}})
}

/// `/openapi/v3/apis/metrics.smi-spec.io/v1alpha1`.
pub(super) fn openapi_v3_of_version() -> Value {
    json!({"openapi": "3.0.0", "info": info(), "paths": {}})
}
