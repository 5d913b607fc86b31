//! `MeshConfig`: one mesh. Its spec says how the mesh is to be, its status how it is.
//!
//! The descriptions here are what `kubectl explain meshconfig` shows; the rules are enforced by the API server, so
//! that code which reads a MeshConfig need not check them again. A field that is absent has its default, both in
//! the schema and in Rust, so that objects made before a field existed read the same.

#![allow(
    clippy::doc_markdown,
    reason = "the comments are shown by kubectl explain, where backticks are noise"
)]
#![allow(clippy::duplicated_attributes, reason = "printer columns are alike in parts")]

mod access;
mod defaults;
mod dns;
mod proxy;
mod rollout;
mod rules;
mod status;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::AccessControl;
pub use defaults::{CircuitBreaker, Defaults, RateLimit, Retry, Timeouts, TrafficType};
pub use dns::{Dns, DnsFound, DnsProvider};
pub use proxy::{AccessLog, Drain, ImagePullPolicy, LogFormat, LogLevel, PortRange, Proxy};
pub use rollout::Rollout;
pub use status::{MeshConfigStatus, PortCounts, ProxyCounts, SmiCounts};

/// The mesh as it should be. Every field has a default; `spec: {}` is a complete mesh.
#[derive(CustomResource, JsonSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "weft.mesh",
    version = "v1alpha1",
    kind = "MeshConfig",
    plural = "meshconfigs",
    namespaced,
    shortname = "mesh",
    category = "weft",
    status = "MeshConfigStatus",
    derive = "PartialEq",
    doc = "A Weft mesh: pods that call <service>.<namespace>.weft.mesh have their traffic carried by the proxy of their own node. The operator serves the MeshConfig in its own namespace; with several there, the oldest.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the mesh works as a whole"
    ),
    printcolumn(
        name = "Proxies",
        type_ = "string",
        json_path = ".status.proxies.summary",
        description = "Ready proxies / nodes that should run one"
    ),
    printcolumn(
        name = "Services",
        type_ = "integer",
        json_path = ".status.services",
        description = "Services that can be called through the mesh"
    ),
    printcolumn(
        name = "DNS",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="DNSConfigured")].status"#,
        description = "Whether the cluster's DNS answers the names of the mesh"
    ),
    printcolumn(
        name = "Degraded",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Degraded")].status"#,
        description = "Whether something needs a person"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version",
        description = "Version of the operator that serves this MeshConfig"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Synced",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ConfigSynced")].status"#,
        description = "Whether every connected proxy has the current configuration",
        priority = 1
    ),
    printcolumn(
        name = "In sync",
        type_ = "integer",
        json_path = ".status.proxies.inSync",
        description = "Proxies that hold the current configuration",
        priority = 1
    ),
    printcolumn(
        name = "Rollout",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="RolloutPaused")].reason"#,
        description = "How far a change of the proxies is, or why it was stopped",
        priority = 1
    ),
    printcolumn(
        name = "Free ports",
        type_ = "integer",
        json_path = ".status.ports.free",
        description = "Listen ports left for further Service ports",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        description = "What the Ready condition says",
        priority = 1
    ),
    printcolumn(
        name = "To do",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Degraded")].message"#,
        description = "What the Degraded condition says",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    transform = crate::schema::for_crd,
    extend("x-kubernetes-validations" = rules::domains_and_cluster_domain())
)]
pub struct MeshConfigSpec {
    /// DNS domains of the mesh. A Service is called through the mesh as <service>.<namespace>.<domain>, by every
    /// domain alike; any other name bypasses the mesh. A domain must lie neither within nor above the cluster's own
    /// DNS domain or another domain of the list, and must not be one that everybody uses, such as com or local.
    #[schemars(
        length(min = 1, max = 8),
        inner(length(max = 125)),
        // No set: who applies another domain in the default's place would get both.
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = rules::domains())
    )]
    pub domains: Vec<String>,

    /// The cluster's own DNS domain, as the kubelets are told it (their clusterDomain). The names of the mesh are
    /// rewritten to Services below it.
    #[schemars(length(min = 1, max = 125), extend("x-kubernetes-validations" = rules::cluster_domain()))]
    pub cluster_domain: String,

    /// Which namespaces' Services are in the mesh. kube-system, the mesh's own namespace and the Service
    /// default/kubernetes never are.
    pub namespaces: Namespaces,

    /// What is spoken on the ports of Services that do not say so themselves with the annotation
    /// weft.mesh/traffic-type.
    pub default_traffic_type: TrafficType,

    /// What holds for every Service whose annotations do not say otherwise.
    pub defaults: Defaults,

    /// Who may call what through the mesh. Disabled: everybody everything. Enforced: nothing passes but what a
    /// TrafficTarget of the Service Mesh Interface allows. Names that bypass the mesh are not concerned: that takes
    /// a NetworkPolicy.
    pub access_control: AccessControl,

    /// The status with which an HTTP request is answered that no TrafficTarget allows: 403, or 404, which does not
    /// tell that there is something to be called.
    #[schemars(extend("enum" = [403, 404]))]
    pub denied_status: u16,

    /// The proxies, one on every node.
    pub proxy: Proxy,

    /// How the cluster's DNS learns the names of the mesh.
    pub dns: Dns,
}

impl Default for MeshConfigSpec {
    fn default() -> Self {
        Self {
            domains: vec!["weft.mesh".to_owned()],
            cluster_domain: "cluster.local".to_owned(),
            namespaces: Namespaces::default(),
            default_traffic_type: TrafficType::default(),
            defaults: Defaults::default(),
            access_control: AccessControl::default(),
            denied_status: access::FORBIDDEN,
            proxy: Proxy::default(),
            dns: Dns::default(),
        }
    }
}

/// Which namespaces' Services are in the mesh.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespaces {
    /// Names of the namespaces whose Services are in the mesh. Empty: all namespaces.
    #[schemars(length(max = 1000), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules::namespaces()))]
    pub watch: Vec<String>,

    /// Names of namespaces whose Services are not in the mesh, even if `watch` names them.
    #[schemars(length(max = 1000), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules::namespaces()))]
    pub ignore: Vec<String>,
}
