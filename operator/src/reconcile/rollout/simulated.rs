//! Rollouts on a cluster that is simulated second by second: the DaemonSet's controller as Kubernetes' source has it, proxies
//! good and bad in every way, nodes that come, are restarted and lose their pods, leaders that change.

mod pod;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use tokio::time::Instant;

use super::memory::Memory;
use super::record::Record;
use super::{Decision, Live, Pace, Stage, Strategy, decide};
use pod::{BAD, Kind, Pod};

const PACE: Pace = Pace { observe: Duration::from_secs(5), patience: Duration::from_secs(20) };
/// Seconds a proxy drains.
const DRAIN: u64 = 7;
/// Seconds without a leader when one is lost: the longest that was seen.
const GAP: u64 = 13;
/// Nodes that the controller takes by itself in a gap, and until a silent proxy is found out by the next leader: for each one a
/// new pod has to start, and to be ready for as long as it is looked at.
const TAKEN_IN_A_GAP: usize = 2;
/// Seconds until a rollout over all nodes must have ended: each wave takes less than ten.
const ENOUGH: u64 = 400;

/// The cluster, and the leader that looks at it.
struct World {
    began: Instant,
    now: u64,
    nodes: usize,
    pods: Vec<Pod>,
    made: u64,
    template: String,
    kinds: BTreeMap<String, Kind>,
    strategy: Strategy,
    failed: Option<Record>,
    wanted: String,
    memory: Memory,
    last: Option<Decision>,
    /// Nodes to which something else happened: what becomes of them is not the rollout's doing.
    struck: Vec<usize>,
    /// The one that is gone for good; its pods stay.
    lost: Option<usize>,
    /// When the leader began to lead, or will.
    leads_since: u64,
    /// How often there was none.
    gaps: usize,
}

impl World {
    /// `nodes` nodes whose proxies have been good for long.
    fn new(nodes: usize) -> Self {
        let mut world = Self {
            began: Instant::now(),
            now: 0,
            nodes,
            pods: Vec::new(),
            made: 0,
            template: "t0".into(),
            kinds: BTreeMap::from([("t0".to_owned(), Kind::Good)]),
            strategy: Strategy::Roll(1),
            failed: None,
            wanted: "t0".into(),
            memory: Memory::default(),
            last: None,
            struck: Vec::new(),
            lost: None,
            leads_since: 0,
            gaps: 0,
        };
        world.run(30);
        world
    }

    fn apply(&mut self, template: &str, kind: Kind) {
        self.kinds.insert(template.to_owned(), kind);
        template.clone_into(&mut self.wanted);
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now += 1;
        let now = self.now;
        let lost = self.lost;
        let is_lost = |pod: &Pod| lost == Some(pod.node);
        // Where no kubelet is nothing ends.
        self.pods.retain(|pod| is_lost(pod) || pod.leaving_since.is_none_or(|since| now - since < DRAIN));
        for pod in &mut self.pods {
            if is_lost(pod) {
                pod.away_until = now + 1;
            }
            pod.tick(now);
        }
        if now >= self.leads_since {
            self.look();
        }
        self.control();
    }

    /// The leader's part.
    fn look(&mut self) {
        let now = self.began + Duration::from_secs(self.now);
        let facts: Vec<_> = self.pods.iter().map(|pod| pod.facts(self.now)).collect();
        let told: Vec<_> = self.pods.iter().map(Pod::told).collect();
        let live = Live {
            holds: self.strategy == Strategy::Hold,
            template: self.template.clone(),
            nodes: u32::try_from(self.nodes).unwrap(),
            failed: self.failed.clone(),
        };
        let seen = self.memory.look(now, &self.wanted, Some(&live), &facts, &told);
        let decision = decide(Some(&live), &self.wanted, &seen, PACE, self.memory.held_for(now));
        self.strategy = decision.strategy;
        self.failed = decision.failed().cloned();
        self.template.clone_from(&self.wanted);
        self.last = Some(decision);
    }

    fn staying(&self, node: usize) -> Vec<Pod> {
        self.pods.iter().filter(|pod| pod.node == node && pod.leaving_since.is_none()).cloned().collect()
    }

    fn create(&mut self, node: usize) {
        self.made += 1;
        self.pods.push(Pod {
            uid: self.made,
            node,
            template: self.template.clone(),
            kind: self.kinds[&self.template],
            born: self.now,
            ready_since: None,
            leaving_since: None,
            restarts: 0,
            away_until: 0,
            carried: (0, 0),
        });
    }

    fn delete(&mut self, uid: u64) {
        let now = self.now;
        let pod = self.pods.iter_mut().find(|pod| pod.uid == uid).unwrap();
        (pod.leaving_since, pod.ready_since) = (Some(now), None);
    }

    /// The controller's part: first that each node has its pods, then the update.
    fn control(&mut self) {
        let min_ready = PACE.observe.as_secs();
        let surge = match self.strategy {
            Strategy::Hold => 0,
            Strategy::Roll(surge) => usize::try_from(surge).unwrap(),
        };
        for node in 0..self.nodes {
            let staying = self.staying(node);
            let exists = self.pods.iter().any(|pod| pod.node == node);
            if !exists || (surge > 0 && staying.is_empty()) {
                self.create(node);
                continue;
            }
            if surge == 0 {
                staying.iter().skip(1).for_each(|pod| self.delete(pod.uid));
                continue;
            }
            let (new, old): (Vec<_>, Vec<_>) = staying.iter().partition(|pod| pod.template == self.template);
            new.iter().skip(1).chain(old.iter().skip(1)).for_each(|pod| self.delete(pod.uid));
            if let (Some(new), Some(old)) = (new.first(), old.first())
                && (old.ready_since.is_none() || new.available(self.now, min_ready))
            {
                self.delete(old.uid);
            }
        }
        if surge == 0 {
            return;
        }
        let (mut under_way, mut at_once, mut candidates) = (0, Vec::new(), Vec::new());
        for node in 0..self.nodes {
            let staying = self.staying(node);
            let new = staying.iter().find(|pod| pod.template == self.template);
            let old = staying.iter().find(|pod| pod.template != self.template);
            match (new, old) {
                (None, Some(old)) if old.available(self.now, min_ready) => candidates.push(node),
                (None, Some(_)) => at_once.push(node),
                (Some(new), Some(_)) if !new.available(self.now, min_ready) => under_way += 1,
                _ => {}
            }
        }
        let more = candidates.into_iter().take(surge.saturating_sub(under_way));
        for node in at_once.into_iter().chain(more) {
            self.create(node);
        }
    }

    fn stage(&self) -> &Stage {
        &self.last.as_ref().unwrap().stage
    }

    /// Nodes nothing else happened to that have no proxy left which serves.
    fn harmed(&self) -> Vec<usize> {
        let serves = |node: &usize| self.staying(*node).iter().any(Pod::serves);
        (0..self.nodes).filter(|node| !self.struck.contains(node) && !serves(node)).collect()
    }

    /// How many may be, when the template is `bad`: one at a time, and while nobody leads there is no brake.
    fn may_be_harmed(&self, bad: Kind) -> usize {
        // What never becomes ready the controller itself does not go on with.
        let is_ready = matches!(bad, Kind::Refuses | Kind::Silent | Kind::Fails);
        1 + if is_ready { self.gaps * TAKEN_IN_A_GAP } else { 0 }
    }

    /// Nothing is left to do but on a node that is lost.
    fn is_through(&self) -> bool {
        match self.stage() {
            Stage::Complete => true,
            Stage::Rolling { .. } => self.lost.is_some() && !self.last.as_ref().unwrap().is_under_way(),
            _ => false,
        }
    }

    /// But for a node that is lost.
    fn all_are(&self, template: &str) -> bool {
        (0..self.nodes).filter(|node| self.lost != Some(*node)).all(|node| {
            let staying = self.staying(node);
            staying.len() == 1 && staying[0].template == template && staying[0].serves()
        })
    }
}

/// What happens besides.
#[derive(Debug, Clone, Copy)]
enum Event {
    Nothing,
    Leader,
    Restart(usize),
    Evict(usize),
    /// A node is lost for good, with its pods on it.
    Lose(usize),
    NewNode,
}

impl World {
    /// A node is struck once, and a leader leads for a while.
    fn happens(&mut self, event: Event) {
        match event {
            Event::Leader if self.now >= self.leads_since + 20 => {
                (self.memory, self.leads_since) = (Memory::default(), self.now + GAP);
                self.gaps += 1;
            }
            Event::Restart(node) | Event::Evict(node) | Event::Lose(node)
                if self.struck.contains(&(node % self.nodes)) => {}
            // One is lost, so that there is a mesh left.
            Event::Lose(_) if self.lost.is_some() => {}
            Event::Nothing | Event::Leader => {}
            Event::Restart(node) => {
                let (node, until) = (node % self.nodes, self.now + 12);
                for pod in self.pods.iter_mut().filter(|pod| pod.node == node) {
                    (pod.away_until, pod.ready_since) = (until, None);
                    pod.restarts += 1;
                }
                self.struck.push(node);
            }
            Event::Evict(node) => {
                let node = node % self.nodes;
                self.pods.retain(|pod| pod.node != node);
                self.struck.push(node);
            }
            Event::Lose(node) => {
                let node = node % self.nodes;
                self.lost = Some(node);
                self.struck.push(node);
            }
            Event::NewNode => {
                self.struck.push(self.nodes);
                self.nodes += 1;
            }
        }
    }
}

fn event() -> impl proptest::strategy::Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Nothing),
        2 => Just(Event::Leader),
        1 => (0..40_usize).prop_map(Event::Restart),
        1 => (0..40_usize).prop_map(Event::Evict),
        1 => (0..40_usize).prop_map(Event::Lose),
        1 => Just(Event::NewNode),
    ]
}

#[test]
fn a_good_template_reaches_every_node_and_no_node_is_ever_without() {
    for nodes in [1, 2, 3, 10, 40] {
        let mut world = World::new(nodes);
        world.apply("t1", Kind::Good);
        for _ in 0..ENOUGH {
            world.tick();
            assert!(world.harmed().is_empty(), "{nodes} nodes at {} s: {:?}", world.now, world.harmed());
        }
        assert_eq!(*world.stage(), Stage::Complete, "{nodes} nodes");
        assert!(world.all_are("t1"));
    }
}

#[test]
fn it_takes_its_time_with_the_first_and_is_quick_with_the_last() {
    let mut world = World::new(40);
    let began = world.now;
    world.apply("t1", Kind::Good);
    let mut when = Vec::new();
    while *world.stage() != Stage::Complete || world.wanted != world.template {
        world.tick();
        let done = (0..40).filter(|node| world.staying(*node).iter().all(|pod| pod.template == "t1")).count();
        while when.len() < done {
            when.push(world.now - began);
        }
        assert!(world.now - began < ENOUGH, "{when:?}");
    }
    assert!(when[1] - when[0] >= PACE.observe.as_secs(), "the second waits for the first: {when:?}");
    assert!(when[39] <= 100, "one after the other it would be 280 s: {when:?}");
}

#[test]
fn every_kind_of_bad_proxy_stops_at_one_node_and_the_former_template_puts_it_right() {
    for kind in BAD {
        for nodes in [2, 3, 10] {
            let mut world = World::new(nodes);
            world.apply("t1", kind);
            for _ in 0..ENOUGH {
                world.tick();
                assert!(world.harmed().len() <= 1, "{kind:?} at {} s: {:?}", world.now, world.harmed());
            }
            assert!(matches!(world.stage(), Stage::Paused(_)), "{kind:?}: {:?}", world.stage());
            world.apply("t0", Kind::Good);
            let began = world.now;
            while !world.all_are("t0") || *world.stage() != Stage::Complete {
                world.tick();
                assert!(world.harmed().len() <= 1, "{kind:?}");
                assert!(world.now - began < 60, "{kind:?}: {:?}", world.stage());
            }
        }
    }
}

#[test]
fn a_rollback_is_not_stopped_by_what_the_former_proxies_have_been_through() {
    for kind in [Kind::Good, Kind::Fails, Kind::Crashes] {
        for nodes in [2, 3, 10] {
            for after in 1..40 {
                let mut world = World::new(nodes);
                for pod in &mut world.pods {
                    (pod.restarts, pod.carried) = (2, (100_000, 40_000));
                }
                world.apply("t1", kind);
                world.run(after);
                world.apply("t0", Kind::Good);
                for _ in 0..ENOUGH {
                    world.tick();
                    let stage = world.stage();
                    assert!(world.failed.is_none(), "{kind:?} taken back after {after} s: {stage:?}");
                }
                assert_eq!(*world.stage(), Stage::Complete, "{kind:?} taken back after {after} s");
                assert!(world.all_are("t0"));
            }
        }
    }
}

#[test]
fn while_nobody_leads_the_controller_goes_on_and_the_next_leader_stops_it() {
    let worst = [Kind::Refuses, Kind::Fails, Kind::Silent, Kind::NeverReady].map(|kind| {
        let lost_after = |seconds| {
            let mut world = World::new(10);
            world.apply("t1", kind);
            world.run(seconds);
            world.happens(Event::Leader);
            world.run(GAP + 60);
            assert!(matches!(world.stage(), Stage::Paused(_)), "{kind:?} after {seconds} s");
            world.harmed().len()
        };
        (0..30).map(lost_after).max().unwrap()
    });
    assert_eq!(worst, [2, 2, 3, 0], "nodes without a proxy that serves");
}

#[test]
fn a_bad_proxy_that_shows_at_once_never_takes_its_node() {
    for kind in [Kind::NoImage, Kind::NeverReady, Kind::Crashes, Kind::Refuses, Kind::Fails] {
        let mut world = World::new(3);
        world.apply("t1", kind);
        for _ in 0..ENOUGH {
            world.tick();
            assert!(world.harmed().is_empty(), "{kind:?} at {} s", world.now);
        }
        assert!((0..3).all(|node| world.staying(node).len() == 1), "what failed is taken away");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever happens besides: while somebody leads, no more than one node that nothing else happened to is ever without a
    /// proxy that serves; a bad template ends paused or, when nothing old is left to keep, everywhere; a good one ends everywhere.
    #[test]
    fn never_two_bad_nodes_and_always_an_end(
        nodes in 2..24_usize,
        bad in proptest::sample::select(&BAD[..]),
        at in 0..60_u64,
        events in proptest::collection::vec(event(), 0..12),
    ) {
        let mut world = World::new(nodes);
        world.apply("t1", bad);
        for event in events {
            for _ in 0..5 {
                world.tick();
                prop_assert!(world.harmed().len() <= world.may_be_harmed(bad), "at {} s: {:?}", world.now, world.harmed());
            }
            world.happens(event);
        }
        world.run(at);
        prop_assert!(world.harmed().len() <= world.may_be_harmed(bad));
        world.apply("t2", Kind::Good);
        for _ in 0..ENOUGH {
            world.tick();
            prop_assert!(world.harmed().len() <= world.may_be_harmed(bad), "at {} s: {:?}", world.now, world.harmed());
        }
        prop_assert!(world.is_through(), "{:?}", world.stage());
        prop_assert!(world.all_are("t2"), "{:?}", world.pods);
    }

    #[test]
    fn node_trouble_alone_stops_nothing(
        nodes in 2..24_usize,
        events in proptest::collection::vec(event(), 0..20),
    ) {
        let mut world = World::new(nodes);
        world.apply("t1", Kind::Good);
        for event in events {
            world.happens(event);
            world.run(6);
            prop_assert!(!matches!(world.stage(), Stage::Paused(_)), "{:?}", world.stage());
        }
        world.run(ENOUGH);
        prop_assert!(world.is_through(), "{:?}", world.stage());
        prop_assert!(world.all_are("t1"));
    }
}
