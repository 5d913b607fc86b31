//! Objects of the Service Mesh Interface as their authors write them, in any version, and what became of them.

use std::borrow::Borrow;
use std::fmt::Display;

use k8s_openapi::api::core::v1::Event;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
};
use kube::core::TypeMeta;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::debug;
use crate::wait::{self, Seen, seconds};
use crate::{Failure, Result};

/// What the Event of an object says when all of it is in force.
pub const ACCEPTED: &str = "Accepted";
/// When a part of it is.
pub const PARTLY_APPLIED: &str = "PartlyApplied";
/// When nothing of it is.
pub const REJECTED: &str = "Rejected";

const ACCESS: &str = "access.smi-spec.io/v1alpha3";
const SPECS: &str = "specs.smi-spec.io/v1alpha4";
const SPLIT: &str = "split.smi-spec.io/v1alpha4";

/// A `TrafficTarget`: each of `sources` may send to `destination` what one of `rules` describes. An account is `name`, or
/// `namespace/name`.
pub fn target(name: &str, sources: &[&str], destination: &str, rules: &[Value]) -> Value {
    json!({
        "apiVersion": ACCESS,
        "kind": "TrafficTarget",
        "metadata": { "name": name },
        "spec": {
            "destination": account(destination),
            "sources": sources.iter().map(|source| account(source)).collect::<Vec<_>>(),
            "rules": rules,
        },
    })
}

fn account(text: &str) -> Value {
    match text.split_once('/') {
        Some((namespace, name)) => json!({ "kind": "ServiceAccount", "namespace": namespace, "name": name }),
        None => json!({ "kind": "ServiceAccount", "name": text }),
    }
}

/// A rule of a target: all of a route.
pub fn rule(kind: &str, name: &str) -> Value {
    json!({ "kind": kind, "name": name })
}

/// An `HTTPRouteGroup`.
pub fn group(name: &str, matches: &Value) -> Value {
    json!({
        "apiVersion": SPECS,
        "kind": "HTTPRouteGroup",
        "metadata": { "name": name },
        "spec": { "matches": matches },
    })
}

/// A `TCPRoute` or `UDPRoute`.
pub fn ports(kind: &str, name: &str, ports: &[u16]) -> Value {
    json!({
        "apiVersion": SPECS,
        "kind": kind,
        "metadata": { "name": name },
        "spec": { "matches": { "ports": ports } },
    })
}

/// A `TrafficSplit` of everything.
pub fn split(name: &str, service: &str, backends: &[(&str, u32)]) -> Value {
    let backends: Vec<_> =
        backends.iter().map(|(service, weight)| json!({ "service": service, "weight": weight })).collect();
    json!({
        "apiVersion": SPLIT,
        "kind": "TrafficSplit",
        "metadata": { "name": name },
        "spec": { "service": service, "backends": backends },
    })
}

/// The same of the requests only that the `HTTPRouteGroup` `group` matches.
pub fn split_where(name: &str, service: &str, backends: &[(&str, u32)], group: &str) -> Value {
    let mut split = split(name, service, backends);
    let reference = json!([{ "kind": "HTTPRouteGroup", "name": group, "apiGroup": "specs.smi-spec.io" }]);
    split["spec"]["matches"] = reference;
    split
}

fn name_of(object: &Value) -> Result<&str> {
    object["metadata"]["name"].as_str().ok_or_else(|| format!("it has no name: {object}").into())
}

fn api(cluster: &Cluster, namespace: &str, object: &Value) -> Result<Api<DynamicObject>> {
    let types: TypeMeta = serde_json::from_value(object.clone())?;
    let kind = GroupVersionKind::try_from(types)?;
    Ok(Api::namespaced_with(cluster.client.clone(), namespace, &ApiResource::from_gvk(&kind)))
}

/// Applies an object as `kubectl apply` does: what is there of it becomes this.
pub async fn apply(cluster: &Cluster, namespace: &str, object: &Value) -> Result {
    let params = PatchParams::apply("weft-tests").force();
    let applied =
        api(cluster, namespace, object)?.patch(name_of(object)?, &params, &Patch::Apply(object)).await;
    applied.map(|_| ()).map_err(|error| format!("{error}: {object}").into())
}

/// Applies several objects.
pub async fn apply_all(
    cluster: &Cluster,
    namespace: &str,
    objects: impl IntoIterator<Item = impl Borrow<Value>>,
) -> Result {
    for object in objects {
        apply(cluster, namespace, object.borrow()).await?;
    }
    Ok(())
}

/// Deletes an object, of which only type and name count.
pub async fn delete(cluster: &Cluster, namespace: &str, object: &Value) -> Result {
    api(cluster, namespace, object)?.delete(name_of(object)?, &DeleteParams::default()).await?;
    Ok(())
}

/// When an object was made, in whole seconds as the API tells it.
pub async fn made_at(cluster: &Cluster, namespace: &str, object: &Value) -> Result<i64> {
    let object = api(cluster, namespace, object)?.get(name_of(object)?).await?;
    Ok(object.metadata.creation_timestamp.ok_or("no creation time")?.0.as_second())
}

/// Waits until the operator finds `verdict` of an object; what it says of it, in one text.
pub async fn verdict(cluster: &Cluster, namespace: &str, object: &Value, verdict: &str) -> Result<String> {
    let (kind, name) = (object["kind"].as_str().unwrap_or_default(), name_of(object)?);
    wait::until(&format!("{kind} {namespace}/{name} is {verdict}"), seconds(20), async || {
        let all = debug::smi(cluster).await?;
        let view = all.into_iter().find(|one| one.is(kind, namespace, name)).ok_or("it is not known")?;
        let state = format!("{view:?}");
        Ok(Seen::when(view.verdict == verdict, view.notes.join(" "), || state))
    })
    .await
}

/// Waits until an Event on an object has `reason` and contains `text`; its type and message.
pub async fn told(
    cluster: &Cluster,
    namespace: &str,
    object: &Value,
    reason: &str,
    text: &str,
) -> Result<(String, String)> {
    let (kind, name) = (object["kind"].as_str().unwrap_or_default(), name_of(object)?);
    let about =
        ListParams::default().fields(&format!("involvedObject.kind={kind},involvedObject.name={name}"));
    let what = format!("{kind} {namespace}/{name} has an Event {reason} with {text:?}");
    wait::until(&what, seconds(20), async || {
        let events = cluster.api::<Event>(namespace).list(&about).await?.items;
        let state: Vec<_> = events.iter().map(|event| (&event.reason, &event.message)).collect();
        let state = format!("{state:?}");
        let fits = |event: &Event| {
            event.reason.as_deref() == Some(reason)
                && event.message.as_deref().is_some_and(|message| message.contains(text))
        };
        let found = events.into_iter().find(|event| fits(event));
        Ok(match found {
            Some(event) => Seen::Done((event.type_.unwrap_or_default(), event.message.unwrap_or_default())),
            None => Seen::NotYet(state),
        })
    })
    .await
}

/// The documents of a YAML file.
pub fn documents(yaml: &str) -> Result<Vec<Value>> {
    use serde::Deserialize;
    serde_yaml_ng::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).map_err(Failure::from))
        .collect()
}

/// Puts `to` wherever a text in `value` has `from`.
pub fn rename(value: &mut Value, from: &str, to: impl Display + Copy) {
    match value {
        Value::String(text) => *text = text.replace(from, &to.to_string()),
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, from, to)),
        Value::Object(fields) => fields.values_mut().for_each(|field| rename(field, from, to)),
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_and_placeholders_filled() {
        let mut all = documents("a: [NS, x.NS.y]\n---\nb: 1\n").unwrap();
        rename(&mut all[0], "NS", "shop");
        assert_eq!(all, [json!({ "a": ["shop", "x.shop.y"] }), json!({ "b": 1 })]);
    }

    #[test]
    fn accounts_may_be_of_another_namespace() {
        let target = target("t", &["a", "n/b"], "c", &[]);
        assert_eq!(target["spec"]["sources"][0], json!({ "kind": "ServiceAccount", "name": "a" }));
        assert_eq!(target["spec"]["sources"][1]["namespace"], "n");
    }
}
