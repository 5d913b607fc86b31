//! Every write to the API server goes through here: only while the fence is open, and only when it would change something.
//! What somebody else made is never written over: [`made_by_us`] tells.

mod compare;
mod delete;
mod error;
mod object;
mod quantity;
mod seen;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, Recorder};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::Value;
use tokio::time::Instant;

use crate::client::UNACKNOWLEDGED;
use crate::lease::{Fence, LANDS_WITHIN, WRITE};
use compare::{contains, takes_out};
pub use error::{WriteError, plain};
use object::{ClusterWide, Namespaced, Object};
pub use seen::Seen;
use seen::{Key, Sight};

/// The name our fields are owned under.
pub const FIELD_MANAGER: &str = "weft-operator";
/// How long a question may take.
const READ: Duration = Duration::from_secs(5);

/// Writes, while this replica leads.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    fence: Fence,
    seen: Seen,
}

impl Writer {
    /// Writes through `client` while `fence` is open.
    pub fn new(client: Client, fence: Fence) -> Self {
        Self { client, fence, seen: Seen::default() }
    }

    /// What is known by watches of the objects that are written.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The client that writes: for an Event recorder, see [`Writer::tell`].
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    fn api<K: Namespaced>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Returns when nothing can land any more that was sent before.
    pub async fn settled(&self) {
        // Whatever takes longer has been given up, and dropped.
        self.fence.drained(LANDS_WITHIN).await;
    }

    /// Makes a request that writes, if this replica may. It is carried to its end whatever becomes of who waits for it: who
    /// leads next must not begin while it is under way.
    async fn write<T: Send + 'static>(
        &self,
        object: String,
        request: impl Future<Output = kube::Result<T>> + Send + 'static,
    ) -> Result<T, WriteError> {
        let Some(permit) = self.fence.enter() else { return Err(WriteError::NotLeader(object)) };
        let written = tokio::spawn(async move {
            let written = within(WRITE, request).await;
            if written.is_none() {
                permit.leave_in_doubt(UNACKNOWLEDGED);
            }
            drop(permit);
            written
        });
        match written.await {
            Ok(Some(written)) => written.map_err(|source| WriteError::Api { object, source }),
            Ok(None) | Err(_) => Err(WriteError::Unanswered(object)),
        }
    }

    /// [`Writer::write`] of the object `key` that may be followed: what comes of it is known from then on.
    async fn write_seen<K: Object>(
        &self,
        key: &Key,
        request: impl Future<Output = kube::Result<K>> + Send + 'static,
    ) -> Result<K, WriteError> {
        let mark = self.seen.mark(key);
        let written = self.write(key.to_string(), request).await;
        self.seen.wrote(key, mark, &written);
        written
    }

    /// The object, from what is seen of it or else asked for.
    pub async fn read<K: Namespaced>(&self, namespace: &str, name: &str) -> kube::Result<Option<K>> {
        self.read_by(&self.api::<K>(namespace), namespace, name).await
    }

    /// [`Writer::read`] for callers that are about to write: a failure names the object.
    pub async fn look<K: Namespaced>(&self, namespace: &str, name: &str) -> Result<Option<K>, WriteError> {
        let object = || Key::of::<K>(namespace, name).to_string();
        self.read(namespace, name).await.map_err(|source| WriteError::Api { object: object(), source })
    }

    /// [`Writer::read`] for what lies in no namespace.
    pub async fn read_cluster_wide<K: ClusterWide>(&self, name: &str) -> kube::Result<Option<K>> {
        self.read_by(&Api::<K>::all(self.client.clone()), "", name).await
    }

    async fn read_by<K: Object>(&self, api: &Api<K>, namespace: &str, name: &str) -> kube::Result<Option<K>> {
        let key = Key::of::<K>(namespace, name);
        match self.seen.get(&key) {
            Sight::Absent => return Ok(None),
            Sight::There(object) => {
                return serde_json::from_value((*object).clone()).map(Some).map_err(kube::Error::SerdeError);
            }
            Sight::Unknown => {}
        }
        let read = in_time(api.get_opt(name)).await?;
        self.seen.looked(&key, read.as_ref());
        Ok(read)
    }

    /// Makes the object be as `desired` says, in the fields that `desired` sets. Returns it as it is then; nothing is written
    /// when it is so already, or when it is somebody else's.
    pub async fn apply<K: Namespaced>(&self, desired: &K) -> Result<K, WriteError> {
        let (namespace, name) = (desired.namespace().unwrap_or_default(), desired.name_any());
        self.apply_over(self.look(&namespace, &name).await?, desired).await
    }

    /// [`Writer::apply`] for callers that have looked already: the object is as `live` says.
    pub async fn apply_over<K: Namespaced>(&self, live: Option<K>, desired: &K) -> Result<K, WriteError> {
        let object = describe(desired);
        let encoding = |source| WriteError::Encoding { object: object.clone(), source };
        let Some(there) = live else { return self.apply_new(desired).await };
        if !made_by_us(there.meta()) {
            return Err(WriteError::Foreign(object));
        }
        let desired = &with_uid(desired, there.meta().uid.clone());
        let wanted = serde_json::to_value(desired).map_err(encoding)?;
        let live = serde_json::to_value(&there).map_err(encoding)?;
        if contains(&live, &wanted) && !takes_out(&live, &wanted) {
            return Ok(there);
        }
        self.apply_unseen(desired).await
    }

    /// [`Writer::apply`] for what does not seem to be there. Should somebody have made one under that name, it is left alone.
    pub async fn apply_new<K: Namespaced>(&self, desired: &K) -> Result<K, WriteError> {
        // Without force: where somebody's object has other values the API server refuses the whole.
        let refused = match self.patch(desired, PatchParams::apply(FIELD_MANAGER)).await {
            Err(WriteError::Api { object, source: kube::Error::Api(status) }) if status.code == 409 => object,
            done => return done,
        };
        let (api, name) = (self.api::<K>(&desired.namespace().unwrap_or_default()), desired.name_any());
        let Some(there) = within(READ, api.get_opt(&name)).await else {
            return Err(WriteError::Unanswered(refused));
        };
        let there = there.map_err(|source| WriteError::Api { object: refused.clone(), source })?;
        match there {
            // Ours, which somebody has edited past recognition.
            Some(there) if made_by_us(there.meta()) => {
                self.apply_unseen(&with_uid(desired, there.meta().uid.clone())).await
            }
            _ => Err(WriteError::Foreign(refused)),
        }
    }

    /// [`Writer::apply`] without looking first, for callers that know that it is ours and that something is to be changed. With a
    /// uid in `desired` only the one they know is changed, and not what somebody has made in its place since.
    pub async fn apply_unseen<K: Namespaced>(&self, desired: &K) -> Result<K, WriteError> {
        let encoding = |source| WriteError::Encoding { object: describe(desired), source };
        let wanted = serde_json::to_value(desired).map_err(encoding)?;
        // By force: these objects are ours, whoever edited them.
        let refused = match self.patch(desired, PatchParams::apply(FIELD_MANAGER).force()).await {
            Ok(written) if contains(&serde_json::to_value(&written).map_err(encoding)?, &wanted) => {
                return Ok(written);
            }
            Ok(_) => None,
            // With what somebody has put into our lists it is no valid object: two ports of one name.
            Err(refused) if refused.is_invalid() => Some(refused),
            Err(error) => return Err(error),
        };
        // Applying leaves the items that somebody has put into our lists, for they are his. A merge takes lists as a whole.
        let merged = self.merge(&desired.namespace().unwrap_or_default(), &desired.name_any(), &wanted).await;
        merged.map_err(|error| refused.unwrap_or(error))
    }

    async fn patch<K: Namespaced>(&self, desired: &K, params: PatchParams) -> Result<K, WriteError> {
        let (namespace, name) = (desired.namespace().unwrap_or_default(), desired.name_any());
        let key = Key::of::<K>(&namespace, &name);
        let wanted = serde_json::to_value(desired);
        let wanted = wanted.map_err(|source| WriteError::Encoding { object: key.to_string(), source })?;
        let api = self.api::<K>(&namespace);
        let request = async move { api.patch(&name, &params, &Patch::Apply(&wanted)).await };
        self.write_seen(&key, request).await
    }

    /// Merges `patch` into the object. A `metadata.resourceVersion` in it is a precondition.
    pub async fn merge<K: Namespaced>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<K, WriteError> {
        self.merge_by(self.api::<K>(namespace), Key::of::<K>(namespace, name), patch).await
    }

    /// [`Writer::merge`] for what lies in no namespace.
    pub async fn merge_cluster_wide<K: ClusterWide>(
        &self,
        name: &str,
        patch: &Value,
    ) -> Result<K, WriteError> {
        self.merge_by(Api::<K>::all(self.client.clone()), Key::of::<K>("", name), patch).await
    }

    async fn merge_by<K: Object>(&self, api: Api<K>, key: Key, patch: &Value) -> Result<K, WriteError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let (name, patch) = (key.name().to_owned(), patch.clone());
        let request = async move { api.patch(&name, &params, &Patch::Merge(&patch)).await };
        self.write_seen(&key, request).await
    }

    /// Replaces the status of the object.
    pub async fn status<K: Namespaced>(
        &self,
        namespace: &str,
        name: &str,
        status: &Value,
    ) -> Result<K, WriteError> {
        let object = Key::of::<K>(namespace, name).to_string();
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patch = serde_json::json!({ "status": status });
        let (api, name) = (self.api::<K>(namespace), name.to_owned());
        self.write(object, async move { api.patch_status(&name, &params, &Patch::Merge(&patch)).await }).await
    }

    /// Writes an Event.
    pub async fn tell(
        &self,
        recorder: &Recorder,
        event: Event,
        about: ObjectReference,
    ) -> Result<(), WriteError> {
        let kind = about.kind.as_deref().unwrap_or_default();
        let name = about.name.as_deref().unwrap_or_default();
        let object = format!("Event on {kind} {}/{name}", about.namespace.as_deref().unwrap_or_default());
        let recorder = recorder.clone();
        self.write(object, async move { recorder.publish(&event, &about).await }).await
    }
}

/// What is answered to `question`, which may take [`READ`].
pub(crate) async fn in_time<T>(question: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let answer = within(READ, question).await;
    answer.unwrap_or_else(|| Err(kube::Error::Service("no answer in time".into())))
}

/// What comes of `request`, unless it takes longer than `limit`.
async fn within<T>(limit: Duration, request: impl Future<Output = T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    let mut over = pin!(tokio::time::sleep_until(deadline));
    let mut request = pin!(request);
    poll_fn(|task| {
        // The clock first: a process that was frozen must not send now what it was about to send then.
        if over.as_mut().poll(task).is_ready() || Instant::now() >= deadline {
            return Poll::Ready(None);
        }
        request.as_mut().poll(task).map(Some)
    })
    .await
}

/// Whether we made the object: it belongs to a MeshConfig, or we applied it.
pub fn made_by_us(object: &ObjectMeta) -> bool {
    let mut owners = object.owner_references.iter().flatten();
    owners.any(|owner| owner.kind == "MeshConfig" && owner.api_version.starts_with("weft.mesh/"))
        || applied_by_us(object)
}

/// Whether we applied the object: no label or ownerReference that somebody puts on it makes it seem so.
pub fn applied_by_us(object: &ObjectMeta) -> bool {
    object.managed_fields.iter().flatten().any(|fields| {
        fields.manager.as_deref() == Some(FIELD_MANAGER) && fields.operation.as_deref() == Some("Apply")
    })
}

fn with_uid<K: Resource + Clone>(object: &K, uid: Option<String>) -> K {
    let mut object = object.clone();
    object.meta_mut().uid = uid;
    object
}

fn describe<K: Resource<DynamicType = ()>>(object: &K) -> String {
    Key::of::<K>(&object.namespace().unwrap_or_default(), &object.name_any()).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_we_applied_or_what_belongs_to_a_mesh_is_ours() {
        let ours = |metadata: Value| made_by_us(&serde_json::from_value(metadata).unwrap());
        let owner = |version: &str, kind: &str| json!({"ownerReferences": [{"apiVersion": version, "kind": kind, "name": "n", "uid": "u"}]});
        let manager = |name: &str, operation: &str| json!({"managedFields": [{"manager": name, "operation": operation}]});
        assert!(ours(owner("weft.mesh/v1alpha1", "MeshConfig")) && ours(manager(FIELD_MANAGER, "Apply")));
        assert!(!ours(owner("apps/v1", "Deployment")) && !ours(owner("other.mesh/v1", "MeshConfig")));
        assert!(!ours(manager("kubectl", "Apply")) && !ours(manager(FIELD_MANAGER, "Update")));
        let labels =
            json!({"labels": {"app.kubernetes.io/managed-by": "weft-operator", "weft.mesh/shadow": "true"}});
        assert!(!ours(labels), "anybody may put labels on");
    }

    #[tokio::test]
    async fn what_was_about_to_be_sent_when_the_process_froze_is_not_sent() {
        let sent = std::cell::Cell::new(false);
        let mut request = pin!(within(Duration::from_millis(20), async {
            tokio::task::yield_now().await;
            sent.set(true);
        }));
        assert!(futures::poll!(request.as_mut()).is_pending());
        // The thread is kept, as a frozen process is: no timer can fire meanwhile.
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(request.await, None);
        assert!(!sent.get());
    }
}
