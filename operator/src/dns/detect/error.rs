//! Why a cluster's DNS cannot be told.

use super::super::corefile::CorefileError;
use super::Version;

/// Why it cannot be told. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// There is no address to forward to.
    #[error(
        "Service {0}/{1} has no ClusterIP, nor is there another that is known for the cluster's DNS; name the cluster's DNS Service in spec.dns.namespace and spec.dns.service, or set spec.dns.provider to None"
    )]
    NoService(String, String),
    /// Names would be sent round in circles.
    #[error(
        "spec.dns.namespace is {0}, Weft's own: names would come back to who asked; name the namespace of the cluster's DNS, or set spec.dns.provider to None"
    )]
    Ourselves(String),
    /// There is no Corefile.
    #[error(
        "ConfigMap {0}/{1} has no Corefile, nor is there another that is known for one; name CoreDNS's ConfigMap in spec.dns.namespace and spec.dns.configMap, or set spec.dns.provider to None"
    )]
    NoCorefile(String, String),
    /// The operator has no right to it.
    #[error(
        "ConfigMap {0}/{1} may not be read or written: the chart's values dns.namespace and dns.configMap must name it, dns.provider must be Auto or the one of spec.dns.provider, and dns.manage must be true; or set spec.dns.provider to None"
    )]
    Forbidden(String, String),
    /// Its `rewrite` and `forward` lack what we need.
    #[error(
        "CoreDNS {0} is too old: 1.3 is the first that can do it; upgrade it, or set spec.dns.provider to None"
    )]
    TooOld(Version),
    /// CoreDNS would refuse the whole Corefile.
    #[error(
        "ConfigMap {0}/{1} has lines for {2} already that are not this mesh's, and CoreDNS takes no second ones: take them out, or choose another domain in spec.domains"
    )]
    Taken(String, String, String),
    /// Mesh names would lead nowhere.
    #[error(
        "the cluster's domain is {found} as ConfigMap {namespace}/{config_map} says, but spec.clusterDomain is {said}: set it to {found}"
    )]
    ClusterDomain {
        /// The DNS namespace.
        namespace: String,
        /// The Corefile's `ConfigMap`.
        config_map: String,
        /// What CoreDNS serves.
        found: String,
        /// What the MeshConfig says.
        said: String,
    },
    /// kube-dns would have nobody to ask.
    #[error("Service {0}/weft-dns has no ClusterIP: the chart makes it, run helm upgrade")]
    NoResolver(String),
    /// The marks are damaged.
    #[error("ConfigMap {0}/{1}: {2}")]
    Corefile(String, String, CorefileError),
    /// What is added at its end would be read as a part of what stands there.
    #[error(
        "ConfigMap {0}/{1}: the last server block of the Corefile has no braces around it, or one that is not closed, so nothing can stand behind it: write it as .:53 {{ ... }}, or set spec.dns.provider to None"
    )]
    OpenEnd(String, String),
    /// The cache's Corefile is of no kind we know.
    #[error(
        "ConfigMap {0}/{1}: the NodeLocal DNSCache has no server block that forwards names of {2}; set spec.dns.provider to None and add lines for the mesh domains by hand"
    )]
    CacheForwardsNothing(String, String, String),
}
