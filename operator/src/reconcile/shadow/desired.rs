//! A shadow Service as it should be. Pure.

use serde_json::{Value, json};
use weft_config::ServiceId;

use crate::index::facts::{NAME_LABEL, NAMESPACE_LABEL, SHADOW_LABEL, SKIP_MIRROR_LABEL, ServicePort};
use crate::names::ShadowName;
use crate::reconcile::daemonset;

/// The shadow of `service`, with the ports that are carried and their listen ports.
pub(super) fn desired(
    service: &ServiceId,
    ports: &[(ServicePort, u16)],
    same_node: bool,
    namespace: &str,
    owner: &Value,
) -> Value {
    let mut labels = daemonset::labels("shadow");
    labels["app.kubernetes.io/name"] = json!("weft-shadow");
    labels[SHADOW_LABEL] = json!("true");
    labels[SKIP_MIRROR_LABEL] = json!("true");
    labels[NAMESPACE_LABEL] = json!(&*service.namespace);
    labels[NAME_LABEL] = json!(&*service.name);
    let port = |(port, listen_port): &(ServicePort, u16)| {
        let protocol = if port.udp { "UDP" } else { "TCP" };
        let mut value = json!({"port": port.port, "targetPort": listen_port, "protocol": protocol});
        if !port.name.is_empty() {
            value["name"] = json!(&*port.name);
        } else if ports.len() > 1 {
            // Kubernetes wants names where there are several; a port that is not carried may have been the other.
            value["name"] = json!(format!("port-{}", port.port));
        }
        value
    };
    let mut spec = json!({
        "type": "ClusterIP",
        "internalTrafficPolicy": "Cluster",
        "selector": daemonset::selector(),
        "ports": ports.iter().map(port).collect::<Vec<_>>(),
    });
    if same_node {
        spec["trafficDistribution"] = json!("PreferSameNode");
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": ShadowName::of(service).as_str(),
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;
    use crate::index::facts::{ShadowFacts, fingerprint};

    fn ports(ports: &[(&str, u16, bool, u16)]) -> Vec<(ServicePort, u16)> {
        let port = |(name, port, udp, listen): &(&str, u16, bool, u16)| {
            (ServicePort { port: *port, name: (*name).into(), udp: *udp }, *listen)
        };
        ports.iter().map(port).collect()
    }

    #[test]
    fn a_shadow_records_its_listen_ports() {
        let owner = json!({"kind": "MeshConfig", "name": "weft", "uid": "u"});
        let ports = ports(&[("http", 80, false, 10001), ("admin", 81, false, 10002)]);
        let value = desired(&ServiceId::new("shop", "cart"), &ports, true, "weft-system", &owner);
        insta::assert_yaml_snapshot!(value);
        let object: Service = serde_json::from_value(value).unwrap();
        let facts = ShadowFacts::of(&object).unwrap();
        assert_eq!(facts.service, ServiceId::new("shop", "cart"));
        assert_eq!(facts.ports, [(80, 10001), (81, 10002)]);
    }

    #[test]
    fn what_the_api_server_fills_in_needs_no_write_and_an_edit_does() {
        let owner =
            json!({"apiVersion": "weft.mesh/v1alpha1", "kind": "MeshConfig", "name": "weft", "uid": "u"});
        let of = |udp| {
            let ports = ports(&[("", 80, udp, 10001)]);
            desired(&ServiceId::new("shop", "cart"), &ports, true, "weft-system", &owner)
        };
        let value = of(false);
        let ours = fingerprint(&serde_json::from_value(value.clone()).unwrap());
        assert_ne!(fingerprint(&serde_json::from_value(of(true)).unwrap()), ours, "another protocol");
        let mut live = value;
        live["spec"]["clusterIP"] = json!("10.96.0.7");
        live["spec"]["sessionAffinity"] = json!("None");
        for (field, edited) in [("type", "LoadBalancer"), ("internalTrafficPolicy", "Local")] {
            let mut live = live.clone();
            live["spec"][field] = json!(edited);
            assert_ne!(fingerprint(&serde_json::from_value(live).unwrap()), ours, "{field}");
        }
        live["metadata"]["labels"]["somebody.else/label"] = json!("x");
        assert_eq!(fingerprint(&serde_json::from_value(live.clone()).unwrap()), ours);
        live["spec"]["selector"]["app.kubernetes.io/name"] = json!("hijacked");
        assert_ne!(fingerprint(&serde_json::from_value(live).unwrap()), ours);
    }
}
