//! The debug API: what this replica knows, what it made of it, and what the proxies hold, in JSON. On the loopback address
//! only, so that it takes the right to `kubectl port-forward` or `exec` to read it. [`PAGES`] lists what there is.

mod nodes;
mod services;

use std::sync::Arc;

use hyper::{Method, Response, StatusCode, Uri};
use serde::Serialize;
use weft_config::ServiceId;
use weft_config::show::{Configuration, ResourceView};

use super::http::{Answer, answer, text};
use super::metrics::Metrics;
use super::reader::ReaderKeys;
use crate::index::Index;
use crate::policies;
use crate::publish::Publisher;
use crate::smi::{Finding, Verdict};

/// Every page and what it tells.
const PAGES: [(&str, &str); 8] = [
    ("/debug/operator", "this replica, its mesh and its configuration"),
    (
        "/debug/services",
        "every Service in the mesh: ports, shadow, endpoints, splits, targets, and what is wrong",
    ),
    (
        "/debug/services/<namespace>/<name>",
        "one Service, its endpoints and its resources; or why it is not in the mesh",
    ),
    ("/debug/smi", "every object of the Service Mesh Interface and what became of it"),
    ("/debug/configuration", "what the proxies are sent"),
    ("/debug/nodes", "every proxy: what it holds, whether it is in step, what it refuses"),
    ("/debug/nodes/<node>", "that of one node"),
    (
        "/debug/nodes/<node>/configuration",
        "what the proxy of a node holds; with ?service=<namespace>/<name> what is about one Service",
    ),
];

/// What the debug API answers from.
pub struct Debug {
    /// The index.
    pub index: Index,
    /// The configuration.
    pub publisher: Publisher,
    /// The series: whether this replica leads is among them.
    pub metrics: Arc<Metrics>,
    /// What proxies ask of those who read what they hold.
    pub keys: ReaderKeys,
    /// Name of this pod.
    pub pod: Arc<str>,
}

/// This replica.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OperatorView {
    pod: String,
    version: &'static str,
    leads: bool,
    /// Namespace and name of the MeshConfig that is served.
    mesh_config: Option<String>,
    /// Kinds whose objects have not all been read yet; nothing is published before.
    awaited: Vec<&'static str>,
    /// Services in the mesh.
    services: usize,
    shadow_services: usize,
    configuration: ConfigurationSummary,
}

#[derive(Serialize)]
struct ConfigurationSummary {
    /// Of this replica's own count.
    version: u64,
    /// What a proxy has that holds the same.
    digest: String,
    resources: usize,
}

/// One object of the Service Mesh Interface.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SmiView {
    kind: &'static str,
    /// In which it was read.
    api_version: String,
    namespace: String,
    name: String,
    verdict: Verdict,
    /// What its author should know.
    notes: Vec<String>,
}

impl Debug {
    /// Answers one request.
    pub async fn answer(&self, method: &Method, uri: &Uri) -> Response<Answer> {
        if method != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
        }
        let path: Vec<_> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        match path[..] {
            [] | ["debug"] => text(StatusCode::OK, list()),
            ["debug", "operator"] => json(&self.operator()),
            ["debug", "services"] => json(&services::all(self)),
            ["debug", "services", namespace, name] => {
                match services::one(self, &ServiceId::new(namespace, name)) {
                    Some(service) => json(&service),
                    None => not_found(&format!("there is no Service {namespace}/{name}")),
                }
            }
            ["debug", "configuration"] => json(&self.configuration()),
            ["debug", "smi"] => json(&self.smi()),
            ["debug", "nodes"] => json(&nodes::all(self).await),
            ["debug", "nodes", node] => {
                let proxies = nodes::of(self, node).await;
                if proxies.is_empty() { no_proxy(node) } else { json(&proxies) }
            }
            ["debug", "nodes", node, "configuration"] => {
                match nodes::configuration(self, node, uri.query()).await {
                    Ok(Some(body)) => answer(StatusCode::OK, "application/json", body),
                    Ok(None) => no_proxy(node),
                    Err(error) => text(StatusCode::BAD_GATEWAY, format!("{error}\n")),
                }
            }
            _ => not_found("there is no such page"),
        }
    }

    fn operator(&self) -> OperatorView {
        let mesh = self.index.mesh().borrow().clone();
        let name = |mesh: &weft_crds::MeshConfig| {
            let (namespace, name) = (&mesh.metadata.namespace, &mesh.metadata.name);
            format!("{}/{}", namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default())
        };
        OperatorView {
            pod: self.pod.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            leads: self.metrics.leading.get() == 1,
            mesh_config: mesh.as_deref().map(name),
            awaited: self.index.awaited().into_iter().collect(),
            services: self.index.count_meshed(),
            shadow_services: self.index.count_shadows(),
            configuration: ConfigurationSummary {
                version: *self.publisher.versions().borrow(),
                digest: self.publisher.digest(),
                resources: self.publisher.resources(),
            },
        }
    }

    /// Every object of the Service Mesh Interface in the namespaces of the mesh, and what became of it.
    fn smi(&self) -> Vec<SmiView> {
        let view = |finding: Finding| SmiView {
            kind: finding.about.kind,
            api_version: finding.about.api_version.to_string(),
            namespace: finding.about.name.namespace.to_string(),
            name: finding.about.name.name.to_string(),
            verdict: finding.verdict,
            notes: finding.notes,
        };
        policies::findings(&self.index).into_iter().map(view).collect()
    }

    fn configuration(&self) -> Configuration {
        let resources = self.publisher.configuration().iter().map(ResourceView::from).collect();
        Configuration { digest: self.publisher.digest(), resources }
    }
}

/// The index page.
fn list() -> String {
    let width = PAGES.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    PAGES.iter().map(|(path, tells)| format!("{path:width$}  {tells}\n")).collect()
}

fn not_found(why: &str) -> Response<Answer> {
    text(StatusCode::NOT_FOUND, format!("{why}; there are\n{}", list()))
}

fn no_proxy(node: &str) -> Response<Answer> {
    not_found(&format!("there is no proxy on a node {node}"))
}

fn json(value: &impl Serialize) -> Response<Answer> {
    match serde_json::to_string_pretty(value) {
        Ok(json) => answer(StatusCode::OK, "application/json", json + "\n"),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be encoded\n"),
    }
}

#[cfg(test)]
mod tests;
