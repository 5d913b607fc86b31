//! A user's servers, of every protocol. They end at once when told to, without a preStop hook: the mesh has to cope.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::Result;
use crate::clients::create_account;
use crate::cluster::Cluster;
use crate::workloads::{available, lab_image};

/// Bytes that the port `source` of [`Server::tcp`] sends.
pub const SOURCE_BYTES: u64 = 32 << 20;
/// Datagrams with which the port `stream` of [`Server::udp`] answers one.
pub const STREAM: u32 = 20;

/// A Deployment of servers.
#[derive(Clone)]
pub struct Server {
    /// Name of the Deployment, value of its pods' label `app`, and what its answers say.
    pub app: String,
    /// How many.
    pub replicas: u32,
    /// Ports it listens on, with their names.
    pub ports: Vec<(String, u16)>,
    /// Further labels of its pods.
    pub labels: Vec<(String, String)>,
    /// The `ServiceAccount` they run as, if not that of the namespace.
    account: Option<String>,
    speaks: Speaks,
}

#[derive(Clone)]
enum Speaks {
    Http,
    /// With the certificate and key of this Secret.
    Https(String),
    Grpc,
    Tcp,
    Udp,
}

impl Server {
    /// `replicas` servers on port 8080, named `http`.
    pub fn new(app: &str, replicas: u32) -> Self {
        Self::speaking(Speaks::Http, app, replicas, &[("http", 8080)])
    }

    /// The same, and on port 8443, named `https`, with the certificate and key of the TLS Secret `secret`.
    pub fn https(app: &str, replicas: u32, secret: &str) -> Self {
        Self::speaking(Speaks::Https(secret.to_owned()), app, replicas, &[("http", 8080), ("https", 8443)])
    }

    /// Servers of gRPC calls on port 50051, named `grpc`.
    pub fn grpc(app: &str, replicas: u32) -> Self {
        Self::speaking(Speaks::Grpc, app, replicas, &[("grpc", 50051)])
    }

    /// Servers on TCP: 9000 `echo` speaks first and echoes, 9001 `half-close` answers after its client's end, 9002 `sink`
    /// only reads, 9003 `source` only writes.
    pub fn tcp(app: &str, replicas: u32) -> Self {
        let ports = [("echo", 9000), ("half-close", 9001), ("sink", 9002), ("source", 9003)];
        Self::speaking(Speaks::Tcp, app, replicas, &ports)
    }

    /// Servers on UDP: 5300 `echo` answers with one datagram, 5301 `stream` with [`STREAM`].
    pub fn udp(app: &str, replicas: u32) -> Self {
        Self::speaking(Speaks::Udp, app, replicas, &[("echo", 5300), ("stream", 5301)])
    }

    fn speaking(speaks: Speaks, app: &str, replicas: u32, ports: &[(&str, u16)]) -> Self {
        let server = Self {
            app: app.to_owned(),
            replicas,
            ports: Vec::new(),
            labels: Vec::new(),
            account: None,
            speaks,
        };
        server.ports(ports)
    }

    /// With other ports; only HTTP servers listen on them.
    #[must_use]
    pub fn ports(mut self, ports: &[(&str, u16)]) -> Self {
        self.ports = ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect();
        self
    }

    /// With a label more on its pods.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// As a `ServiceAccount` of the name of the Deployment.
    #[must_use]
    pub fn with_account(self) -> Self {
        let name = self.app.clone();
        self.account(&name)
    }

    /// As this `ServiceAccount`, which is made if there is none.
    #[must_use]
    pub fn account(mut self, name: &str) -> Self {
        self.account = Some(name.to_owned());
        self
    }

    /// What the lab is told to do.
    fn args(&self) -> Vec<String> {
        let numbers: Vec<_> = self.ports.iter().map(|(_, port)| port.to_string()).collect();
        let text = match self.speaks {
            Speaks::Http => format!("serve --port {}", numbers.join(",")),
            Speaks::Https(_) => {
                "serve --port 8080 --tls-port 8443 --tls-cert /tls/tls.crt --tls-key /tls/tls.key".to_owned()
            }
            Speaks::Grpc => "grpc-serve --port 50051".to_owned(),
            Speaks::Tcp => {
                format!("tcp-serve --port 9000 --half-close 9001 --sink 9002 --source 9003={SOURCE_BYTES}")
            }
            Speaks::Udp => format!("udp-serve --port 5300 --stream-port 5301 --stream {STREAM}"),
        };
        text.split(' ').map(str::to_owned).collect()
    }

    fn readiness(&self) -> Value {
        let port = self.ports[0].1;
        match self.speaks {
            Speaks::Http | Speaks::Https(_) => {
                json!({ "httpGet": { "path": "/healthz", "port": port }, "periodSeconds": 1 })
            }
            Speaks::Grpc | Speaks::Tcp => json!({ "tcpSocket": { "port": port }, "periodSeconds": 1 }),
            // There is nothing a kubelet could ask.
            Speaks::Udp => Value::Null,
        }
    }

    fn container(&self) -> Value {
        let protocol = if matches!(self.speaks, Speaks::Udp) { "UDP" } else { "TCP" };
        let ports: Vec<_> = self
            .ports
            .iter()
            .map(|(name, port)| json!({ "name": name, "containerPort": port, "protocol": protocol }))
            .collect();
        let mounts = match self.speaks {
            Speaks::Https(_) => json!([{ "name": "tls", "mountPath": "/tls", "readOnly": true }]),
            _ => json!([]),
        };
        json!({
            "name": "server",
            "image": lab_image(),
            "args": self.args(),
            "env": [
                { "name": "APP", "value": self.app },
                { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
            ],
            "ports": ports,
            "volumeMounts": mounts,
            // Without them a kubelet notes later what it finds in the cgroup, and the pod changes once more.
            "resources": {
                "requests": { "cpu": "10m", "memory": "32Mi" },
                "limits": { "memory": "64Mi" },
            },
            "readinessProbe": self.readiness(),
        })
    }

    /// The Deployment.
    pub fn manifest(&self) -> Value {
        let mut labels = json!({ "app": self.app });
        for (key, value) in &self.labels {
            labels[key] = json!(value);
        }
        let volumes = match &self.speaks {
            Speaks::Https(secret) => json!([{ "name": "tls", "secret": { "secretName": secret } }]),
            _ => json!([]),
        };
        json!({
            "metadata": { "name": self.app },
            "spec": {
                "replicas": self.replicas,
                "selector": { "matchLabels": { "app": self.app } },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "topologySpreadConstraints": [{
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "DoNotSchedule",
                            "labelSelector": { "matchLabels": { "app": self.app } },
                        }],
                        "serviceAccountName": self.account,
                        "automountServiceAccountToken": false,
                        "containers": [self.container()],
                        "volumes": volumes,
                    },
                },
            },
        })
    }

    /// Creates it.
    pub async fn create(&self, cluster: &Cluster, namespace: &str) -> Result {
        if let Some(account) = &self.account {
            create_account(cluster, namespace, account).await?;
        }
        let api: Api<Deployment> = cluster.api(namespace);
        api.create(&PostParams::default(), &serde_json::from_value(self.manifest())?).await?;
        Ok(())
    }

    /// Creates it and waits until all are available.
    pub async fn deploy(&self, cluster: &Cluster, namespace: &str) -> Result {
        self.create(cluster, namespace).await?;
        available(cluster, namespace, &self.app).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_is_a_deployment_whose_ports_are_listened_on() {
        let servers = [
            Server::new("a", 1).ports(&[("web", 80), ("admin", 81)]),
            Server::https("a", 1, "a-tls"),
            Server::grpc("a", 1),
            Server::tcp("a", 2).label("side", "both"),
            Server::udp("a", 3),
        ];
        for server in servers {
            let object: Deployment = serde_json::from_value(server.manifest()).unwrap();
            let pod = object.spec.template.spec.unwrap();
            let container = pod.containers.into_iter().next().unwrap();
            let told = container.args.unwrap().join(" ");
            for port in container.ports.unwrap_or_default() {
                assert!(told.contains(&port.container_port.to_string()), "{told}: {port:?}");
            }
        }
    }
}
