//! Requests, load and DNS queries from client pods, and what came of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::Result;
use crate::cluster::Cluster;
use crate::exec::{self, PodRef, Session};
use crate::wait::{self, Seen, seconds};

/// The header that tells which node's proxy carried a request.
pub use weft_config::contract::NODE_HEADER;

/// One answer to `weft-lab get`.
#[derive(Debug, Clone, Deserialize)]
pub struct Answer {
    /// Absent when there was no answer.
    pub status: Option<u16>,
    /// What went wrong when there was none, or when its body broke off.
    pub error: Option<String>,
    /// The version of HTTP it came in.
    #[serde(default)]
    pub version: String,
    /// Headers of the answer.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What the server told, or the text of the body.
    #[serde(default)]
    pub body: Value,
    /// Length of the body.
    #[serde(default)]
    pub bytes: u64,
    /// A hash of it.
    #[serde(default)]
    pub digest: String,
    /// Trailers behind it.
    #[serde(default)]
    pub trailers: BTreeMap<String, String>,
    /// Statuses of the 1xx answers before this one.
    #[serde(default)]
    pub informational: Vec<u16>,
    /// How long it took, its body included.
    pub ms: f64,
}

impl Answer {
    /// A string of what the server told.
    pub fn told(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    /// A header of the request as the server received it.
    pub fn received(&self, header: &str) -> Option<&str> {
        self.body["headers"][header].as_str()
    }

    /// The node whose proxy carried it.
    pub fn node(&self) -> Option<&str> {
        self.headers.get(NODE_HEADER).map(String::as_str)
    }

    /// The pod that answered, unless a proxy did so itself.
    pub fn pod(&self) -> Option<&str> {
        self.headers.get("x-lab-pod").map(String::as_str)
    }

    /// The text of the body.
    pub fn text(&self) -> &str {
        self.body.as_str().unwrap_or_default()
    }

    /// Fails unless the answer is a 200 of `app`.
    pub fn assert_from(&self, app: &str) {
        assert!(self.status == Some(200) && self.told("app") == app, "not a 200 of {app}: {self:?}");
    }
}

/// Asks `url` from `client` with further arguments of `weft-lab get`.
pub async fn get(cluster: &Cluster, client: &PodRef, url: &str, args: &[&str]) -> Result<Vec<Answer>> {
    let command = [&["/weft-lab", "get", url], args].concat();
    let text = exec::run(cluster, client, &command).await?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Asks until the answer is as wanted.
pub async fn get_until(
    cluster: &Cluster,
    client: &PodRef,
    url: &str,
    what: &str,
    deadline: Duration,
    wanted: impl Fn(&Answer) -> bool,
) -> Result<Answer> {
    wait::until(&format!("{url} from {}: {what}", client.name), deadline, async || {
        let answer = get(cluster, client, url, &[]).await?.pop().ok_or("no answer")?;
        let state = format!("{answer:?}");
        Ok(Seen::when(wanted(&answer), answer, || state))
    })
    .await
}

/// Asks until `app` answers.
pub async fn reaches(
    cluster: &Cluster,
    client: &PodRef,
    url: &str,
    app: &str,
    deadline: Duration,
) -> Result<Answer> {
    get_until(cluster, client, url, &format!("{app} answers"), deadline, |answer| {
        answer.status == Some(200) && answer.told("app") == app
    })
    .await
}

/// What came of one mode of load.
#[derive(Debug, Deserialize)]
pub struct LoadReport {
    /// `new-connection`, `keep-alive` or `h2c`.
    pub mode: String,
    /// Requests sent.
    pub sent: u64,
    /// Requests without a good answer.
    pub failed: u64,
    /// Requests that left late.
    pub late: u64,
    /// Up to 20 failures in full.
    pub failures: Vec<Value>,
    /// When the last request should have left that had no good answer, by the load's clock.
    pub last_failure_s: Option<f64>,
    /// Good answers by app.
    #[serde(default)]
    pub apps: BTreeMap<String, u64>,
    /// Good answers by pod.
    pub pods: BTreeMap<String, u64>,
    /// Good answers by node whose proxy carried them.
    pub weft_nodes: BTreeMap<String, u64>,
    /// Failed resolutions of the name, asked for each second: when, and how.
    pub dns_failures: Vec<String>,
    /// Median from the time the request should have left.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// Load from one client pod.
pub struct Load(Session);

/// Which connections the load uses.
#[derive(Clone, Copy)]
pub enum Mode {
    /// One for each request.
    NewConnection,
    /// Kept.
    KeepAlive,
    /// Both side by side, each at the full rate.
    Both,
    /// And kept ones of HTTP/2 in the clear.
    All,
}

impl Load {
    /// Starts `rps` requests a second (in each mode) to `url`, where `app` should answer; `a,b`: one of several.
    pub async fn start(
        cluster: &Cluster,
        client: &PodRef,
        url: &str,
        app: &str,
        rps: u32,
        mode: Mode,
    ) -> Result<Self> {
        let mode = match mode {
            Mode::NewConnection => "new-connection",
            Mode::KeepAlive => "keep-alive",
            Mode::Both => "both",
            Mode::All => "all",
        };
        let rps = rps.to_string();
        let command =
            ["/weft-lab", "load", url, "--expect", app, "--rps", &rps, "--mode", mode, "--until-stdin"];
        let command: Vec<_> = command.iter().map(ToString::to_string).collect();
        let load = Self(exec::start(cluster, client, &command).await?);
        // It flows before anything is done to what carries it.
        load.let_run(seconds(2)).await?;
        Ok(load)
    }

    /// Waits until `so_long` of load has passed, by the load's own clock.
    pub async fn let_run(&self, so_long: Duration) -> Result {
        let goal = self.clock() + so_long.as_secs_f64();
        wait::until("load flows", so_long + seconds(10), async || {
            Ok(Seen::when(self.clock() >= goal, (), || self.0.told()))
        })
        .await
    }

    /// The load's own clock.
    pub fn clock(&self) -> f64 {
        clock(&self.0.told())
    }

    /// Ends it; one report for each mode.
    pub async fn stop(mut self) -> Result<Vec<LoadReport>> {
        self.0.tell_to_end().await?;
        Ok(serde_json::from_str(&self.0.output().await?)?)
    }

    /// Ends it and fails unless at least `least` requests were sent in each mode and all of them were answered well.
    pub async fn stop_without_failures(self, least: u64) -> Result<Vec<LoadReport>> {
        let reports = self.stop().await?;
        for report in &reports {
            eprintln!(
                "  {}: {} sent, {} failed, {} late; p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; through {:?}; by {:?}",
                report.mode,
                report.sent,
                report.failed,
                report.late,
                report.p50_ms,
                report.p99_ms,
                report.max_ms,
                report.weft_nodes,
                report.pods,
            );
        }
        for report in &reports {
            let told: Vec<_> = report.failures.iter().map(|failure| format!("\n  {failure}")).collect();
            assert!(
                report.failed == 0 && report.dns_failures.is_empty(),
                "{} of {} requests failed in mode {}, {} resolutions failed {:?}:{}",
                report.failed,
                report.sent,
                report.mode,
                report.dns_failures.len(),
                report.dns_failures,
                told.concat()
            );
            assert!(report.sent >= least, "only {} requests were sent, {least} were meant", report.sent);
        }
        Ok(reports)
    }
}

/// The time in the last line of progress: `  12.0 s  keep-alive: 6000 done, 0 failed, 0 late`.
pub(crate) fn clock(told: &str) -> f64 {
    let last = told.lines().rev().find_map(|line| line.trim_start().split_once(" s  "));
    last.and_then(|(seconds, _)| seconds.parse().ok()).unwrap_or(0.0)
}

/// What came of DNS queries.
#[derive(Debug, Deserialize)]
pub struct DnsReport {
    /// Queries sent.
    pub sent: u64,
    /// Queries without the expected answer.
    pub failed: u64,
    /// Up to 20 failures in full.
    pub failures: Vec<Value>,
}

/// DNS queries from one client pod.
pub struct Queries(Session);

impl Queries {
    /// Starts `qps` queries a second for `names` in turn; `name=NXDOMAIN` where that is right.
    pub async fn start(cluster: &Cluster, client: &PodRef, qps: u32, names: &[&str]) -> Result<Self> {
        let qps = qps.to_string();
        let command = [&["/weft-lab", "dns", "--qps", &qps, "--until-stdin"], names].concat();
        let command: Vec<_> = command.iter().map(ToString::to_string).collect();
        Ok(Self(exec::start(cluster, client, &command).await?))
    }

    /// Ends it.
    pub async fn stop(mut self) -> Result<DnsReport> {
        self.0.tell_to_end().await?;
        Ok(serde_json::from_str(&self.0.output().await?)?)
    }
}
