//! Faults one after the other under light load, in an order that a seed decides, and what must hold after each and over all.
//! The short form is a test, the long one `make chaos`; without faults it is `make soak`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, PostParams};
use serde::Serialize;
use serde_json::json;

use crate::Result;
use crate::cluster::Cluster;
use crate::faults::Fault;
use crate::invariants;
use crate::node::Embedded;
use crate::observers::{LoadInAPod, ProbeInAPod};
use crate::probe::{Change, now_us};
use crate::servers::Server;
use crate::services::UserService;
use crate::stage::Stage;
use crate::wait::{self, Seen, seconds};
use crate::workloads::service_manifest;

/// How long the mesh may take to be as it should be after a fault.
const RECOVERY: Duration = seconds(90);
/// How long a node's names may be without an answer when its proxy was killed: its kubelet starts it again, later each time.
const LONGEST_OUTAGE_MS: f64 = 15_000.0;
/// Requests a second of a node's load, both modes together.
const MESH_RPS: u32 = 20;
/// Services that are each served by an app of their own name.
pub const APPS: [&str; 3] = ["alpha", "beta", "gamma"];
/// How a campaign runs.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Decides the order.
    pub seed: u64,
    /// No fault begins after so long, once every process has had one.
    pub lasts: Duration,
}

/// One fault and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// What broke.
    pub fault: Fault,
    /// The node it struck, where it is one's.
    pub node: String,
    /// Seconds from the beginning of the campaign.
    pub at_s: f64,
    /// Seconds from its end until everything held again.
    pub recovered_s: f64,
    #[serde(skip)]
    from_us: u64,
    #[serde(skip)]
    until_us: u64,
}

/// A time in which mesh names were not answered on a node.
#[derive(Debug, Clone, Serialize)]
pub struct Outage {
    /// The node.
    pub node: String,
    /// How long, in milliseconds.
    pub ms: f64,
    /// What was answered instead.
    pub why: String,
    /// The fault that it may come of.
    pub during: Option<String>,
}

/// What came of a campaign.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The faults, in order.
    pub steps: Vec<Step>,
    /// Requests to plain names, and those that failed.
    pub plain: (u64, u64),
    /// Requests to mesh names, and those that failed, by node.
    pub mesh: BTreeMap<String, (u64, u64)>,
    /// When mesh names were not answered.
    pub outages: Vec<Outage>,
    /// Writes of operators.
    pub writes: usize,
    /// Those made by who did not lead.
    pub out_of_turn: Vec<String>,
}

impl Outcome {
    /// What must not be.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = self.out_of_turn.clone();
        if self.plain.1 > 0 || self.plain.0 == 0 {
            wrong.push(format!("{} of {} requests to plain names failed", self.plain.1, self.plain.0));
        }
        let unexplained =
            self.outages.iter().filter(|outage| outage.during.is_none() || outage.ms > LONGEST_OUTAGE_MS);
        wrong.extend(unexplained.map(|outage| format!("{outage:?}")));
        for (node, (sent, failed)) in &self.mesh {
            let of_node = self.outages.iter().filter(|outage| outage.node == *node);
            // What was under way when the proxy was killed fails as well.
            let explained: f64 =
                of_node.map(|outage| outage.ms / 1000.0 * f64::from(MESH_RPS) + f64::from(MESH_RPS)).sum();
            #[allow(clippy::cast_precision_loss, reason = "some thousands")]
            if *sent == 0 || *failed as f64 > explained {
                wrong.push(format!("{failed} of {sent} requests to mesh names failed on {node}"));
            }
        }
        wrong
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut faults: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for step in &self.steps {
            faults.entry(format!("{:?}", step.fault)).or_default().push(step.recovered_s);
        }
        let mut text =
            "| fault | times | recovered after, s: median | worst |\n|---|---|---|---|\n".to_owned();
        for (fault, mut times) in faults {
            times.sort_by(f64::total_cmp);
            let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
            text += &format!("| {fault} | {} | {median:.1} | {worst:.1} |\n", times.len());
        }
        let outages: Vec<_> =
            self.outages.iter().map(|outage| format!("{:.0} ms on {}", outage.ms, outage.node)).collect();
        let mesh = |count: fn(&(u64, u64)) -> u64| self.mesh.values().map(count).sum::<u64>();
        text + &format!(
            "\nseed {}; plain names: {} requests, {} failed; mesh names: {} requests, {} failed, outages: {}; {} writes of operators, {} out of turn\n",
            self.seed,
            self.plain.0,
            self.plain.1,
            mesh(|(sent, _)| *sent),
            mesh(|(_, failed)| *failed),
            if outages.is_empty() { "none".to_owned() } else { outages.join(", ") },
            self.writes,
            self.out_of_turn.len(),
        )
    }
}

/// A stage with an app for each of [`APPS`], and one for plain names that nothing happens to.
pub async fn stage(cluster: &Cluster, namespace: &str) -> Result<Stage> {
    let mut servers: Vec<_> = APPS.iter().map(|app| Server::new(app, 1)).collect();
    servers.push(Server::new("plain", 2));
    let services: Vec<_> = servers.iter().map(|server| UserService::http(&server.app, &server.app)).collect();
    let stage = Stage::new(cluster, namespace, &servers, &services).await?;
    invariants::hold(&stage, &APPS, RECOVERY).await?;
    Ok(stage)
}

/// Runs one on `stage`.
pub async fn run(stage: &Stage, embedded: &Embedded, options: Options) -> Result<Outcome> {
    let cluster = &stage.cluster;
    let began_at = std::time::SystemTime::now();
    let plain = format!("http://plain.{}.svc.cluster.local/", stage.ns);
    let plain = LoadInAPod::start(stage, "plain", &cluster.nodes[0], &plain, "plain", 20).await?;
    let mut loads = Vec::new();
    let mut probes = Vec::new();
    for node in &cluster.nodes {
        let (name, url) = (format!("load-{node}"), stage.url("beta", "/"));
        loads.push((node, LoadInAPod::start(stage, &name, node, &url, "beta", MESH_RPS / 2).await?));
        probes.push((
            node,
            ProbeInAPod::start(stage, &format!("probe-{node}"), node, &stage.url("alpha", "/")).await?,
        ));
    }
    let steps = Box::pin(strike_all(stage, embedded, options)).await?;

    let mut mesh = BTreeMap::new();
    for (node, load) in loads {
        mesh.insert(node.clone(), load.stop(stage, embedded).await?);
    }
    let plain = plain.stop(stage, embedded).await?;
    let mut outages = Vec::new();
    for (node, probe) in probes {
        outages.extend(outages_of(node, &probe.stop(stage, embedded).await?, &steps));
    }
    let (writes, out_of_turn) = embedded.two_writers(began_at).await?;
    Ok(Outcome { seed: options.seed, steps, plain, mesh, outages, writes, out_of_turn })
}

async fn strike_all(stage: &Stage, embedded: &Embedded, options: Options) -> Result<Vec<Step>> {
    let cluster = &stage.cluster;
    let mut rng = Rng::with_seed(options.seed);
    let (began, mut steps) = (Instant::now(), Vec::new());
    let (mut coming, mut struck) = (Coming::default(), BTreeSet::new());
    let all: BTreeSet<_> = Fault::ALL.map(Fault::process).into();
    'rounds: loop {
        let mut faults = Fault::ALL;
        rng.shuffle(&mut faults);
        for fault in faults {
            if began.elapsed() >= options.lasts && struck == all {
                break 'rounds;
            }
            struck.insert(fault.process());
            let node = cluster.nodes[rng.usize(..cluster.nodes.len())].clone();
            let (before, after) = (rng.usize(..Coming::AT_MOST), rng.usize(..Coming::AT_MOST));
            coming.or_going(stage, before).await?;
            let (at, from_us) = (began.elapsed(), now_us()?);
            Box::pin(fault.strike(cluster, embedded, &node))
                .await
                .map_err(|error| format!("{fault:?} on {node}: {error}"))?;
            let over = Instant::now();
            coming.or_going(stage, after).await?;
            invariants::hold(stage, &APPS, RECOVERY)
                .await
                .map_err(|error| format!("after {fault:?} on {node}, seed {}: {error}", options.seed))?;
            let recovered = over.elapsed();
            eprintln!(
                "  {:>6.1} s  {fault:?} on {node}: as it should be after {:.1} s",
                at.as_secs_f64(),
                recovered.as_secs_f64()
            );
            steps.push(Step {
                fault,
                node,
                at_s: at.as_secs_f64(),
                recovered_s: recovered.as_secs_f64(),
                from_us,
                until_us: now_us()?,
            });
        }
    }
    Ok(steps)
}

/// Services that come and go, so that there is always something to write.
#[derive(Default)]
pub(crate) struct Coming([bool; Self::AT_MOST]);

impl Coming {
    /// How many there are at most.
    pub(crate) const AT_MOST: usize = 4;

    /// One comes, or goes if it is there; as soon as the API server takes it.
    pub(crate) async fn or_going(&mut self, stage: &Stage, number: usize) -> Result {
        let name = format!("sometimes-{number}");
        let api = stage.cluster.api::<Service>(&stage.ns);
        let service = service_manifest(&name, &json!({ "app": "gamma" }), &[("http", 80, json!("http"))]);
        let service: Service = serde_json::from_value(service)?;
        let there = self.0[number];
        wait::until("the API server takes a change", RECOVERY, async || {
            let done = if there {
                api.delete(&name, &DeleteParams::default()).await.map(|_| ())
            } else {
                api.create(&PostParams::default(), &service).await.map(|_| ())
            };
            match done {
                // The answer to an earlier try was lost.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                done => done?,
            }
            Ok(Seen::Done(()))
        })
        .await?;
        self.0[number] = !there;
        Ok(())
    }
}

/// Each time without a good answer, with the fault that explains it.
pub(crate) fn outages_of(node: &str, changes: &[Change], steps: &[Step]) -> Vec<Outage> {
    let mut outages = Vec::new();
    for (at, change) in changes.iter().enumerate() {
        let Some(why) = change.error() else { continue };
        if at > 0 && changes[at - 1].error().is_some() {
            // The same outage, in other words.
            continue;
        }
        let over = changes[at + 1..].iter().find(|later| later.error().is_none());
        let until = over.map_or(change.answered_us, |later| later.answered_us);
        let explains = |step: &&Step| {
            step.fault.may_disturb_traffic()
                && (step.node == node || step.fault.reaches_other_nodes())
                && step.from_us <= change.answered_us
                && change.sent_us <= step.until_us
        };
        let during = steps.iter().find(explains).map(|step| format!("{:?}", step.fault));
        #[allow(clippy::cast_precision_loss, reason = "milliseconds")]
        let ms = until.saturating_sub(change.sent_us) as f64 / 1000.0;
        outages.push(Outage { node: node.to_owned(), ms, why: why.to_owned(), during });
    }
    outages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::changes;

    fn step(fault: Fault, node: &str, from_us: u64, until_us: u64) -> Step {
        let (at_s, recovered_s) = (0.0, 0.0);
        Step { fault, node: node.into(), at_s, recovered_s, from_us, until_us }
    }

    #[test]
    fn an_outage_is_explained_by_a_killed_proxy_of_its_node_and_by_nothing_else() {
        let changes = changes(
            r#"{"before_us":0,"sent_us":1,"answered_us":2,"answer":{"pod":"a"}}
{"before_us":900,"sent_us":1000,"answered_us":1001,"answer":{"error":"refused"}}
{"before_us":1900,"sent_us":2000,"answered_us":2001,"answer":{"error":"reset"}}
{"before_us":4900,"sent_us":5000,"answered_us":5001,"answer":{"pod":"a"}}
"#,
        );
        let killed = |node: &str| step(Fault::ProxyKilled, node, 500, 9000);
        for (steps, explained) in [
            (vec![killed("node1")], true),
            (vec![killed("node2")], false),
            (vec![step(Fault::ProxyKilled, "node1", 2000, 9000)], false),
            (vec![step(Fault::LeaderGone, "node1", 500, 9000)], false),
            (vec![step(Fault::ProxyFrozen, "node2", 500, 9000)], true),
        ] {
            let outages = outages_of("node1", &changes, &steps);
            assert_eq!((outages.len(), outages[0].during.is_some()), (1, explained), "{outages:?}");
            assert!((outages[0].ms - 4.001).abs() < 0.001);
        }
    }

    #[test]
    fn failures_without_an_outage_on_their_node_are_wrong() {
        let outcome = |failed: u64, ms: f64| Outcome {
            seed: 1,
            steps: vec![],
            plain: (10, 0),
            mesh: [("node1".to_owned(), (1000, failed))].into(),
            outages: vec![Outage {
                node: "node2".into(),
                ms,
                why: "refused".into(),
                during: Some("ProxyKilled".into()),
            }],
            writes: 1,
            out_of_turn: vec![],
        };
        assert_eq!(outcome(0, 1000.0).wrong(), Vec::<String>::new());
        assert!(outcome(1, 1000.0).wrong()[0].contains("1 of 1000 requests"));
        assert!(outcome(0, 16_000.0).wrong()[0].contains("16000"), "too long for any fault");
    }

    #[test]
    fn a_seed_decides_the_order() {
        let order = |seed| {
            let mut faults = Fault::ALL;
            Rng::with_seed(seed).shuffle(&mut faults);
            faults
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
    }
}
