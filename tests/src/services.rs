//! A user's Services, with what their owner asks of the mesh in annotations.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Event, Service};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::Result;
use crate::cluster::Cluster;

/// A Service to be made.
#[derive(Clone)]
pub struct UserService {
    /// Its name.
    pub name: String,
    selector: Value,
    ports: Vec<Value>,
    annotations: BTreeMap<String, String>,
}

impl UserService {
    /// Leads to the pods labelled `app=<app>`; has no port yet.
    pub fn new(name: &str, app: &str) -> Self {
        Self {
            name: name.to_owned(),
            selector: json!({ "app": app }),
            ports: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// Leads to the pods with this label instead.
    #[must_use]
    pub fn selecting(mut self, key: &str, value: &str) -> Self {
        self.selector = json!({ key: value });
        self
    }

    /// Leads from port 80 to the container port `http`.
    pub fn http(name: &str, app: &str) -> Self {
        Self::new(name, app).tcp("http", 80, "http")
    }

    /// Leads from port 80 to the container port `grpc`, over h2c.
    pub fn grpc(name: &str, app: &str) -> Self {
        Self::new(name, app).tcp("grpc", 80, "grpc").ask("scheme", "h2c")
    }

    /// With a TCP port that leads to a named or numbered port of the pods.
    #[must_use]
    pub fn tcp(self, name: &str, port: u16, target: impl Into<Value>) -> Self {
        self.port("TCP", name, port, &target.into())
    }

    /// With a UDP port that leads to a named or numbered port of the pods.
    #[must_use]
    pub fn udp(self, name: &str, port: u16, target: impl Into<Value>) -> Self {
        self.port("UDP", name, port, &target.into())
    }

    fn port(mut self, protocol: &str, name: &str, port: u16, target: &Value) -> Self {
        self.ports.push(json!({ "protocol": protocol, "name": name, "port": port, "targetPort": target }));
        self
    }

    /// With our annotation `key`.
    #[must_use]
    pub fn ask(self, key: &str, value: &str) -> Self {
        self.annotation(&format!("weft.mesh/{key}"), value)
    }

    /// With an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Makes it.
    pub async fn create(&self, cluster: &Cluster, namespace: &str) -> Result {
        let object = json!({
            "metadata": { "name": self.name, "annotations": self.annotations },
            "spec": { "selector": self.selector, "ports": self.ports },
        });
        let api = cluster.api::<Service>(namespace);
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    }
}

/// Sets our annotation `key` of a Service, or takes it away.
pub async fn ask(cluster: &Cluster, namespace: &str, name: &str, key: &str, value: Option<&str>) -> Result {
    let patch = json!({ "metadata": { "annotations": { format!("weft.mesh/{key}"): value } } });
    let api = cluster.api::<Service>(namespace);
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// The Events about a Service: type, reason and message of each.
pub async fn events(cluster: &Cluster, namespace: &str, name: &str) -> Result<Vec<(String, String, String)>> {
    let about =
        ListParams::default().fields(&format!("involvedObject.kind=Service,involvedObject.name={name}"));
    let events = cluster.api::<Event>(namespace).list(&about).await?;
    let tell = |event: Event| {
        (event.type_.unwrap_or_default(), event.reason.unwrap_or_default(), event.message.unwrap_or_default())
    };
    Ok(events.items.into_iter().map(tell).collect())
}
