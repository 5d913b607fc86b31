//! `MeshConfig`: the one object that installs and configures the data plane of its namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the mesh of this namespace should be. Every field has a default; an empty spec is a working mesh.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weft.mesh",
    version = "v1alpha1",
    kind = "MeshConfig",
    plural = "meshconfigs",
    singular = "meshconfig",
    shortname = "mesh",
    category = "weft",
    namespaced,
    status = "MeshConfigStatus",
    derive = "PartialEq",
    doc = "Installs and configures the Weft data plane in its namespace: node proxies, shadow Services and the DNS of the mesh domains. An operator serves the MeshConfig of its own namespace; with several, the oldest.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Proxies","type":"string","jsonPath":".status.proxies.summary"}"#,
    printcolumn = r#"{"name":"Services","type":"integer","jsonPath":".status.services"}"#,
    printcolumn = r#"{"name":"DNS","type":"string","jsonPath":".status.conditions[?(@.type==\"DNSConfigured\")].reason"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"In sync","type":"integer","priority":1,"jsonPath":".status.proxies.inSync"}"#,
    printcolumn = r#"{"name":"Ports used","type":"integer","priority":1,"jsonPath":".status.ports.used"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.domains.all(d, d != self.clusterDomain && !d.endsWith('.' + self.clusterDomain) && !self.clusterDomain.endsWith('.' + d))",
        "message": "a mesh domain must not be the cluster domain, inside it or above it: names of ordinary Services would stop resolving; choose another one, such as weft.mesh"
    }
]))]
pub struct MeshConfigSpec {
    /// The DNS domains of the mesh: a Service is called `<service>.<namespace>.<domain>`. The first is the one shown to
    /// people.
    #[schemars(schema_with = "schemas::domains")]
    pub domains: Vec<String>,
    /// The DNS domain of the cluster, as the kubelets are configured with it.
    #[schemars(length(min = 1, max = 253), regex(pattern = schemas::DOMAIN))]
    pub cluster_domain: String,
    /// Which namespaces' Services are in the mesh. `kube-system` and the mesh's own namespace never are.
    pub namespaces: Namespaces,
    /// The node proxies.
    pub proxy: Proxy,
    /// How the mesh domains get into the cluster's DNS.
    pub dns: Dns,
}

impl Default for MeshConfigSpec {
    fn default() -> Self {
        Self {
            domains: vec!["weft.mesh".into()],
            cluster_domain: "cluster.local".into(),
            namespaces: Namespaces::default(),
            proxy: Proxy::default(),
            dns: Dns::default(),
        }
    }
}

/// Which namespaces' Services are in the mesh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespaces {
    /// Only these namespaces are in the mesh; empty means all.
    pub watch: Vec<String>,
    /// These namespaces are not in the mesh, even when they are listed under `watch`.
    pub ignore: Vec<String>,
}

/// The node proxies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    /// The proxies' image; the one that came with the operator when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// When the kubelet pulls the image.
    pub image_pull_policy: ImagePullPolicy,
    /// Secrets in this namespace with which the image is pulled.
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// CPU and memory of a proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Proxies run only on nodes with these labels. Pods of other nodes use a proxy of another node.
    pub node_selector: BTreeMap<String, String>,
    /// Taints the proxies tolerate; every taint when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
    /// Priority class of the proxies' pods.
    pub priority_class_name: String,
    /// Worker threads of a proxy; 0 means one per core it may use.
    #[schemars(range(min = 0, max = 256))]
    pub worker_threads: u16,
    /// How much the proxies log.
    pub log_level: LogLevel,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The ports proxies listen on: one for each port of each Service in the mesh.
    pub listen_ports: PortRange,
    /// How a proxy takes its leave.
    pub drain: Drain,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            image: None,
            image_pull_policy: ImagePullPolicy::default(),
            image_pull_secrets: Vec::new(),
            resources: None,
            node_selector: BTreeMap::new(),
            tolerations: None,
            priority_class_name: "system-node-critical".into(),
            worker_threads: 0,
            log_level: LogLevel::default(),
            log_format: LogFormat::default(),
            listen_ports: PortRange::default(),
            drain: Drain::default(),
        }
    }
}

/// When the kubelet pulls an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start of a pod.
    Always,
    /// When the node does not have it.
    #[default]
    IfNotPresent,
    /// Never: the image must be on the node.
    Never,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// And what may become one.
    Warn,
    /// And the events of the proxy's life.
    #[default]
    Info,
    /// And what is needed to find a fault.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word for it, as flags take it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The word for it, as flags take it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.from <= self.to", "message": "listenPorts.from must not be above listenPorts.to"},
    {"rule": "self.from > 9901 || self.to < 9901", "message": "listenPorts must not contain 9901, the proxies' own port for health and metrics"}
]))]
pub struct PortRange {
    /// The first port. Below 1024 a proxy would need a privilege it does not have.
    #[schemars(range(min = 1024, max = 65535))]
    pub from: u16,
    /// The last port. Keep it below the nodes' ephemeral ports (32768 and up), or a listen port may be taken by an outgoing
    /// connection.
    #[schemars(range(min = 1024, max = 65535))]
    pub to: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self { from: 10000, to: 32767 }
    }
}

/// How a proxy takes its leave, when it is replaced or its node is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// How many seconds a proxy that was told to end still takes new connections without telling anybody to leave: the time
    /// Kubernetes needs to send them elsewhere.
    #[schemars(range(min = 0, max = 300))]
    pub accept_window_seconds: u32,
    /// How many seconds open connections then have to end; after that they are cut.
    #[schemars(range(min = 0, max = 3600))]
    pub deadline_seconds: u32,
}

impl Default for Drain {
    fn default() -> Self {
        Self { accept_window_seconds: 5, deadline_seconds: 60 }
    }
}

/// How the mesh domains get into the cluster's DNS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Dns {
    /// Who is configured.
    pub provider: DnsProvider,
    /// Namespace of CoreDNS. The chart grants access to `kube-system` unless its value `dns.namespace` says otherwise.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of CoreDNS's ConfigMap. The chart grants access to `coredns` unless its value `dns.configMap` says otherwise.
    #[schemars(length(min = 1, max = 253))]
    pub config_map: String,
    /// Name of the cluster DNS Service in that namespace.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            provider: DnsProvider::default(),
            namespace: "kube-system".into(),
            config_map: "coredns".into(),
            service: "kube-dns".into(),
        }
    }
}

/// Who is configured to resolve the mesh domains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DnsProvider {
    /// CoreDNS, through a block of Weft's own in its Corefile. It is never restarted.
    #[default]
    CoreDNS,
    /// Nobody: you add the lines that the `DNSConfigured` condition shows.
    None,
}

/// How the mesh is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfigStatus {
    /// The generation of the spec this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the mesh carries traffic. `ProxiesReady`: on every node that should have one. `DNSConfigured`: mesh names
    /// resolve. `ConfigSynced`: every proxy holds the current configuration. `Degraded`: something needs a person.
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
    /// Services in the mesh.
    pub services: u32,
    /// Shadow Services that exist for them.
    pub shadow_services: u32,
    /// The listen ports.
    pub ports: PortCounts,
    /// The node proxies.
    pub proxies: ProxyCounts,
    /// Version of the operator that wrote this.
    pub version: String,
}

/// Counts of listen ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortCounts {
    /// In use.
    pub used: u32,
    /// Left in the range.
    pub free: u32,
}

/// Counts of proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyCounts {
    /// Nodes that should have one.
    pub desired: u32,
    /// Nodes that have one that is ready.
    pub ready: u32,
    /// Proxies that hold the current configuration.
    pub in_sync: u32,
    /// Ready and desired, for people.
    pub summary: String,
}

mod schemas {
    //! Schemas that derive cannot express.

    use schemars::{Schema, SchemaGenerator, json_schema};

    pub(super) const DOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

    pub(super) fn domains(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": DOMAIN},
            "minItems": 1,
            "maxItems": 8,
            "x-kubernetes-list-type": "set"
        })
    }

    pub(super) fn conditions(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<super::Condition>();
        json_schema!({
            "type": "array",
            "items": item,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"]
        })
    }
}
