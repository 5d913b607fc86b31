//! What can break: one thing at a time, for a while or for good.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde::Serialize;

use crate::Result;
use crate::cluster::Cluster;
use crate::daemons::CONTROL_PLANE;
use crate::mesh;
use crate::node::{Embedded, container_id};
use crate::wait::{self, Seen, seconds};
use crate::workloads::is_ready;

/// How long an operator is frozen or cut off: longer than its term, so that another must take over.
const LOST: Duration = seconds(13);
/// How long a daemon is frozen.
const FROZEN: Duration = seconds(5);

/// Something that breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Fault {
    /// The leader's process is killed; the kubelet starts it again in the same pod.
    LeaderKilled,
    /// The leader's pod is deleted without grace, which still leaves it 2 s: the kubelet's least.
    LeaderGone,
    /// The leader's pod is deleted, and may give its Lease back.
    LeaderReplaced,
    /// The leader is frozen for longer than its term.
    LeaderFrozen,
    /// No packet reaches the leader for longer than its term.
    LeaderCutOff,
    /// All operators are deleted without grace.
    OperatorsGone,
    /// The API server is killed.
    ApiServerKilled,
    /// The API server is frozen for a while.
    ApiServerFrozen,
    /// etcd is killed.
    EtcdKilled,
    /// etcd is frozen for a while.
    EtcdFrozen,
    /// The process of a node's proxy is killed.
    ProxyKilled,
    /// The pod of a node's proxy is deleted, and may drain.
    ProxyReplaced,
    /// The process of a node's proxy is frozen for a while.
    ProxyFrozen,
    /// A `CoreDNS` pod is deleted without grace.
    DnsPodGone,
    /// The process of a `CoreDNS` pod is killed.
    DnsKilled,
    /// The process of a `CoreDNS` pod is frozen for a while.
    DnsFrozen,
    /// A node's kubelet is killed.
    KubeletKilled,
    /// A node's kubelet is frozen for a while.
    KubeletFrozen,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::LeaderKilled,
        Self::LeaderGone,
        Self::LeaderReplaced,
        Self::LeaderFrozen,
        Self::LeaderCutOff,
        Self::OperatorsGone,
        Self::ApiServerKilled,
        Self::ApiServerFrozen,
        Self::EtcdKilled,
        Self::EtcdFrozen,
        Self::ProxyKilled,
        Self::ProxyReplaced,
        Self::ProxyFrozen,
        Self::DnsPodGone,
        Self::DnsKilled,
        Self::DnsFrozen,
        Self::KubeletKilled,
        Self::KubeletFrozen,
    ];

    /// Whose process it strikes.
    pub fn process(self) -> &'static str {
        match self {
            Self::LeaderKilled
            | Self::LeaderGone
            | Self::LeaderReplaced
            | Self::LeaderFrozen
            | Self::LeaderCutOff
            | Self::OperatorsGone => "operator",
            Self::ApiServerKilled | Self::ApiServerFrozen => "API server",
            Self::EtcdKilled | Self::EtcdFrozen => "etcd",
            Self::ProxyKilled | Self::ProxyReplaced | Self::ProxyFrozen => "proxy",
            Self::DnsPodGone | Self::DnsKilled | Self::DnsFrozen => "CoreDNS",
            Self::KubeletKilled | Self::KubeletFrozen => "kubelet",
        }
    }

    /// Whether traffic through the mesh may suffer: whoever calls through a process that is killed is cut off, and who calls
    /// through one that is frozen waits.
    pub fn may_disturb_traffic(self) -> bool {
        matches!(self, Self::ProxyKilled | Self::ProxyFrozen)
    }

    /// Whether traffic of other nodes may suffer as well: a connection stays with the proxy that it was made to, which was another node's
    /// while the own one was replaced. Where that one is killed the next connection goes home.
    pub fn reaches_other_nodes(self) -> bool {
        self == Self::ProxyFrozen
    }

    /// Lets it happen, to `node` where it is a node's; returns when what lasts a while is over.
    pub async fn strike(self, cluster: &Cluster, embedded: &Embedded, node: &str) -> Result {
        match self {
            Self::LeaderKilled => {
                let process = embedded.process_of(&leader(cluster).await?).await?;
                embedded.signal(&process, "KILL").await
            }
            Self::LeaderGone => delete(cluster, &leader(cluster).await?, Some(0)).await,
            Self::LeaderReplaced => delete(cluster, &leader(cluster).await?, None).await,
            Self::LeaderFrozen => while_frozen(embedded, &leader(cluster).await?, passes(LOST)).await,
            Self::LeaderCutOff => cut_off_leader(cluster, embedded, passes(LOST)).await,
            Self::OperatorsGone => {
                for pod in mesh::operators(cluster).await? {
                    delete(cluster, &pod, Some(0)).await?;
                }
                Ok(())
            }
            Self::ApiServerKilled => embedded.kill_daemon(CONTROL_PLANE, "kube-apiserver").await,
            Self::ApiServerFrozen => {
                embedded.while_daemon_frozen(CONTROL_PLANE, "kube-apiserver", passes(FROZEN)).await
            }
            Self::EtcdKilled => embedded.kill_daemon(CONTROL_PLANE, "etcd").await,
            Self::EtcdFrozen => embedded.while_daemon_frozen(CONTROL_PLANE, "etcd", passes(FROZEN)).await,
            Self::ProxyKilled => kill_proxy(cluster, embedded, node).await,
            Self::ProxyReplaced => delete(cluster, &mesh::proxy_on(cluster, node).await?, None).await,
            Self::ProxyFrozen => {
                while_frozen(embedded, &mesh::proxy_on(cluster, node).await?, passes(FROZEN)).await
            }
            Self::DnsPodGone => delete(cluster, &dns_pod(cluster).await?, Some(0)).await,
            Self::DnsKilled => {
                let process = embedded.process_of(&dns_pod(cluster).await?).await?;
                embedded.signal(&process, "KILL").await
            }
            Self::DnsFrozen => while_frozen(embedded, &dns_pod(cluster).await?, passes(FROZEN)).await,
            Self::KubeletKilled => embedded.kill_daemon(node, "kubelet").await,
            Self::KubeletFrozen => embedded.while_daemon_frozen(node, "kubelet", passes(FROZEN)).await,
        }
    }
}

/// The pod that leads. Asked for until somebody does.
pub async fn leader(cluster: &Cluster) -> Result<Pod> {
    wait::until("an operator leads", seconds(40), async || {
        let holder = mesh::leader(cluster).await?;
        let pod = mesh::operators(cluster).await?.into_iter().find(|pod| pod.name_any() == holder);
        let there = pod.filter(|pod| container_id(pod).is_some());
        Ok(match there {
            Some(pod) => Seen::Done(pod),
            None => Seen::NotYet(format!("{holder} holds the Lease and does not run")),
        })
    })
    .await
}

/// A `CoreDNS` pod that is ready.
async fn dns_pod(cluster: &Cluster) -> Result<Pod> {
    let of_dns = ListParams::default().labels("k8s-app=kube-dns");
    wait::until("a DNS pod is ready", seconds(40), async || {
        let pods = cluster.api::<Pod>("kube-system").list(&of_dns).await?;
        let ready = pods.into_iter().find(|pod| is_ready(pod) && container_id(pod).is_some());
        Ok(ready.map_or_else(|| Seen::NotYet("none is".to_owned()), Seen::Done))
    })
    .await
}

/// Runs `body` while the process of `pod` is frozen.
pub async fn while_frozen(embedded: &Embedded, pod: &Pod, body: impl Future<Output = Result>) -> Result {
    let process = embedded.process_of(pod).await?;
    let frozen = async {
        embedded.signal(&process, "STOP").await?;
        body.await
    };
    crate::afterwards::afterwards(frozen, async {
        // A liveness probe may have ended it meanwhile.
        let _ = embedded.signal(&process, "CONT").await;
        Ok(())
    })
    .await
}

/// Runs `body` while the leader is dead: its process is killed, and its kubelet, which would start it again, is frozen.
pub async fn kill_leader(
    cluster: &Cluster,
    embedded: &Embedded,
    body: impl Future<Output = Result>,
) -> Result {
    let pod = leader(cluster).await?;
    let process = embedded.process_of(&pod).await?;
    let dead = async {
        embedded.signal(&process, "KILL").await?;
        body.await
    };
    embedded.while_daemon_frozen(&node_of(&pod)?, "kubelet", dead).await
}

/// Kills the processes of all operators; their kubelets start them again in the same pods.
pub async fn kill_operators(cluster: &Cluster, embedded: &Embedded) -> Result {
    let mut killed = 0;
    for pod in mesh::operators(cluster).await? {
        let Ok(process) = embedded.process_of(&pod).await else { continue };
        killed += usize::from(embedded.signal(&process, "KILL").await.is_ok());
    }
    // One may have ended by itself.
    if killed == 0 { Err("no operator ran that could be killed".into()) } else { Ok(()) }
}

fn node_of(pod: &Pod) -> Result<String> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Ok(node.ok_or_else(|| format!("{} has no node", pod.name_any()))?)
}

/// Runs `body` while no packet from another machine reaches the leader; what it sends still arrives.
pub async fn cut_off_leader(
    cluster: &Cluster,
    embedded: &Embedded,
    body: impl Future<Output = Result>,
) -> Result {
    let pod = leader(cluster).await?;
    let node = node_of(&pod)?;
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).ok_or("it has no address")?;
    embedded.while_dropping(&node, &[address], body).await
}

/// Kills the process of a node's proxy and waits until it runs again.
pub async fn kill_proxy(cluster: &Cluster, embedded: &Embedded, node: &str) -> Result {
    let pod = mesh::proxy_on(cluster, node).await?;
    let (name, before) = (pod.name_any(), container_id(&pod));
    embedded.signal(&embedded.process_of(&pod).await?, "KILL").await?;
    let pods = cluster.api::<Pod>(mesh::NAMESPACE);
    wait::until("the proxy runs again", seconds(60), async || {
        let pod = pods.get(&name).await?;
        let again = container_id(&pod).is_some_and(|id| Some(id) != before) && is_ready(&pod);
        Ok(Seen::when(again, (), || crate::workloads::phase(&pod)))
    })
    .await
}

async fn delete(cluster: &Cluster, pod: &Pod, grace: Option<u32>) -> Result {
    let params = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
    let namespace = pod.namespace().unwrap_or_default();
    cluster.api::<Pod>(&namespace).delete(&pod.name_any(), &params).await?;
    Ok(())
}

/// Returns when so much time has passed: what is broken has to be so for that long.
pub async fn passes(time: Duration) -> Result {
    let began = std::time::Instant::now();
    wait::until("the time passes", time + seconds(5), async || {
        Ok(Seen::when(began.elapsed() >= time, (), || format!("{:.1} s", began.elapsed().as_secs_f64())))
    })
    .await
}
