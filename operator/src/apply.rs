//! Every write to the API server goes through here: only while the fence is open, and only when it would change something.

use std::fmt::Debug;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::lease::Fence;

/// The name our fields are owned under.
pub const FIELD_MANAGER: &str = "weft-operator";

/// Why a write did not happen. The text names the object.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another replica leads, or may.
    #[error("not writing {0}: this replica does not lead")]
    NotLeader(String),
    /// The API server refused.
    #[error("{object}: {source}")]
    Api {
        /// Kind, namespace and name.
        object: String,
        /// What it said.
        source: kube::Error,
    },
    /// The object cannot be put into JSON.
    #[error("{object}: {source}")]
    Encoding {
        /// Kind, namespace and name.
        object: String,
        /// What the encoder said.
        source: serde_json::Error,
    },
}

/// Writes, while this replica leads.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    fence: Fence,
}

impl Writer {
    /// Writes through `client` while `fence` is open.
    pub fn new(client: Client, fence: Fence) -> Self {
        Self { client, fence }
    }

    fn may(&self, object: &str) -> Result<(), WriteError> {
        if self.fence.is_open() { Ok(()) } else { Err(WriteError::NotLeader(object.to_owned())) }
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes the object be as `desired` says, in the fields that `desired` sets. Returns it as it is then; nothing is written
    /// when it is so already.
    pub async fn apply<K>(&self, desired: &K) -> Result<K, WriteError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let live = self.read::<K>(&desired.namespace().unwrap_or_default(), &desired.name_any()).await?;
        self.apply_over(live, desired).await
    }

    /// The object as it is.
    pub async fn read<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, WriteError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let object = || format!("{} {namespace}/{name}", K::kind(&()));
        let read = self.api::<K>(namespace).get_opt(name).await;
        read.map_err(|source| WriteError::Api { object: object(), source })
    }

    /// [`Writer::apply`] for callers that have looked already: the object is as `live` says.
    pub async fn apply_over<K>(&self, live: Option<K>, desired: &K) -> Result<K, WriteError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let encoding = |source| WriteError::Encoding { object: describe(desired), source };
        if let Some(object) = live {
            let wanted = serde_json::to_value(desired).map_err(encoding)?;
            let live = serde_json::to_value(&object).map_err(encoding)?;
            if contains(&live, &wanted) && !takes_out(&live, &wanted) {
                return Ok(object);
            }
        }
        self.apply_unseen(desired).await
    }

    /// [`Writer::apply`] without looking first, for callers that know that something is to be changed.
    pub async fn apply_unseen<K>(&self, desired: &K) -> Result<K, WriteError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let object = describe(desired);
        self.may(&object)?;
        let api = self.api::<K>(&desired.namespace().unwrap_or_default());
        // By force: these objects are ours, whoever edited them.
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = api.patch(&desired.name_any(), &params, &Patch::Apply(desired)).await;
        written.map_err(|source| WriteError::Api { object, source })
    }

    /// Merges `patch` into the object. A `metadata.resourceVersion` in it is a precondition.
    pub async fn merge<K>(&self, namespace: &str, name: &str, patch: &Value) -> Result<K, WriteError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let object = format!("{} {namespace}/{name}", K::kind(&()));
        self.may(&object)?;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let written = self.api::<K>(namespace).patch(name, &params, &Patch::Merge(patch)).await;
        written.map_err(|source| WriteError::Api { object, source })
    }

    /// [`Writer::merge`] for what lies in no namespace.
    pub async fn merge_cluster_wide<K>(&self, name: &str, patch: &Value) -> Result<K, WriteError>
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let object = format!("{} {name}", K::kind(&()));
        self.may(&object)?;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let written = Api::<K>::all(self.client.clone()).patch(name, &params, &Patch::Merge(patch)).await;
        written.map_err(|source| WriteError::Api { object, source })
    }

    /// Replaces the status of the object.
    pub async fn status<K>(&self, namespace: &str, name: &str, status: &Value) -> Result<K, WriteError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let object = format!("{} {namespace}/{name}", K::kind(&()));
        self.may(&object)?;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patch = serde_json::json!({ "status": status });
        let written = self.api::<K>(namespace).patch_status(name, &params, &Patch::Merge(&patch)).await;
        written.map_err(|source| WriteError::Api { object, source })
    }

    /// Deletes the object, if it is there.
    pub async fn delete<K>(&self, namespace: &str, name: &str) -> Result<(), WriteError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let object = format!("{} {namespace}/{name}", K::kind(&()));
        self.may(&object)?;
        match self.api::<K>(namespace).delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(WriteError::Api { object, source }),
        }
    }
}

fn describe<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{} {}/{}", K::kind(&()), object.namespace().unwrap_or_default(), object.name_any())
}

/// Whether `live` has everything that `wanted` says. Lists are compared item by item: of the same length, each item of `live`
/// having what that of `wanted` says, since the API server adds defaults inside of them.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| match live.get(key) {
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

/// Whether we own a field of `live` that `wanted` does not set any more, so that applying it takes the field out.
fn takes_out(live: &Value, wanted: &Value) -> bool {
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
