//! The proxies: their DaemonSet, and the headless Service by which they are found. Pure. How a change of them goes from node
//! to node is decided in [`super::rollout`].

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Toleration;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use weft_config::contract;
use weft_crds::MeshConfig;

use super::rollout::record::{self, Record};
use super::rollout::{Decision, Live, Strategy};
use crate::index::proxy_pods::{RESTARTED_AT, TEMPLATE_LABEL, template_key};

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

/// What the pods of `mesh` are made from, with its own hash among its labels; `image` is used unless the mesh names one.
pub fn template(mesh: &MeshConfig, namespace: &str, image: &str) -> Value {
    let proxy = &mesh.spec.proxy;
    let grace = drain_seconds(mesh) + proxy.drain.offered_seconds;
    let tolerations = match &proxy.tolerations {
        Some(tolerations) => json!(tolerations.iter().map(without_empty).collect::<Vec<_>>()),
        // The pods of a tainted node need their proxy as well.
        None => json!([{"operator": "Exists"}]),
    };
    let mut template_labels = labels("proxy");
    template_labels["app.kubernetes.io/version"] = json!(env!("CARGO_PKG_VERSION"));
    let mut template = json!({
        "metadata": {
            "labels": template_labels,
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": contract::ADMIN_PORT.to_string()},
        },
        "spec": {
            "serviceAccountName": NAME,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "priorityClassName": said(&proxy.priority_class_name),
            "nodeSelector": proxy.node_selector,
            "tolerations": tolerations,
            "imagePullSecrets": proxy.image_pull_secrets,
            "terminationGracePeriodSeconds": grace,
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
    });
    let hash = digest(&SHA256, template.to_string().as_bytes());
    let hash: String = hash.as_ref()[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    template["metadata"]["labels"][TEMPLATE_LABEL] = json!(hash);
    template
}

/// Which template the pods should be made from: ours, and once more when somebody asked for a restart of `live`.
pub fn wanted(template: &Value, live: Option<&DaemonSet>) -> String {
    let hash = template["metadata"]["labels"][TEMPLATE_LABEL].as_str().unwrap_or_default();
    template_key(hash, live.and_then(restarted_at))
}

/// What the rollout has to know of the DaemonSet as it is.
pub fn live(daemonset: &DaemonSet) -> Live {
    let metadata = daemonset.spec.template.metadata.as_ref();
    let labels = metadata.and_then(|metadata| metadata.labels.as_ref());
    let hash = labels.and_then(|labels| labels.get(TEMPLATE_LABEL)).map(String::as_str);
    let strategy = daemonset.spec.update_strategy.as_ref();
    let nodes = daemonset.status.as_ref().map_or(0, |status| status.desired_number_scheduled);
    Live {
        holds: strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete"),
        template: template_key(hash.unwrap_or_default(), restarted_at(daemonset)),
        nodes: u32::try_from(nodes).unwrap_or(0),
        failed: Record::of(daemonset.metadata.annotations.as_ref()),
    }
}

fn restarted_at(daemonset: &DaemonSet) -> Option<&str> {
    let metadata = daemonset.spec.template.metadata.as_ref()?;
    metadata.annotations.as_ref()?.get(RESTARTED_AT).map(String::as_str)
}

/// The DaemonSet for `mesh`, whose pods are made from `template` in the way the rollout says.
pub fn daemonset(
    mesh: &MeshConfig,
    namespace: &str,
    template: &Value,
    rollout: &Decision,
    owner: &Value,
) -> Value {
    let observe = mesh.spec.proxy.rollout.observe_seconds;
    let failed = rollout.failed().and_then(|record| serde_json::to_string(record).ok());
    let annotations = failed.map(|failed| json!({record::ANNOTATION: failed}));
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": namespace, "labels": labels("proxy"), "annotations": annotations,
            "ownerReferences": [owner]},
        "spec": {
            "selector": {"matchLabels": selector()},
            // The new proxy of a node is ready before the old one goes.
            "updateStrategy": update_strategy(rollout.strategy),
            "minReadySeconds": (observe > 0).then_some(observe),
            "template": template,
        },
    })
}

fn update_strategy(strategy: Strategy) -> Value {
    match strategy {
        Strategy::Hold => json!({"type": "OnDelete"}),
        Strategy::Roll(surge) => {
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0}})
        }
    }
}

/// What the API server keeps of a text: an empty one is left out, and would be missed with every look.
fn said(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn without_empty(toleration: &Toleration) -> Toleration {
    let said = |text: &Option<String>| text.as_deref().and_then(said).map(ToOwned::to_owned);
    Toleration {
        key: said(&toleration.key),
        operator: said(&toleration.operator),
        value: said(&toleration.value),
        effect: said(&toleration.effect),
        toleration_seconds: toleration.toleration_seconds,
    }
}

/// How long a proxy may take to end once nobody is sent to it any more.
fn drain_seconds(mesh: &MeshConfig) -> u32 {
    let drain = &mesh.spec.proxy.drain;
    drain.accept_window_seconds + drain.deadline_seconds + GRACE
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
    // One that hangs waits for nobody.
    let alive = |period, failures| {
        let mut probe = probe("/livez", period, failures);
        probe["terminationGracePeriodSeconds"] = json!(drain_seconds(mesh));
        probe
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
            {"name": contract::OFFERED_SECONDS, "value": proxy.drain.offered_seconds.to_string()},
        ],
        "ports": [{"name": "metrics", "containerPort": contract::ADMIN_PORT, "protocol": "TCP"}],
        "readinessProbe": probe("/readyz", 1, 2),
        "livenessProbe": alive(5, 3),
        "startupProbe": alive(1, 30),
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

    use super::super::rollout::Stage;
    use super::*;

    fn owner() -> Value {
        json!({"kind": "MeshConfig", "name": "weft"})
    }

    fn decision(strategy: Strategy, stage: Stage) -> Decision {
        Decision { strategy, stage, served: 0 }
    }

    fn made(mesh: &MeshConfig, decision: &Decision) -> Value {
        let template = template(mesh, "weft-system", "weft-proxy:1");
        daemonset(mesh, "weft-system", &template, decision, &owner())
    }

    #[test]
    fn the_default_daemonset() {
        let mesh = MeshConfig::new("weft", MeshConfigSpec::default());
        insta::assert_yaml_snapshot!(made(&mesh, &decision(Strategy::Roll(1), Stage::NoRollout)));
    }

    #[test]
    fn the_service_of_the_proxies() {
        insta::assert_yaml_snapshot!(service("weft-system", &owner()));
    }

    #[test]
    fn what_the_mesh_config_says_wins() {
        let spec = r#"{"proxy": {"image": "mine:2", "tolerations": [], "drain": {"offeredSeconds": 4, "acceptWindowSeconds": 1, "deadlineSeconds": 2},
            "resources": {"limits": {"memory": "1Gi"}}, "nodeSelector": {"a": "b"}, "rollout": {"observeSeconds": 7}}}"#;
        let mesh = MeshConfig::new("weft", serde_json::from_str(spec).unwrap());
        let made = made(&mesh, &decision(Strategy::Roll(1), Stage::NoRollout));
        assert_eq!(made["spec"]["minReadySeconds"], 7);
        let pod = made["spec"]["template"]["spec"].clone();
        assert_eq!(pod["containers"][0]["image"], "mine:2");
        assert_eq!(pod["containers"][0]["resources"]["limits"]["memory"], "1Gi");
        assert_eq!(pod["tolerations"], json!([]));
        assert_eq!(pod["nodeSelector"]["a"], "b");
        assert_eq!(pod["terminationGracePeriodSeconds"], 12);
    }

    #[test]
    fn how_a_rollout_stands_is_in_the_daemonset() {
        let mesh = MeshConfig::new("weft", MeshConfigSpec::default());
        let record = Record {
            template: "t".into(),
            node: "n".into(),
            pod: "p".into(),
            image: "i".into(),
            reason: "r".into(),
            message: "m".into(),
        };
        let made = made(&mesh, &decision(Strategy::Hold, Stage::Paused(record.clone())));
        let mut object: DaemonSet = serde_json::from_value(made).unwrap();
        let found = live(&object);
        assert!(found.holds && found.failed == Some(record));
        let template = template(&mesh, "weft-system", "weft-proxy:1");
        assert_eq!(found.template, wanted(&template, Some(&object)));
        assert_eq!(wanted(&template, None).len(), 10);

        // kubectl rollout restart.
        let metadata = object.spec.template.metadata.as_mut().unwrap();
        metadata.annotations.get_or_insert_default().insert(RESTARTED_AT.into(), "now".into());
        assert_eq!(live(&object).template, format!("{}@now", found.template));
        assert_eq!(live(&object).template, wanted(&template, Some(&object)), "the restart is wanted, too");
    }

    #[test]
    fn another_template_has_another_hash() {
        let of = |image: &str| {
            let mesh = MeshConfig::new("weft", MeshConfigSpec::default());
            wanted(&template(&mesh, "weft-system", image), None)
        };
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
    }
}
