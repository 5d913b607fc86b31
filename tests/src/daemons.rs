//! The embedded cluster's own daemons (`kube-apiserver`, `etcd`, `kube-controller-manager`, `kubelet` ...): killed, frozen, kept
//! away. Their supervisor starts again what ends, a second later, unless it is held back.

use crate::Result;
use crate::afterwards::afterwards;
use crate::node::Embedded;

/// The machine of the API server, etcd and the controllers.
pub const CONTROL_PLANE: &str = "control-plane";

impl Embedded {
    /// Kills a daemon of `machine`; it is started again.
    pub async fn kill_daemon(&self, machine: &str, daemon: &str) -> Result {
        self.signal_daemon(machine, daemon, "KILL").await
    }

    /// Sends `signal` (as `kill` names it) to a daemon of `machine`.
    pub async fn signal_daemon(&self, machine: &str, daemon: &str, signal: &str) -> Result {
        self.on_node(machine, &format!("kill -{signal} $(cat /run/{daemon}.pid)")).await.map(|_| ())
    }

    /// Runs `body` while these daemons of `machine` are away. Then they start again; when they are ready is another matter.
    pub async fn while_away(
        &self,
        machine: &str,
        daemons: &[&str],
        body: impl Future<Output = Result>,
    ) -> Result {
        let each =
            |command: &str| -> String { daemons.iter().map(|name| command.replace('@', name)).collect() };
        // One that has ended by itself is away as well.
        let away = format!(
            "mkdir -p /run/held; {}",
            each("touch /run/held/@; kill -KILL $(cat /run/@.pid) || true; ")
        );
        let away = async {
            self.on_node(machine, &away).await?;
            body.await
        };
        afterwards(away, async { self.on_node(machine, &each("rm -f /run/held/@; ")).await.map(|_| ()) })
            .await
    }

    /// Runs `body` while a daemon of `machine` is frozen: it answers nobody and hangs up on nobody.
    pub async fn while_daemon_frozen(
        &self,
        machine: &str,
        daemon: &str,
        body: impl Future<Output = Result>,
    ) -> Result {
        let frozen = async {
            self.signal_daemon(machine, daemon, "STOP").await?;
            body.await
        };
        afterwards(frozen, self.signal_daemon(machine, daemon, "CONT")).await
    }
}
