//! Load and probes that need no API server while they run: they are told what to do when their pod begins, and their results are
//! in its log. For tests that take the API server away.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;

use crate::Result;
use crate::clients::ClientPod;
use crate::exec::PodRef;
use crate::node::Embedded;
use crate::probe::{Change, changes};
use crate::stage::Stage;
use crate::traffic::LoadReport;
use crate::wait::{self, Seen, seconds};

/// They end by themselves after a day, whatever becomes of the test.
const A_DAY: &str = "86400";

/// What runs in a pod of its own.
struct InAPod {
    pod: PodRef,
    object: Pod,
}

impl InAPod {
    async fn start(stage: &Stage, name: &str, node: &str, args: &[&str]) -> Result<Self> {
        let pod = ClientPod::new(name, node).that_runs(args).start(&stage.cluster, &stage.ns).await?;
        let object = stage.cluster.api::<Pod>(&stage.ns).get(&pod.name).await?;
        Ok(Self { pod, object })
    }

    /// What it printed so far.
    async fn log(&self, stage: &Stage) -> Result<String> {
        Ok(stage.cluster.api::<Pod>(&stage.ns).logs(&self.pod.name, &LogParams::default()).await?)
    }

    /// Tells it to end; what it printed.
    async fn stop(&self, stage: &Stage, embedded: &Embedded) -> Result<String> {
        embedded.signal(&embedded.process_of(&self.object).await?, "TERM").await?;
        let pods = stage.cluster.api::<Pod>(&stage.ns);
        wait::until(&format!("{} has ended", self.pod.name), seconds(30), async || {
            let phase = pods.get(&self.pod.name).await?.status.and_then(|status| status.phase);
            let ended = phase.as_deref() == Some("Succeeded");
            Ok(Seen::when(ended, (), || format!("{phase:?}")))
        })
        .await?;
        self.log(stage).await
    }
}

/// Load, half of it on new connections, half on kept ones.
pub struct LoadInAPod(InAPod);

impl LoadInAPod {
    /// Starts `rps` requests a second in each mode from a pod `name` on `node`; `app` should answer.
    pub async fn start(
        stage: &Stage,
        name: &str,
        node: &str,
        url: &str,
        app: &str,
        rps: u32,
    ) -> Result<Self> {
        let rps = rps.to_string();
        let args = ["load", url, "--expect", app, "--rps", &rps, "--mode", "both", "--seconds", A_DAY];
        let load = InAPod::start(stage, name, node, &args).await?;
        // It flows before anything is done to what carries it.
        wait::until("load flows", seconds(30), async || {
            let log = load.log(stage).await?;
            Ok(Seen::when(log.contains(" done, "), (), || log.clone()))
        })
        .await?;
        Ok(Self(load))
    }

    /// Ends it; one report for each mode.
    pub async fn reports(self, stage: &Stage, embedded: &Embedded) -> Result<Vec<LoadReport>> {
        let log = self.0.stop(stage, embedded).await?;
        let reports =
            log.lines().rev().find(|line| line.starts_with("[{")).ok_or("the load has no report")?;
        let reports: Vec<LoadReport> = serde_json::from_str(reports)?;
        for report in &reports {
            for failure in &report.failures {
                eprintln!("  {} {}: {failure}", self.0.pod.name, report.mode);
            }
        }
        Ok(reports)
    }

    /// Ends it; requests sent and failed.
    pub async fn stop(self, stage: &Stage, embedded: &Embedded) -> Result<(u64, u64)> {
        let reports = self.reports(stage, embedded).await?;
        let sum = |count: fn(&LoadReport) -> u64| reports.iter().map(count).sum();
        Ok((sum(|report| report.sent), sum(|report| report.failed)))
    }
}

/// A prober.
pub struct ProbeInAPod(InAPod);

impl ProbeInAPod {
    /// Asks `url` every 20 ms from a pod `name` on `node`.
    pub async fn start(stage: &Stage, name: &str, node: &str, url: &str) -> Result<Self> {
        let args = ["probe", url, "--every-ms", "20", "--seconds", A_DAY];
        let probe = Self(InAPod::start(stage, name, node, &args).await?);
        wait::until("the probe is answered", seconds(30), async || {
            let changes = probe.changes(stage).await?;
            let answered = changes.last().is_some_and(|change| change.error().is_none());
            Ok(Seen::when(answered, (), || format!("{changes:?}")))
        })
        .await?;
        Ok(probe)
    }

    /// The changes of the answer so far.
    pub async fn changes(&self, stage: &Stage) -> Result<Vec<Change>> {
        Ok(changes(&self.0.log(stage).await?))
    }

    /// Waits until the answer is a good one.
    pub async fn is_answered(&self, stage: &Stage, deadline: Duration) -> Result {
        wait::until("the probe is answered", deadline, async || {
            let last = self.changes(stage).await?.pop();
            let answered = last.as_ref().is_some_and(|change| change.error().is_none());
            Ok(Seen::when(answered, (), || format!("{last:?}")))
        })
        .await
    }

    /// Ends it; all changes.
    pub async fn stop(self, stage: &Stage, embedded: &Embedded) -> Result<Vec<Change>> {
        Ok(changes(&self.0.stop(stage, embedded).await?))
    }
}
