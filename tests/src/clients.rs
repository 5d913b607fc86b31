//! Client pods: where the requests of the tests come from, and as whom.

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::Result;
use crate::cluster::Cluster;
use crate::exec::PodRef;
use crate::wait::seconds;
use crate::workloads::{lab_image, pod_ready};

/// A client pod to be made.
#[derive(Clone)]
pub struct ClientPod {
    name: String,
    node: String,
    account: Option<String>,
    host_network: bool,
    nameserver: Option<String>,
    args: Vec<String>,
}

impl ClientPod {
    /// The pod `name` on `node`, which does nothing but run what it is told to.
    pub fn new(name: &str, node: &str) -> Self {
        let args = vec!["sleep".to_owned()];
        Self {
            name: name.to_owned(),
            node: node.to_owned(),
            account: None,
            host_network: false,
            nameserver: None,
            args,
        }
    }

    /// Runs as a `ServiceAccount` of its own name.
    #[must_use]
    pub fn with_account(self) -> Self {
        let name = self.name.clone();
        self.account(&name)
    }

    /// Runs as this `ServiceAccount`.
    #[must_use]
    pub fn account(mut self, name: &str) -> Self {
        self.account = Some(name.to_owned());
        self
    }

    /// Has the network of its node.
    #[must_use]
    pub fn on_the_hosts_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// Asks this DNS server instead of the cluster's.
    #[must_use]
    pub fn that_asks(mut self, nameserver: &str) -> Self {
        self.nameserver = Some(nameserver.to_owned());
        self
    }

    /// Does this as soon as it starts, and ends.
    #[must_use]
    pub fn that_runs(mut self, args: &[&str]) -> Self {
        self.args = args.iter().map(ToString::to_string).collect();
        self
    }

    fn manifest(&self) -> Value {
        let sysctls = if self.host_network {
            json!([])
        } else {
            // With the default range, half a minute of a connection per request at 500 a second uses up the ports.
            json!([{ "name": "net.ipv4.ip_local_port_range", "value": "1024 65535" }])
        };
        let dns_policy = match (&self.nameserver, self.host_network) {
            (Some(_), _) => "None",
            (None, true) => "ClusterFirstWithHostNet",
            (None, false) => "ClusterFirst",
        };
        let dns_config = self.nameserver.as_ref().map(|server| json!({ "nameservers": [server] }));
        json!({
            "metadata": { "name": self.name, "labels": { "app": "client" } },
            "spec": {
                "nodeName": self.node,
                "serviceAccountName": self.account,
                "automountServiceAccountToken": false,
                "hostNetwork": self.host_network,
                "dnsPolicy": dns_policy,
                "dnsConfig": dns_config,
                "terminationGracePeriodSeconds": 1,
                "restartPolicy": if self.args == ["sleep"] { "Always" } else { "Never" },
                "securityContext": { "sysctls": sysctls },
                "containers": [{ "name": "client", "image": lab_image(), "args": self.args }],
            },
        })
    }

    /// Makes it, and its account if there is none, without waiting.
    pub async fn create(&self, cluster: &Cluster, namespace: &str) -> Result<PodRef> {
        if let Some(account) = &self.account {
            create_account(cluster, namespace, account).await?;
        }
        let pod = serde_json::from_value(self.manifest())?;
        cluster.api::<Pod>(namespace).create(&PostParams::default(), &pod).await?;
        Ok(PodRef { namespace: namespace.to_owned(), name: self.name.clone() })
    }

    /// Makes it and waits until it is Ready.
    pub async fn start(&self, cluster: &Cluster, namespace: &str) -> Result<PodRef> {
        let pod = self.create(cluster, namespace).await?;
        pod_ready(cluster.client.clone(), &pod, seconds(60)).await?;
        Ok(pod)
    }
}

/// Makes the `ServiceAccount` `name` unless it is there.
pub async fn create_account(cluster: &Cluster, namespace: &str, name: &str) -> Result {
    let account: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    match cluster.api::<ServiceAccount>(namespace).create(&PostParams::default(), &account).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        created => Ok(created.map(|_| ())?),
    }
}
