//! Which MeshConfig is active, which Services are in the mesh and what holds for all of them. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use weft_config::Restriction;
use weft_crds::MeshConfig;
use weft_crds::meshconfig::AccessControl;

use super::facts::ServiceFacts;
use crate::annotations::{self, Settings};

/// Never in the mesh, whatever a MeshConfig says: a fault there would take the cluster's own services along.
const NEVER: &str = "kube-system";

/// The MeshConfig that is served: the oldest in `namespace`; of two made in the same second the first by name.
pub fn active<'a>(
    meshes: impl Iterator<Item = &'a Arc<MeshConfig>>,
    namespace: &str,
) -> Option<&'a Arc<MeshConfig>> {
    let ours = meshes.filter(|mesh| mesh.namespace().as_deref() == Some(namespace));
    ours.min_by_key(|mesh| (mesh.creation_timestamp().map(|time| time.0), mesh.name_any()))
}

/// Which Services are in the mesh. The default: none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scope {
    mesh: Option<Filter>,
    defaults: Arc<Settings>,
    restriction: Option<Restriction>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    own: String,
    watch: BTreeSet<String>,
    ignore: BTreeSet<String>,
}

impl Scope {
    /// The scope of the active MeshConfig.
    pub fn new(mesh: Option<&MeshConfig>, namespace: &str) -> Self {
        let filter = |mesh: &MeshConfig| Filter {
            own: namespace.to_owned(),
            watch: mesh.spec.namespaces.watch.iter().cloned().collect(),
            ignore: mesh.spec.namespaces.ignore.iter().cloned().collect(),
        };
        let defaults = mesh.map(|mesh| Settings::of_mesh(&mesh.spec).0).unwrap_or_default();
        let enforced = mesh.filter(|mesh| mesh.spec.access_control == AccessControl::Enforced);
        let restriction = enforced.map(|mesh| Restriction { denied_status: mesh.spec.denied_status });
        Self { mesh: mesh.map(filter), defaults: Arc::new(defaults), restriction }
    }

    /// Access control, when it is enforced.
    pub fn restriction(&self) -> Option<Restriction> {
        self.restriction
    }

    /// Whether what lies in `namespace` can be in the mesh.
    pub fn covers(&self, namespace: &str) -> bool {
        self.mesh.as_ref().is_some_and(|filter| {
            namespace != NEVER
                && namespace != filter.own
                && (filter.watch.is_empty() || filter.watch.contains(namespace))
                && !filter.ignore.contains(namespace)
        })
    }

    /// What holds for Services that ask for nothing.
    pub fn defaults(&self) -> Arc<Settings> {
        Arc::clone(&self.defaults)
    }

    /// Why `service` is not in the mesh, for people; `None`: it is.
    pub fn why_not(&self, service: &ServiceFacts) -> Option<&'static str> {
        let namespace = &*service.id.namespace;
        let Some(filter) = &self.mesh else { return Some("there is no MeshConfig") };
        if namespace == NEVER || namespace == filter.own {
            Some("its namespace is never in the mesh")
        } else if !self.covers(namespace) {
            Some("its namespace is not in the mesh: see spec.namespaces of the MeshConfig")
        } else if service.external_name {
            Some("it is of type ExternalName: there is nothing to carry to")
        } else if service.of_a_mesh {
            Some("a mesh's operator made it: it stands for another Service, or for proxies")
        } else if annotations::carried(service, &self.defaults).next().is_none() {
            Some("it has no port that is carried: none of the protocol of its traffic type")
        } else {
            (!self.includes(service)).then_some("it is the API server's own")
        }
    }

    /// Whether `service` is in the mesh. `ExternalName` Services are not: they are names, there is nothing to carry to. Nor is what a
    /// mesh is made of: two meshes would have shadows of each other's shadows, without end.
    pub fn includes(&self, service: &ServiceFacts) -> bool {
        let (namespace, name) = (&*service.id.namespace, &*service.id.name);
        let kubernetes = namespace == "default" && name == "kubernetes";
        self.covers(namespace)
            && !kubernetes
            && !service.external_name
            && !service.of_a_mesh
            && annotations::carried(service, &self.defaults).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use weft_config::ServiceId;

    use super::super::facts::ServicePort;
    use super::*;

    fn service(namespace: &str, name: &str) -> ServiceFacts {
        let ports = vec![ServicePort { port: 80, name: "".into(), udp: false }];
        let id = ServiceId::new(namespace, name);
        let annotations = std::collections::BTreeMap::new();
        ServiceFacts {
            id,
            uid: "".into(),
            ports,
            annotations,
            external_name: false,
            of_a_mesh: false,
            ipv6: false,
            cluster_ip: None,
        }
    }

    fn mesh(name: &str, watch: &[&str], ignore: &[&str]) -> MeshConfig {
        let mut mesh = MeshConfig::new(name, weft_crds::MeshConfigSpec::default());
        mesh.metadata.namespace = Some("weft-system".into());
        mesh.spec.namespaces.watch = watch.iter().map(ToString::to_string).collect();
        mesh.spec.namespaces.ignore = ignore.iter().map(ToString::to_string).collect();
        mesh
    }

    fn included(watch: &[&str], ignore: &[&str], service: &ServiceFacts) -> bool {
        Scope::new(Some(&mesh("m", watch, ignore)), "weft-system").includes(service)
    }

    #[test]
    fn the_cluster_s_own_services_are_never_in_the_mesh() {
        for (namespace, name) in
            [("kube-system", "kube-dns"), ("weft-system", "weft-operator"), ("default", "kubernetes")]
        {
            assert!(!included(&[], &[], &service(namespace, name)));
            assert!(!included(&[namespace], &[], &service(namespace, name)), "not even when asked for");
        }
        assert!(included(&[], &[], &service("default", "cart")));
    }

    #[test]
    fn namespaces_are_watched_and_ignored() {
        assert!(included(&["shop"], &[], &service("shop", "cart")));
        assert!(!included(&["shop"], &[], &service("other", "cart")));
        assert!(!included(&["shop"], &["shop"], &service("shop", "cart")), "ignore wins");
    }

    #[test]
    fn names_without_anything_to_carry_to_are_not_in_the_mesh() {
        let external = ServiceFacts { external_name: true, ..service("shop", "cart") };
        let no_ports = ServiceFacts { ports: vec![], ..service("shop", "cart") };
        let annotations = [("weft.mesh/traffic-type".into(), "udp".into())].into();
        let no_datagrams = ServiceFacts { annotations, ..service("shop", "cart") };
        let shadow = ServiceFacts { of_a_mesh: true, ..service("other-weft", "cart-shop") };
        for left_out in [external, no_ports, no_datagrams, shadow] {
            assert!(!included(&[], &[], &left_out));
        }
    }

    #[test]
    fn why_a_service_is_not_in_the_mesh_is_told_exactly_when_it_is_not() {
        let scope = Scope::new(Some(&mesh("m", &[], &["ignored"])), "weft-system");
        let external = ServiceFacts { external_name: true, ..service("shop", "cart") };
        let no_ports = ServiceFacts { ports: vec![], ..service("shop", "cart") };
        let others =
            ["kube-system", "weft-system", "ignored", "shop"].map(|namespace| service(namespace, "cart"));
        let shadow = ServiceFacts { of_a_mesh: true, ..service("shop", "cart") };
        let more = [external, no_ports, shadow, service("default", "kubernetes")];
        for service in others.into_iter().chain(more) {
            assert_eq!(scope.why_not(&service).is_none(), scope.includes(&service), "{service:?}");
        }
        assert_eq!(Scope::default().why_not(&service("shop", "cart")), Some("there is no MeshConfig"));
    }

    #[test]
    fn without_a_mesh_config_nothing_is_in_the_mesh() {
        assert!(!Scope::default().includes(&service("shop", "cart")), "without a MeshConfig nothing is");
    }

    #[test]
    fn the_oldest_mesh_config_of_our_namespace_is_active() {
        let made = |name: &str, namespace: &str, second| {
            let mut mesh = mesh(name, &[], &[]);
            mesh.metadata.namespace = Some(namespace.into());
            let time = k8s_openapi::jiff::Timestamp::from_second(second).unwrap();
            mesh.metadata.creation_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
            Arc::new(mesh)
        };
        let all = [made("b", "weft-system", 20), made("a", "weft-system", 30), made("c", "other", 10)];
        assert_eq!(active(all.iter(), "weft-system").unwrap().name_any(), "b");
        let same = [made("b", "weft-system", 20), made("a", "weft-system", 20)];
        assert_eq!(active(same.iter(), "weft-system").unwrap().name_any(), "a");
        assert!(active(all.iter(), "empty").is_none());
    }
}
