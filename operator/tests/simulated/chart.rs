//! The cluster before the operator starts: what the chart has made, and what Kubernetes has.

use serde_json::{Value, json};

use super::paths::{CA_MAP, CA_SECRET, COREDNS, LEASE, key, service};
use super::store::Store;

/// Without a line feed at its end, and with a carriage return: to be found again as it was.
pub(crate) const COREFILE: &str = ".:53 {\n    errors\r\n    forward . /etc/resolv.conf\n}";

/// Address of the cluster's DNS.
pub(crate) const DNS: &str = "10.96.0.10";

/// What the chart makes, the CA empty, and Kubernetes' DNS.
pub(crate) fn install(store: &mut Store) {
    let object = |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind, "metadata": {}});
    store.put(&key(LEASE), object("coordination.k8s.io/v1", "Lease"));
    store.put(&key(CA_SECRET), object("v1", "Secret"));
    store.put(&key(CA_MAP), object("v1", "ConfigMap"));
    let mut dns = object("v1", "ConfigMap");
    dns["data"] = json!({"Corefile": COREFILE});
    store.put(&key(COREDNS), dns);
    store.put(&key(&service("kube-system", "kube-dns")), a_service(DNS, &[53]));
}

/// A Service with an address and TCP ports.
pub(crate) fn a_service(address: &str, ports: &[u16]) -> Value {
    let ports = ports.iter().map(|port| json!({"name": format!("p{port}"), "port": port, "protocol": "TCP"}));
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {},
        "spec": {"type": "ClusterIP", "clusterIP": address, "ports": ports.collect::<Vec<_>>()}})
}

/// A MeshConfig.
pub(crate) fn a_mesh(spec: &Value) -> Value {
    json!({"apiVersion": "weft.mesh/v1alpha1", "kind": "MeshConfig", "metadata": {}, "spec": spec})
}
