//! A long time in which nothing breaks: what operators and proxies hold, sample by sample, and how fast traffic is at the beginning
//! and at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Serialize;

use crate::Result;
use crate::campaign::{Coming, outages_of};
use crate::faults::passes;
use crate::invariants;
use crate::mesh;
use crate::node::{Embedded, Process};
use crate::observers::{LoadInAPod, ProbeInAPod};
use crate::stage::Stage;
use crate::wait::seconds;

/// How often a sample is taken.
const EVERY: Duration = seconds(15);
/// How long latency is measured at the beginning and at the end, at most; a quarter of the whole in a short form.
const WINDOW: Duration = seconds(60);
/// So many samples there are of each process, however short it is.
const FEW: usize = 3;
/// How long there must be samples before growth is more than noise.
const TREND: f64 = 1800.0;
/// How much memory may grow in an hour, in MiB: a day of it is what an operator's limit leaves room for.
const GROWTH: f64 = 2.0;
/// How many descriptors.
const DESCRIPTORS: f64 = 10.0;
/// What comes before counts for no slope: caches fill, allocators settle.
const WARM_UP: f64 = 0.2;

/// How long it goes on.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Decides what comes and goes.
    pub seed: u64,
    /// How long.
    pub lasts: Duration,
}

/// What a process held over time.
#[derive(Debug, Clone, Serialize)]
pub struct Held {
    /// Its pod.
    pub pod: String,
    /// Seconds, bytes of memory, open descriptors.
    pub samples: Vec<(f64, u64, u64)>,
}

impl Held {
    /// How much memory grows in an hour, in MiB, by least squares, and how many descriptors.
    fn slopes(&self) -> (f64, f64) {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a trend"
        )]
        let of = |value: fn(&(f64, u64, u64)) -> u64| {
            let skipped = (self.samples.len() as f64 * WARM_UP) as usize;
            let points: Vec<_> = self.samples[skipped..]
                .iter()
                .map(|sample| (sample.0 / 3600.0, value(sample) as f64))
                .collect();
            slope(&points)
        };
        (of(|sample| sample.1) / f64::from(1 << 20), of(|sample| sample.2))
    }

    /// Where it holds ever more, if that was looked at for long enough.
    fn leak(&self) -> Option<String> {
        let (memory, descriptors) = self.slopes();
        let last = self.samples.last()?.0;
        let leaks = last >= TREND && (memory > GROWTH || descriptors > DESCRIPTORS);
        leaks.then(|| {
            format!("{} grows by {memory:.2} MiB and {descriptors:.1} descriptors an hour", self.pod)
        })
    }
}

/// The slope of the line that fits best.
fn slope(points: &[(f64, f64)]) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a number of samples")]
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let under: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if under > 0.0 { over / under } else { 0.0 }
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// How long it was, in seconds.
    pub seconds: u64,
    /// What each process held.
    pub held: Vec<Held>,
    /// p99 at the beginning and at the end, in milliseconds, by mode.
    pub p99_ms: BTreeMap<String, (f64, f64)>,
    /// Requests sent and failed.
    pub requests: (u64, u64),
    /// Times without an answer.
    pub outages: usize,
}

impl Outcome {
    /// What must not be. Whether the end is slower than the beginning is for a person to say, who knows what else the machine did.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong: Vec<_> = self.held.iter().filter_map(Held::leak).collect();
        if self.requests.1 > 0 || self.outages > 0 {
            wrong.push(format!(
                "{} requests failed, {} times without an answer",
                self.requests.1, self.outages
            ));
        }
        wrong
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = "| process | MiB: first | last | grows an hour | descriptors: first | last | grow an hour |\n|---|---|---|---|---|---|---|\n".to_owned();
        let mib = |bytes: u64| bytes >> 20;
        for held in &self.held {
            let (Some(first), Some(last)) = (held.samples.first(), held.samples.last()) else { continue };
            let (memory, descriptors) = held.slopes();
            text += &format!(
                "| {} | {} | {} | {memory:.2} | {} | {} | {descriptors:.1} |\n",
                held.pod,
                mib(first.1),
                mib(last.1),
                first.2,
                last.2
            );
        }
        for (mode, (first, last)) in &self.p99_ms {
            text += &format!("\np99 {mode}: {first:.1} ms at first, {last:.1} ms at the end");
        }
        text + &format!("\n\n{} s; {} requests, {} failed\n", self.seconds, self.requests.0, self.requests.1)
    }
}

/// Runs it on `stage`.
pub async fn run(stage: &Stage, embedded: &Embedded, options: Options) -> Result<Outcome> {
    let began = Instant::now();
    let mut probes = Vec::new();
    for node in &stage.cluster.nodes {
        probes.push((
            node,
            ProbeInAPod::start(stage, &format!("probe-{node}"), node, &stage.url("alpha", "/")).await?,
        ));
    }
    let mut held: Vec<(Process, Held)> = Vec::new();
    let pods = mesh::operators(&stage.cluster).await?.into_iter().chain(mesh::proxies(&stage.cluster).await?);
    for pod in pods.collect::<Vec<Pod>>() {
        held.push((embedded.process_of(&pod).await?, Held { pod: pod.name_any(), samples: Vec::new() }));
    }
    let window = WINDOW.min(options.lasts / 4);
    let first = loaded(stage, embedded, "first", window).await?;
    let (mut rng, mut coming) = (Rng::with_seed(options.seed), Coming::default());
    let enough = |held: &[(Process, Held)]| held.iter().all(|(_, held)| held.samples.len() >= FEW);
    while began.elapsed() + window < options.lasts || !enough(&held) {
        coming.or_going(stage, rng.usize(..Coming::AT_MOST)).await?;
        for (process, held) in &mut held {
            let (memory, descriptors) = embedded.holds(process).await?;
            held.samples.push((began.elapsed().as_secs_f64(), memory, descriptors));
        }
        passes(EVERY.min(options.lasts / 20)).await?;
    }
    let last = loaded(stage, embedded, "last", window).await?;
    invariants::hold(stage, &crate::campaign::APPS, seconds(60)).await?;

    let mut outages = 0;
    for (node, probe) in probes {
        outages += outages_of(node, &probe.stop(stage, embedded).await?, &[]).len();
    }
    let p99_ms = first.iter().zip(&last).map(|(a, b)| (a.mode.clone(), (a.p99_ms, b.p99_ms))).collect();
    let sum = |count: fn(&crate::traffic::LoadReport) -> u64| first.iter().chain(&last).map(count).sum();
    let requests = (sum(|report| report.sent), sum(|report| report.failed));
    let held = held.into_iter().map(|(_, held)| held).collect();
    Ok(Outcome { seconds: began.elapsed().as_secs(), held, p99_ms, requests, outages })
}

/// Load for a while.
async fn loaded(
    stage: &Stage,
    embedded: &Embedded,
    name: &str,
    window: Duration,
) -> Result<Vec<crate::traffic::LoadReport>> {
    let node = &stage.cluster.nodes[0];
    let load =
        LoadInAPod::start(stage, &format!("load-{name}"), node, &stage.url("beta", "/"), "beta", 100).await?;
    passes(window).await?;
    load.reports(stage, embedded).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_line_that_fits_best() {
        assert!((slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) - 2.0).abs() < 1e-9);
        assert!(slope(&[(0.0, 4.0), (1.0, 4.0)]).abs() < 1e-9);
        assert!(slope(&[(1.0, 4.0)]).abs() < 1e-9 && slope(&[(1.0, 1.0), (1.0, 2.0)]).abs() < 1e-9);
    }

    #[test]
    fn growth_counts_after_the_warm_up() {
        let grows = |sample: u64| if sample < 20 { sample << 20 } else { 20 << 20 };
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let samples = (0..100).map(|n| (n as f64 * 36.0, grows(n), 10 + n)).collect();
        let held = Held { pod: "p".into(), samples };
        let (memory, descriptors) = held.slopes();
        assert!(memory.abs() < 1e-9, "{memory}");
        assert!((descriptors - 100.0).abs() < 1e-6, "{descriptors}");
        assert!(held.leak().is_some_and(|leak| leak.contains("100.0 descriptors")), "{:?}", held.leak());
        let short = Held { samples: held.samples[..40].to_vec(), ..held };
        assert_eq!(short.leak(), None, "too short to tell");
    }
}
