//! `status`: what the operator reports of a mesh.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dns::DnsFound;

/// The mesh as the operator last saw it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = crate::schema::for_crd)]
pub struct MeshConfigStatus {
    /// The metadata.generation this status is about. When it is older than the object's, the operator has not yet
    /// looked at the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready (the mesh works), ProxiesReady (every node that should have a proxy has a ready one), DNSConfigured (the
    /// cluster's DNS answers the names of the mesh), ConfigSynced (every connected proxy has the current
    /// configuration), RolloutPaused (a change of the proxies was stopped because a new one fails), Degraded
    /// (something is wrong that does not stop the mesh). Each says why, and what to do.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Services that can be called through the mesh.
    pub services: u32,

    /// Shadow Services: those in the MeshConfig's namespace whose addresses the names of the mesh lead to, one for
    /// each Service in the mesh.
    pub shadow_services: u32,

    /// Listen ports of the proxies.
    pub ports: PortCounts,

    /// The proxies.
    pub proxies: ProxyCounts,

    /// Objects of the Service Mesh Interface in the namespaces of the mesh. Each is told by an Event what became of
    /// it.
    pub smi: SmiCounts,

    /// The cluster's DNS, as it was found.
    pub dns: DnsFound,

    /// Version of the operator that serves this MeshConfig.
    pub version: String,
}

/// Listen ports of the proxies.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortCounts {
    /// Ports in use, one for each port of each Service in the mesh.
    pub used: u32,
    /// Ports left in spec.proxy.listenPorts.
    pub free: u32,
}

/// Objects of the Service Mesh Interface, by what became of them.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SmiCounts {
    /// Objects that are in force as they are written.
    pub accepted: u32,
    /// Objects of which a part cannot be used; the rest is in force.
    pub partly_applied: u32,
    /// Objects of which nothing is in force.
    pub rejected: u32,
}

/// Counts of the proxies.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyCounts {
    /// Nodes that should run a proxy.
    pub desired: u32,
    /// Proxies that are ready to carry traffic.
    pub ready: u32,
    /// Proxies that have applied the current configuration.
    pub in_sync: u32,
    /// Ready and desired in one word, for example 2/2.
    pub summary: String,
}
