//! How a change of the proxies goes from node to node: one first, then more at a time, and no further once a new one fails.
//! Pure.
//!
//! The DaemonSet's controller does the work: with a surge it starts the new pod of a node beside the old one, and takes the
//! old one away once the new one was ready for `minReadySeconds`. What is decided here is how many nodes it may work on, or
//! that it must not work at all: under [`Strategy::Hold`] (`OnDelete`) it starts nothing more, and of two pods on one node it
//! keeps the older. So a new pod that fails beside its predecessor goes, and one that fails after it stays alone.
//!
//! ```text
//! template changed ─▶ Hold, until all is quiet ─▶ Roll 1, 2, 4 … a quarter of the nodes ─▶ complete
//!                                                  │ a new pod fails (evidence)
//!                                                  ▼
//!                                                 Hold, with a record of why, until the template changes
//! ```
//!
//! [`evidence`] says when a pod has failed, [`memory`] what one leader remembers from look to look. That a rollout has failed
//! is written on the DaemonSet ([`record`]), so that the next leader knows it. See `docs/decisions/0017-paced-rollouts.md`.

pub mod evidence;
pub mod memory;
pub mod record;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use weft_crds::meshconfig::Rollout as Spec;

use record::Record;

/// One proxy pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Seen {
    /// Its name.
    pub name: Arc<str>,
    /// The node it is on, or meant for.
    pub node: Arc<str>,
    /// Its image.
    pub image: Arc<str>,
    /// When it was made.
    pub created: Timestamp,
    /// It is made from the template that is wanted.
    pub current: bool,
    /// It is on its way out.
    pub leaving: bool,
    /// It was seen beside an older one of another template: it came with this rollout, not with a new node, in the place of a
    /// lost pod, or before what is rolled back.
    pub surged: bool,
    /// It is ready.
    pub ready: bool,
    /// For how long it has been ready, or has not been, as far as this leader knows.
    pub so_for: Duration,
    /// Why it cannot run: a reason and a sentence.
    pub trouble: Option<(String, String)>,
    /// How often its container was started again.
    pub restarts: u32,
    /// For how long it has not said what it holds although it is ready.
    pub silent_for: Duration,
    /// The resources it refuses, and why; `None`: it has not said.
    pub rejections: Option<BTreeMap<String, String>>,
    /// What it has carried since this rollout began.
    pub carried: Carried,
    /// What the pod before it on its node had carried in its whole life.
    pub before: Carried,
    /// What that one refused.
    pub refused_before: BTreeSet<String>,
}

/// Requests, and how many of them failed by the proxy's own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// All of them.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
}

impl Carried {
    /// Of a thousand, how many failed.
    pub fn per_thousand(self) -> u64 {
        (self.failures.saturating_mul(1000)).checked_div(self.requests).unwrap_or(0)
    }

    /// What came after `earlier`. A proxy that was started again counts from nothing.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        if self.requests < earlier.requests || self.failures < earlier.failures {
            return self;
        }
        Self { requests: self.requests - earlier.requests, failures: self.failures - earlier.failures }
    }

    fn and(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, failures: self.failures + other.failures }
    }
}

/// The DaemonSet as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Live {
    /// Its controller is held.
    pub holds: bool,
    /// Which template it has.
    pub template: String,
    /// Nodes that should run a proxy.
    pub nodes: u32,
    /// Why a rollout was stopped.
    pub failed: Option<Record>,
}

/// How patient a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// For so long a new proxy is looked at beside the old one.
    pub observe: Duration,
    /// A new proxy that is not ready for so long has failed.
    pub patience: Duration,
}

impl From<&Spec> for Pace {
    fn from(spec: &Spec) -> Self {
        Self {
            observe: Duration::from_secs(spec.observe_seconds.into()),
            patience: Duration::from_secs(spec.patience_seconds.into()),
        }
    }
}

/// What the DaemonSet's controller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Nothing but keep a proxy on each node.
    Hold,
    /// Replace the proxies of so many nodes at a time.
    Roll(u32),
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// There are no proxies yet.
    NoRollout,
    /// Every proxy is of the wanted template.
    Complete,
    /// So many nodes of all have their new proxy.
    Rolling {
        /// Nodes whose new proxy is ready.
        updated: u32,
        /// Nodes that have a proxy.
        nodes: u32,
        /// Nodes that seem to be away.
        lost: u32,
    },
    /// A new proxy failed.
    Paused(Record),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the DaemonSet's controller may do.
    pub strategy: Strategy,
    /// How it stands; for [`Stage::Paused`] its record stays on the DaemonSet.
    pub stage: Stage,
    /// Nodes that have a proxy which is ready and stays.
    pub served: u32,
}

impl Decision {
    /// Why the rollout is stopped.
    pub fn failed(&self) -> Option<&Record> {
        match &self.stage {
            Stage::Paused(record) => Some(record),
            _ => None,
        }
    }

    /// Whether it goes on by itself, and something may come of looking. What is left may be nodes that are away.
    pub fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Rolling { updated, nodes, lost } if lost == 0 || updated + lost < nodes)
    }
}

/// What is to be done about `pods`, when `wanted` is the template they should be made from. `held_for`: for how long this
/// leader has held the controller for that template.
pub fn decide(live: Option<&Live>, wanted: &str, pods: &[Seen], pace: Pace, held_for: Duration) -> Decision {
    let nodes = Nodes::of(pods, pace);
    let (served, rolling) = (nodes.served, nodes.rolling());
    let decision = |strategy, stage| Decision { strategy, stage, served };
    let Some(live) = live else { return decision(Strategy::Roll(1), Stage::NoRollout) };
    if live.template != wanted {
        // It begins with the next look: what an earlier rollout had under way goes first.
        return decision(Strategy::Hold, rolling);
    }
    if pods.is_empty() {
        return decision(Strategy::Roll(1), Stage::NoRollout);
    }
    if nodes.old.is_empty() {
        // Also when it was stopped, and what was to be kept has gone in other ways.
        return decision(Strategy::Roll(1), Stage::Complete);
    }
    if let Some(failed) = live.failed.as_ref().filter(|failed| failed.template == wanted) {
        return decision(Strategy::Hold, Stage::Paused(failed.clone()));
    }
    if let Some(failed) = evidence::of(wanted, pods, pace) {
        return decision(Strategy::Hold, Stage::Paused(failed));
    }
    // A flapping proxy is never quiet, and may be what is to be replaced.
    if live.holds && !is_quiet(pods, pace) && held_for < 2 * pace.observe {
        return decision(Strategy::Hold, rolling);
    }
    // The controller takes a node that is away for one that is being worked on.
    decision(Strategy::Roll(surge(nodes.done, live.nodes) + nodes.lost), rolling)
}

/// What is to be done while nobody can tell whether a pod that seems to have failed is there: nothing more is begun, and nothing
/// is stopped for good.
pub fn hold(pods: &[Seen], pace: Pace) -> Decision {
    let nodes = Nodes::of(pods, pace);
    Decision { strategy: Strategy::Hold, stage: nodes.rolling(), served: nodes.served }
}

/// On how many nodes at a time, after `done` went well: as many again, in powers of two, at most a quarter of all.
fn surge(done: u32, nodes: u32) -> u32 {
    let doubled = 1_u32 << done.max(1).ilog2();
    doubled.min(nodes.div_ceil(4)).max(1)
}

/// Whether no node has two proxies, and none became ready only now. The controller takes an old pod that has not been ready
/// for `minReadySeconds` for one that is away, and replaces it at once, however many there are.
fn is_quiet(pods: &[Seen], pace: Pace) -> bool {
    let mut nodes = BTreeSet::new();
    pods.iter()
        .filter(|pod| !pod.leaving)
        .all(|pod| nodes.insert(&*pod.node) && (!pod.ready || pod.so_for >= pace.observe))
}

/// The nodes, counted.
struct Nodes<'a> {
    /// Nodes with a proxy of another template that stays.
    old: BTreeSet<&'a str>,
    /// Nodes with any proxy.
    all: u32,
    /// Nodes with a new proxy alone that has proven itself, beside an old one or before all of these were made.
    done: u32,
    /// Nodes with a new proxy that is ready.
    updated: u32,
    /// Nodes with a proxy that is ready and stays.
    served: u32,
    /// Nodes on which for long neither the old proxy is ready nor the new one, and nobody says why.
    lost: u32,
}

impl<'a> Nodes<'a> {
    fn of(pods: &'a [Seen], pace: Pace) -> Self {
        let staying = || pods.iter().filter(|pod| !pod.leaving);
        let old: BTreeSet<_> = staying().filter(|pod| !pod.current).map(|pod| &*pod.node).collect();
        let count = |which: &dyn Fn(&Seen) -> bool| {
            let nodes: BTreeSet<_> = staying().filter(|pod| which(pod)).map(|pod| &*pod.node).collect();
            u32::try_from(nodes.len()).unwrap_or(u32::MAX)
        };
        let alone = |pod: &Seen| pod.current && pod.ready && !old.contains(&*pod.node);
        let (all, served, updated) = (count(&|_| true), count(&|pod| pod.ready), count(&alone));
        // On a node that came new nobody has compared it with anything.
        let first_old = staying().filter(|pod| !pod.current).map(|pod| pod.created).min();
        let was_before = |pod: &Seen| first_old.is_some_and(|first| pod.created < first);
        let done = count(&|pod| alone(pod) && pod.so_for >= pace.observe && (pod.surged || was_before(pod)));
        let ready: BTreeSet<_> = staying().filter(|pod| pod.ready).map(|pod| &*pod.node).collect();
        let silent = |pod: &Seen| pod.current && pod.trouble.is_none() && pod.so_for >= pace.patience;
        let lost = count(&|pod| silent(pod) && old.contains(&*pod.node) && !ready.contains(&*pod.node));
        Self { old, all, done, updated, served, lost }
    }

    fn rolling(&self) -> Stage {
        Stage::Rolling { updated: self.updated, nodes: self.all, lost: self.lost }
    }
}
