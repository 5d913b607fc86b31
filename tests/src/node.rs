//! What only the embedded cluster allows: signals to processes on its nodes, their memory, packets that are dropped, nodes
//! without power; and beside it the audit log ([`crate::audit`]) and the daemons ([`crate::daemons`]). `tests/run-e2e.sh` says in
//! `WEFT_CLUSTER_STATE` where that cluster lives; on any other cluster the tests that need this say so and prove nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::Result;
use crate::afterwards::afterwards;
pub use crate::audit::Write;

/// The embedded cluster.
pub struct Embedded {
    pub(crate) state: PathBuf,
}

/// A container's process as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    node: String,
    pid: u32,
}

impl Embedded {
    /// The embedded cluster, if that is the one under test; otherwise says that `what` is not proven here.
    pub fn needed_for(what: &str) -> Option<Self> {
        let state = Self::state();
        if state.is_none() {
            eprintln!("NOT PROVEN on this cluster, only on the embedded one: {what}");
        }
        state.map(|state| Self { state })
    }

    /// Whether it is the one under test.
    pub(crate) fn is_under_test() -> bool {
        Self::state().is_some()
    }

    fn state() -> Option<PathBuf> {
        std::env::var_os("WEFT_CLUSTER_STATE").map(PathBuf::from)
    }

    pub(crate) async fn on_node(&self, node: &str, script: &str) -> Result<String> {
        let node_sh = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/node.sh");
        let output = tokio::process::Command::new(node_sh)
            .env("STATE", &self.state)
            .args([node, "sh", "-ec", script])
            .output()
            .await?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("{node}: {script}: {errors}").into())
    }

    /// The first process of the first container of `pod`.
    pub async fn process_of(&self, pod: &Pod) -> Result<Process> {
        let id = container_id(pod).ok_or_else(|| format!("{} has no running container", pod.name_any()))?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).ok_or("the pod has no node")?;
        let found = self
            .on_node(&node, &format!("ctr -n k8s.io tasks ls | awk '$1 == \"{id}\" {{ print $2 }}'"))
            .await?;
        let pid = found.trim().parse().map_err(|_| format!("{}: no task {id} on {node}", pod.name_any()))?;
        Ok(Process { node, pid })
    }

    /// Sends `signal` (as `kill` names it) to `process`.
    pub async fn signal(&self, process: &Process, signal: &str) -> Result {
        self.on_node(&process.node, &format!("kill -{signal} {}", process.pid)).await.map(|_| ())
    }

    /// When `process` was started, since the epoch, to the hundredth of a second.
    pub async fn started(&self, process: &Process) -> Result<Duration> {
        // Field 22 of stat, counted after the command's closing parenthesis, is in hundredths of a second since boot.
        let script =
            format!("sed 's/.*) //' /proc/{}/stat | cut -d' ' -f20; cut -d' ' -f1 /proc/uptime", process.pid);
        let text = self.on_node(&process.node, &script).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut lines = text.lines();
        let started = Duration::from_millis(lines.next().ok_or("no start time")?.parse::<u64>()? * 10);
        let uptime = Duration::from_secs_f64(lines.next().ok_or("no uptime")?.parse()?);
        Ok(now - (uptime - started))
    }

    /// Begins to note anew how much memory `process` holds at most; how many bytes it holds now.
    pub async fn watch_memory(&self, process: &Process) -> Result<u64> {
        self.on_node(&process.node, &format!("echo 5 >/proc/{}/clear_refs", process.pid)).await?;
        self.memory(process, "VmRSS").await
    }

    /// The most bytes of memory `process` has held since [`Self::watch_memory`].
    pub async fn most_memory(&self, process: &Process) -> Result<u64> {
        self.memory(process, "VmHWM").await
    }

    /// Bytes of memory and open descriptors of `process` now.
    pub async fn holds(&self, process: &Process) -> Result<(u64, u64)> {
        let descriptors =
            self.on_node(&process.node, &format!("ls /proc/{}/fd | wc -l", process.pid)).await?;
        Ok((self.memory(process, "VmRSS").await?, descriptors.trim().parse()?))
    }

    /// Bytes of memory of `process` that `/proc` has under `field`: `VmRSS` now, `VmHWM` at most since it began.
    pub async fn memory(&self, process: &Process, field: &str) -> Result<u64> {
        let script = format!("awk '$1 == \"{field}:\" {{ print $2 }}' /proc/{}/status", process.pid);
        Ok(self.on_node(&process.node, &script).await?.trim().parse::<u64>()? * 1024)
    }

    /// CPU time that `process` has used.
    pub async fn cpu(&self, process: &Process) -> Result<Duration> {
        let script =
            format!("cat /proc/{}/task/*/schedstat | awk '{{ ns += $1 }} END {{ print ns }}'", process.pid);
        // awk prints large numbers as it likes.
        let nanoseconds: f64 = self.on_node(&process.node, &script).await?.trim().parse()?;
        Ok(Duration::from_secs_f64(nanoseconds / 1e9))
    }

    /// CPU time that the processes of a machine (a node or `control-plane`) have used, by the name of their command.
    pub async fn cpu_by_command(&self, machine: &str) -> Result<BTreeMap<String, Duration>> {
        let stats = self.on_node(machine, "cat /proc/[0-9]*/stat 2>/dev/null || true").await?;
        let mut all: BTreeMap<String, Duration> = BTreeMap::new();
        for (command, cpu) in stats.lines().filter_map(command_and_cpu) {
            *all.entry(command.to_owned()).or_default() += cpu;
        }
        Ok(all)
    }

    /// Runs `body` while `node` drops every packet that it would pass on to one of `addresses`, without a word to its sender.
    pub async fn while_dropping(
        &self,
        node: &str,
        addresses: &[String],
        body: impl Future<Output = Result>,
    ) -> Result {
        let script = format!(
            "nft add table inet weft-e2e; \
             nft add chain inet weft-e2e forward '{{ type filter hook forward priority -10; }}'; \
             nft add rule inet weft-e2e forward ip daddr '{{ {} }}' drop",
            addresses.join(", ")
        );
        let dropping = async {
            self.on_node(node, &script).await?;
            body.await
        };
        afterwards(dropping, async { self.on_node(node, "nft delete table inet weft-e2e").await.map(|_| ()) })
            .await
    }

    /// Runs `body` while `node` has no power. Then it starts again; when it is Ready is another matter.
    pub async fn while_off(&self, node: &str, body: impl Future<Output = Result>) -> Result {
        let off = async {
            self.power("off", node).await?;
            body.await
        };
        afterwards(off, self.power("on", node)).await
    }

    async fn power(&self, switch: &str, node: &str) -> Result {
        let power_sh = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/power.sh");
        let output = tokio::process::Command::new(power_sh)
            .env("STATE", &self.state)
            .args([switch, node])
            .output()
            .await?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("power {switch} {node}: {}", String::from_utf8_lossy(&output.stderr)).into())
    }

    /// Lets the next pod on `node` have the first address that is free, which is that of a pod just gone: without this an
    /// address is given again only when the whole range was.
    pub async fn give_the_first_free_address(&self, node: &str) -> Result {
        self.on_node(node, "rm -f /run/cni-ipam/pods/last_reserved_ip.*").await.map(|_| ())
    }
}

/// From a line of `/proc/PID/stat`: the command in parentheses, fields 14 to 17 in hundredths of a second: its own time, and that of its
/// children that have ended (kube-proxy has nft write its rules).
fn command_and_cpu(stat: &str) -> Option<(&str, Duration)> {
    let (command, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let ticks = rest.split_whitespace().skip(11).take(4).map(str::parse::<u64>);
    let ticks = ticks.collect::<std::result::Result<Vec<_>, _>>().ok().filter(|ticks| ticks.len() == 4)?;
    Some((command, Duration::from_millis(ticks.iter().sum::<u64>() * 10)))
}

/// Id of the running first container.
pub fn container_id(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    status.state.as_ref()?.running.as_ref()?;
    status.container_id.as_ref()?.strip_prefix("containerd://").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_of_a_process_is_behind_its_command_whatever_that_is() {
        let line = "7 (a (b) c) S 1 7 7 0 -1 4194560 10 20 30 40 100 50 30 20 20 0 9 0 100 0 0";
        assert_eq!(command_and_cpu(line), Some(("a (b) c", Duration::from_secs(2))));
        assert_eq!(command_and_cpu("nothing"), None);
    }
}
