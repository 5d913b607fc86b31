//! `spec.proxy`: the proxies' pods and how they run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Rollout;
use super::rules;

/// The proxies: a DaemonSet `weft-proxy` in the MeshConfig's namespace.
#[derive(JsonSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    /// Image of the proxy. Absent: the one that belongs to the operator's version, as the chart sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub image: Option<String>,

    /// When the kubelet pulls the image.
    pub image_pull_policy: ImagePullPolicy,

    /// Secrets with credentials for the image's registry, in the MeshConfig's namespace.
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// CPU and memory of each proxy; what is given replaces the default as a whole. A limit on CPU shows as latency of
    /// every call that goes through the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = amounts)]
    pub resources: Option<ResourceRequirements>,

    /// Labels of the nodes that run a proxy. Pods on other nodes then use the proxy of another node. Empty: every
    /// node.
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that a proxy puts up with. Absent: all taints, so that every node has its proxy; an empty
    /// list: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,

    /// PriorityClass of the proxies, so that they are not the first to be evicted from a full node. Empty: the
    /// cluster's default. Some clusters allow the system classes outside kube-system only under a ResourceQuota that
    /// names them.
    pub priority_class_name: String,

    /// Threads that carry traffic in each proxy. 0: one for each core of the node.
    #[schemars(range(max = 256))]
    pub worker_threads: u16,

    /// How much the proxies tell in their log.
    pub log_level: LogLevel,

    /// Form of the lines in the proxies' log.
    pub log_format: LogFormat,

    /// Whether the proxies write a line for each request, TCP connection and UDP session to their standard output, and
    /// in which form.
    pub access_log: AccessLog,

    /// Ports in the proxies' own network namespaces; each port of each Service in the mesh takes one.
    pub listen_ports: PortRange,

    /// How a proxy that is told to stop lets go of its clients.
    pub drain: Drain,

    /// How a change of the proxies goes from node to node.
    pub rollout: Rollout,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            image: None,
            image_pull_policy: ImagePullPolicy::default(),
            image_pull_secrets: Vec::new(),
            resources: Some(default_resources()),
            node_selector: BTreeMap::new(),
            tolerations: None,
            priority_class_name: "system-node-critical".to_owned(),
            worker_threads: 0,
            log_level: LogLevel::default(),
            log_format: LogFormat::default(),
            access_log: AccessLog::default(),
            listen_ports: PortRange::default(),
            drain: Drain::default(),
            rollout: Rollout::default(),
        }
    }
}

/// When the kubelet pulls an image.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum ImagePullPolicy {
    /// Before every start.
    Always,
    /// Only when the node does not have it yet.
    #[default]
    IfNotPresent,
    /// Not at all; the node must have it.
    Never,
}

/// How much a log tells.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// And what may need attention.
    Warn,
    /// And what happened.
    #[default]
    Info,
    /// And why.
    Debug,
    /// And every step.
    Trace,
}

impl LogLevel {
    /// The word of the proxy's flag `--log-level`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Form of the lines in a log.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl LogFormat {
    /// The word of the proxy's flag `--log-format`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Lines about requests. Not `off`: YAML reads that as a boolean.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// No line.
    #[default]
    None,
    /// As web servers have written them for decades (Common Log Format), with the Service and the endpoint behind.
    Common,
    /// One JSON object a line.
    Json,
}

impl AccessLog {
    /// The word of the proxy's flag `--access-log`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "off",
            Self::Common => "common",
            Self::Json => "json",
        }
    }
}

/// A range of ports, both ends included.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::listen_ports()))]
pub struct PortRange {
    /// First port of the range.
    #[schemars(range(min = 1024, max = 65535))]
    pub from: u16,

    /// Last port of the range. The default stays below the ports the kernel gives to outgoing connections
    /// (ip_local_port_range), which it could otherwise give away first.
    #[schemars(range(min = 1024, max = 65535))]
    pub to: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self { from: 10000, to: 32767 }
    }
}

/// How a proxy that is told to stop lets go of its clients.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// For so long at most a stopping proxy waits until no shadow Service offers it any more. Kubernetes takes it out of each of
    /// them, by default of 20 a second: with 10,000 Services that is ten minutes.
    #[schemars(range(max = 3600))]
    pub offered_seconds: u32,

    /// For so long a stopping proxy still accepts connections once no shadow Service offers it any more: the time every
    /// node needs to learn that.
    #[schemars(range(max = 300))]
    pub accept_window_seconds: u32,

    /// After the accept window, for so long the requests under way may last before they are cut off.
    #[schemars(range(min = 1, max = 3600))]
    pub deadline_seconds: u32,
}

impl Default for Drain {
    fn default() -> Self {
        Self { offered_seconds: 60, accept_window_seconds: 5, deadline_seconds: 60 }
    }
}

fn default_resources() -> ResourceRequirements {
    let amounts = [("cpu", "100m"), ("memory", "64Mi")];
    let requests = amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into();
    ResourceRequirements { requests: Some(requests), ..ResourceRequirements::default() }
}

/// A quantity as Kubernetes writes it, none below zero.
const QUANTITY: &str = r"^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$";

/// Takes out `claims`: they name resource claims of the pod, and the proxies' pods have none. Amounts must be some: else the
/// DaemonSet cannot be written, and the user hears of it too late.
fn amounts(schema: &mut Schema) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    properties.remove("claims");
    for name in ["limits", "requests"] {
        let amount = properties.get_mut(name).and_then(|of| of.get_mut("additionalProperties"));
        if let Some(amount) = amount.and_then(Value::as_object_mut) {
            amount.insert("pattern".to_owned(), QUANTITY.into());
        }
    }
}
