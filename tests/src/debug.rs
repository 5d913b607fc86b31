//! The operator's debug API, which listens on the loopback address of its pod: through a port-forward.

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Deserialize;
use weft_config::contract::DEBUG_PORT;

use crate::Result;
use crate::cluster::Cluster;
use crate::mesh::{self, NAMESPACE};

/// A Service as an operator sees it.
#[derive(Debug, Deserialize)]
pub struct ServiceView {
    namespace: String,
    name: String,
    /// What was asked for and could not be understood.
    pub problems: Vec<Problem>,
}

/// An annotation that cannot be used.
#[derive(Debug, Deserialize)]
pub struct Problem {
    /// Its whole key.
    pub annotation: String,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub message: String,
}

/// What an operator that is ready says of `namespace/name`.
pub async fn service(cluster: &Cluster, namespace: &str, name: &str) -> Result<ServiceView> {
    let all: Vec<ServiceView> = serde_json::from_slice(&get(cluster, "/debug/services").await?)?;
    let found = all.into_iter().find(|service| service.namespace == namespace && service.name == name);
    found.ok_or_else(|| format!("the operator knows no Service {namespace}/{name}").into())
}

/// An object of the Service Mesh Interface as an operator sees it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SmiView {
    kind: String,
    /// In which it was read.
    pub api_version: String,
    namespace: String,
    name: String,
    /// What became of it.
    pub verdict: String,
    /// Why, a sentence each.
    pub notes: Vec<String>,
}

impl SmiView {
    /// Whether it is this object.
    pub fn is(&self, kind: &str, namespace: &str, name: &str) -> bool {
        (&*self.kind, &*self.namespace, &*self.name) == (kind, namespace, name)
    }
}

/// What an operator that is ready says of all of them.
pub async fn smi(cluster: &Cluster) -> Result<Vec<SmiView>> {
    Ok(serde_json::from_slice(&get(cluster, "/debug/smi").await?)?)
}

/// What an operator that is ready answers who asks for `path`.
pub async fn json(cluster: &Cluster, path: &str) -> Result<serde_json::Value> {
    Ok(serde_json::from_slice(&get(cluster, path).await?)?)
}

async fn get(cluster: &Cluster, path: &str) -> Result<Vec<u8>> {
    let operator = mesh::operators(cluster).await?.into_iter().find(crate::workloads::is_ready);
    let operator = operator.ok_or("no operator is ready")?.name_any();
    let mut forward = cluster.api::<Pod>(NAMESPACE).portforward(&operator, &[DEBUG_PORT]).await?;
    let stream = forward.take_stream(DEBUG_PORT).ok_or("no stream")?;
    // The forward lives as long as its stream.
    tokio::spawn(forward.join());
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    let request = http::Request::get(path).header("host", "localhost").body(Empty::<&[u8]>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if status != http::StatusCode::OK {
        return Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(body.to_vec())
}
