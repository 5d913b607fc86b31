//! The proxies: their DaemonSet, and the headless Service by which they are found. Pure.

use serde_json::{Value, json};
use weft_config::contract;
use weft_crds::MeshConfig;

/// Name of the DaemonSet, its Service and its `ServiceAccount`.
pub const NAME: &str = contract::PROXY_SERVICE_ACCOUNT;

/// Seconds a proxy has beyond its drain to end before it is killed.
const GRACE: u32 = 5;

/// The labels by which the proxies' pods are selected. Never to be changed: a DaemonSet's selector cannot be.
pub fn selector() -> Value {
    json!({"app.kubernetes.io/name": "weft-proxy", "app.kubernetes.io/part-of": "weft"})
}

/// Labels of the objects around the proxies.
pub fn labels(component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "weft-proxy",
        "app.kubernetes.io/part-of": "weft",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "weft-operator",
    })
}

/// The headless Service that finds every proxy, ready or not.
pub fn service(namespace: &str, owner: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": namespace, "labels": labels("proxy"), "ownerReferences": [owner]},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": selector(),
            "ports": [{"name": "metrics", "port": contract::ADMIN_PORT, "targetPort": contract::ADMIN_PORT, "protocol": "TCP"}],
        },
    })
}

/// The DaemonSet for `mesh`; `image` is used unless the mesh names one.
pub fn daemonset(mesh: &MeshConfig, namespace: &str, image: &str, owner: &Value) -> Value {
    let proxy = &mesh.spec.proxy;
    let drain = &proxy.drain;
    let tolerations = match &proxy.tolerations {
        Some(tolerations) => json!(tolerations),
        // The pods of a tainted node need their proxy as well.
        None => json!([{"operator": "Exists"}]),
    };
    let mut template_labels = labels("proxy");
    template_labels["app.kubernetes.io/version"] = json!(env!("CARGO_PKG_VERSION"));
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": namespace, "labels": labels("proxy"), "ownerReferences": [owner]},
        "spec": {
            "selector": {"matchLabels": selector()},
            // The new proxy of a node is ready before the old one goes.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {
                    "labels": template_labels,
                    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": contract::ADMIN_PORT.to_string()},
                },
                "spec": {
                    "serviceAccountName": NAME,
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "priorityClassName": proxy.priority_class_name,
                    "nodeSelector": proxy.node_selector,
                    "tolerations": tolerations,
                    "imagePullSecrets": proxy.image_pull_secrets,
                    "terminationGracePeriodSeconds": drain.accept_window_seconds + drain.deadline_seconds + GRACE,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "fsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container(mesh, namespace, image)],
                    "volumes": volumes(),
                },
            },
        },
    })
}

fn container(mesh: &MeshConfig, namespace: &str, image: &str) -> Value {
    let proxy = &mesh.spec.proxy;
    let url = format!("https://{}.{namespace}.svc:{}", contract::OPERATOR_SERVICE, contract::CONFIG_PORT);
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": contract::ADMIN_PORT},
            "periodSeconds": period,
            "timeoutSeconds": 2,
            "failureThreshold": failures,
        })
    };
    json!({
        "name": "proxy",
        "image": proxy.image.as_deref().unwrap_or(image),
        "imagePullPolicy": proxy.image_pull_policy,
        "args": [
            format!("--operator-url={url}"),
            format!("--worker-threads={}", proxy.worker_threads),
            format!("--log-level={}", proxy.log_level.as_str()),
            format!("--log-format={}", proxy.log_format.as_str()),
            format!("--access-log={}", proxy.access_log.as_str()),
            format!("--accept-window-seconds={}", proxy.drain.accept_window_seconds),
            format!("--drain-deadline-seconds={}", proxy.drain.deadline_seconds),
        ],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        ],
        "ports": [{"name": "metrics", "containerPort": contract::ADMIN_PORT, "protocol": "TCP"}],
        "readinessProbe": probe("/readyz", 1, 2),
        "livenessProbe": probe("/livez", 5, 3),
        "startupProbe": probe("/livez", 1, 30),
        "resources": proxy.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "token", "mountPath": parent(contract::TOKEN_PATH), "readOnly": true},
            {"name": "ca", "mountPath": parent(contract::CA_PATH), "readOnly": true},
            {"name": "snapshot", "mountPath": contract::SNAPSHOT_DIR},
        ],
    })
}

fn volumes() -> Value {
    json!([
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {
            "audience": contract::TOKEN_AUDIENCE, "expirationSeconds": 3600, "path": "token",
        }}]}},
        // Optional: a proxy must start, and serve from its snapshot, while the ConfigMap is away.
        {"name": "ca", "configMap": {"name": crate::serve::ca::CA_NAME, "optional": true}},
        {"name": "snapshot", "emptyDir": {"sizeLimit": "256Mi"}},
    ])
}

/// The directory a file is in: volumes are mounted whole.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(directory, _)| directory)
}

#[cfg(test)]
mod tests {
    use weft_crds::MeshConfigSpec;

    use super::*;

    fn owner() -> Value {
        json!({"kind": "MeshConfig", "name": "weft"})
    }

    #[test]
    fn the_default_daemonset() {
        let mesh = MeshConfig::new("weft", MeshConfigSpec::default());
        insta::assert_yaml_snapshot!(daemonset(&mesh, "weft-system", "weft-proxy:1", &owner()));
    }

    #[test]
    fn the_service_of_the_proxies() {
        insta::assert_yaml_snapshot!(service("weft-system", &owner()));
    }

    #[test]
    fn what_the_mesh_config_says_wins() {
        let spec = r#"{"proxy": {"image": "mine:2", "tolerations": [], "drain": {"acceptWindowSeconds": 1, "deadlineSeconds": 2},
            "resources": {"limits": {"memory": "1Gi"}}, "nodeSelector": {"a": "b"}}}"#;
        let mesh = MeshConfig::new("weft", serde_json::from_str(spec).unwrap());
        let pod =
            daemonset(&mesh, "weft-system", "weft-proxy:1", &owner())["spec"]["template"]["spec"].clone();
        assert_eq!(pod["containers"][0]["image"], "mine:2");
        assert_eq!(pod["containers"][0]["resources"]["limits"]["memory"], "1Gi");
        assert_eq!(pod["tolerations"], json!([]));
        assert_eq!(pod["nodeSelector"]["a"], "b");
        assert_eq!(pod["terminationGracePeriodSeconds"], 8);
    }
}
