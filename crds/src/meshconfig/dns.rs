//! `spec.dns`: how the cluster's DNS learns the names of the mesh. `status.dns`: which DNS was found.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the cluster's DNS learns the names of the mesh.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = super::rules::dns()))]
pub struct Dns {
    /// The DNS server that is told the names of the mesh. Auto: the one that is found behind the cluster's DNS Service.
    /// CoreDNS: marked lines of our own are added to the Corefile, or to the ConfigMap coredns-custom where the Corefile
    /// imports it, and taken out again with the MeshConfig; CoreDNS is not restarted. KubeDNS: kube-dns is told by
    /// stubDomains to ask a resolver in the operator. None: nothing is changed, and you add the lines that the condition
    /// DNSConfigured shows. A NodeLocal DNSCache in front of CoreDNS or kube-dns is told as well.
    // The API server wants to know how long what a rule compares may be.
    #[schemars(extend("maxLength" = 16))]
    pub provider: DnsProvider,

    /// Namespace of the cluster's DNS. The operator may change ConfigMaps only where the chart allowed it: set the
    /// chart's value dns.namespace as well.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,

    /// Name of the ConfigMap with CoreDNS's Corefile. If there is none of this name, those are tried that known
    /// distributions use. The operator may change it only where the chart allowed it: set the chart's value
    /// dns.configMap as well.
    #[schemars(length(min = 1, max = 253))]
    pub config_map: String,

    /// Name of the Service of the cluster's DNS in that namespace; names of the mesh, once rewritten, are asked there.
    /// If there is none of this name, those are tried that known distributions use.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            provider: DnsProvider::default(),
            namespace: "kube-system".to_owned(),
            config_map: "coredns".to_owned(),
            service: "kube-dns".to_owned(),
        }
    }
}

/// The DNS server that is told the names of the mesh.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum DnsProvider {
    /// The one that is found.
    #[default]
    Auto,
    /// CoreDNS, by lines of ours in its configuration.
    CoreDNS,
    /// kube-dns, by stub domains that lead to a resolver of ours.
    KubeDNS,
    /// DNS is left alone.
    None,
}

/// The DNS that was found, and what of the mesh's own stands in it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsFound {
    /// CoreDNS, KubeDNS or OpenShift; None when DNS is left alone; empty when it is not known. With "behind NodeLocal
    /// DNSCache" where that stands in front.
    pub provider: String,
    /// The server's version as its image tells it; empty when it does not.
    pub version: String,
    /// The domains that this mesh has: those that the cluster's DNS was told, or, where a person tells it, those that the
    /// mesh is served with. Of several meshes that want a domain the one that has it keeps it.
    pub domains: Vec<String>,
    /// The address that kube-dns was told to ask for them; empty with any other DNS.
    pub resolver: String,
}
