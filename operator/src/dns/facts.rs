//! What is read of a cluster's DNS before anything is decided: plain facts, no judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use weft_crds::meshconfig::Dns;

use super::stubs::Resolver;

/// The namespace in which OpenShift has its DNS.
pub const OPENSHIFT_NAMESPACE: &str = "openshift-dns";
/// The Service of OpenShift's DNS.
pub const OPENSHIFT_SERVICE: &str = "dns-default";

/// Names that RKE2's CoreDNS goes by.
const RKE2: &str = "rke2-coredns-rke2-coredns";
/// What CoreDNS imports of the user's where a distribution keeps the Corefile to itself.
pub const CUSTOM: &str = "coredns-custom";
/// kube-dns's `ConfigMap`.
pub const KUBE_DNS: &str = "kube-dns";
/// NodeLocal DNSCache: its `ConfigMap` and its DaemonSet, as Kubernetes and as Kubespray name them.
pub const NODE_CACHES: [&str; 2] = ["node-local-dns", "nodelocaldns"];

/// The data of `ConfigMaps` by their names.
pub type ConfigMaps = BTreeMap<String, BTreeMap<String, String>>;

/// Everything that is decided on.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// `spec.dns`.
    pub asked: Dns,
    /// `spec.domains`.
    pub domains: Vec<String>,
    /// `spec.clusterDomain`.
    pub cluster_domain: String,
    /// The mesh's namespace.
    pub mesh: String,
    /// The operator's resolver.
    pub resolver: Resolver,
    /// Addresses of the Services that there are of [`services`].
    pub services: BTreeMap<String, IpAddr>,
    /// Address of OpenShift's DNS.
    pub openshift: Option<IpAddr>,
    /// Names of the Deployments and DaemonSets whose ready pods are behind the Service.
    pub behind: BTreeSet<String>,
    /// The DNS that was found last, as the status names it; empty: none was.
    pub told: String,
    /// The `ConfigMaps` that there are of [`config_maps`].
    pub config_maps: ConfigMaps,
    /// Those that we may not read.
    pub forbidden: BTreeSet<String>,
    /// The Deployments and DaemonSets that could be read.
    pub workloads: BTreeMap<String, Workload>,
    /// The DaemonSets of [`NODE_CACHES`] that there are not.
    pub no_cache: BTreeSet<String>,
}

/// Names of the Service that may be the cluster's DNS, likeliest first.
pub fn services(asked: &Dns) -> Vec<&str> {
    distinct([asked.service.as_str(), "kube-dns", "coredns", RKE2])
}

/// Names of the Corefile's `ConfigMap`, likeliest first. CoreDNS's Deployment has the same name.
pub fn corefiles(asked: &Dns) -> Vec<&str> {
    distinct([asked.config_map.as_str(), "coredns", RKE2])
}

/// Names of every `ConfigMap` in which lines of ours may stand.
pub fn config_maps(asked: &Dns) -> Vec<&str> {
    corefiles(asked).into_iter().chain([CUSTOM, KUBE_DNS]).chain(NODE_CACHES).collect()
}

fn distinct<const N: usize>(names: [&str; N]) -> Vec<&str> {
    let mut distinct = Vec::with_capacity(N);
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}

/// What matters of a Deployment's or DaemonSet's pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload {
    /// Images of the containers.
    pub images: Vec<String>,
    /// `ConfigMaps` that the containers see.
    pub mounts: Vec<Mount>,
}

/// A `ConfigMap` in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its name.
    pub config_map: String,
    /// The directory it is seen in, without a slash at its end.
    pub path: String,
    /// Whether keys that are added are seen as well.
    pub whole: bool,
}

impl Workload {
    /// Reads a pod template.
    pub fn of(template: &PodTemplateSpec) -> Self {
        let Some(spec) = &template.spec else { return Self::default() };
        let volumes = spec.volumes.iter().flatten().filter_map(|volume| {
            let source = volume.config_map.as_ref()?;
            Some((volume.name.as_str(), (source.name.clone(), source.items.is_none())))
        });
        let volumes: BTreeMap<_, _> = volumes.collect();
        let mounts = spec.containers.iter().flat_map(|container| container.volume_mounts.iter().flatten());
        let mounts = mounts.filter_map(|mount| {
            let (config_map, all_keys) = volumes.get(mount.name.as_str())?;
            Some(Mount {
                config_map: config_map.clone(),
                path: mount.mount_path.trim_end_matches('/').to_owned(),
                whole: *all_keys && mount.sub_path.is_none(),
            })
        });
        Self {
            images: spec.containers.iter().filter_map(|container| container.image.clone()).collect(),
            mounts: mounts.collect(),
        }
    }

    /// The image whose name, without registry and tag, has `part` in it.
    pub fn image(&self, part: &str) -> Option<&str> {
        let name = |image: &str| {
            image.split('@').next().and_then(|i| i.rsplit('/').next()).is_some_and(|n| n.contains(part))
        };
        self.images.iter().map(String::as_str).find(|image| name(image))
    }
}

/// The Deployment or DaemonSet a pod belongs to, from the kind and name of its controller.
pub fn workload_of(kind: &str, name: &str) -> Option<String> {
    match kind {
        "ReplicaSet" => name.rsplit_once('-').map(|(deployment, _)| deployment.to_owned()),
        "DaemonSet" => Some(name.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_pods_of_k3s_see() {
        let template = json!({"spec": {
            "containers": [{"name": "coredns", "image": "rancher/mirrored-coredns-coredns:1.12.3", "volumeMounts": [
                {"name": "config-volume", "mountPath": "/etc/coredns"},
                {"name": "custom-config-volume", "mountPath": "/etc/coredns/custom/"},
                {"name": "scratch", "mountPath": "/tmp"},
                {"name": "custom-config-volume", "mountPath": "/one", "subPath": "one"},
            ]}],
            "volumes": [
                {"name": "config-volume", "configMap": {"name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]}},
                {"name": "custom-config-volume", "configMap": {"name": "coredns-custom", "optional": true}},
                {"name": "scratch", "emptyDir": {}},
            ],
        }});
        let workload = Workload::of(&serde_json::from_value(template).unwrap());
        let seen: Vec<_> = workload.mounts.iter().map(|m| (&*m.config_map, &*m.path, m.whole)).collect();
        assert_eq!(
            seen,
            [
                ("coredns", "/etc/coredns", false),
                (CUSTOM, "/etc/coredns/custom", true),
                (CUSTOM, "/one", false)
            ]
        );
        assert_eq!(workload.image("coredns"), Some("rancher/mirrored-coredns-coredns:1.12.3"));
        assert_eq!(workload.image("rancher"), None, "that is the registry's");
    }

    #[test]
    fn pods_tell_what_they_belong_to() {
        assert_eq!(workload_of("ReplicaSet", "coredns-7db6d8ff4d").as_deref(), Some("coredns"));
        assert_eq!(workload_of("DaemonSet", "dns-default").as_deref(), Some("dns-default"));
        assert_eq!(workload_of("Job", "x"), None);
    }

    #[test]
    fn names_are_tried_once_and_what_was_asked_for_first() {
        let asked = Dns { config_map: "my-coredns".into(), ..Dns::default() };
        assert_eq!(corefiles(&asked), ["my-coredns", "coredns", RKE2]);
        assert_eq!(services(&asked), ["kube-dns", "coredns", RKE2]);
        assert_eq!(
            config_maps(&Dns::default()),
            ["coredns", RKE2, CUSTOM, KUBE_DNS, "node-local-dns", "nodelocaldns"]
        );
    }
}
