//! Deleting: never what has taken the place, or the form, of what was meant.

use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::object::{ClusterWide, Namespaced, Object};
use super::seen::Key;
use super::{WriteError, Writer};

impl Writer {
    /// Deletes the object, if it is there and still as it was read: as `version`.
    pub async fn delete_as_read<K: Namespaced>(
        &self,
        namespace: &str,
        name: &str,
        version: Option<String>,
    ) -> Result<(), WriteError> {
        let if_so = Preconditions { resource_version: version, uid: None };
        self.delete_by(self.api::<K>(namespace), Key::of::<K>(namespace, name), if_so).await
    }

    /// Deletes the object, if it is there and is the one with this uid.
    pub async fn delete<K: Namespaced>(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<(), WriteError> {
        self.delete_by(self.api::<K>(namespace), Key::of::<K>(namespace, name), is(uid)).await
    }

    /// [`Writer::delete`] for what lies in no namespace.
    pub async fn delete_cluster_wide<K: ClusterWide>(&self, name: &str, uid: &str) -> Result<(), WriteError> {
        self.delete_by(Api::<K>::all(self.client.clone()), Key::of::<K>("", name), is(uid)).await
    }

    async fn delete_by<K: Object>(
        &self,
        api: Api<K>,
        key: Key,
        if_so: Preconditions,
    ) -> Result<(), WriteError> {
        let name = key.name().to_owned();
        let params = DeleteParams { preconditions: Some(if_so), ..DeleteParams::default() };
        let request = async move {
            match api.delete(&name, &params).await {
                Err(kube::Error::Api(status)) if status.code != 404 => Err(kube::Error::Api(status)),
                Ok(_) | Err(kube::Error::Api(_)) => Ok(()),
                Err(error) => Err(error),
            }
        };
        let deleted = self.write(key.to_string(), request).await;
        self.seen.forget(&key);
        deleted
    }
}

fn is(uid: &str) -> Preconditions {
    Preconditions { resource_version: None, uid: Some(uid.to_owned()) }
}
