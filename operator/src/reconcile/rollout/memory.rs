//! What one leader remembers of the proxies from look to look: since when each is as it is, by this machine's clock, and how
//! much it had carried when the rollout began. A new leader begins to count anew, which costs seconds, not safety.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weft_config::status::{ProxyStatus, Rejection};

use super::{Carried, Live, Seen};
use crate::index::proxy_pods::ProxyFacts;
use crate::reconcile::proxies::Told;

/// A pod that is not among those looked at is remembered for so long: while a watch is behind, a look at what it shows and one
/// at what the API server lists follow each other.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A new proxy that refuses something for so long does not only hear of it before the others do.
const LASTS: Duration = Duration::from_millis(400);

/// From look to look.
#[derive(Debug, Default)]
pub struct Memory {
    /// The template that is wanted.
    wanted: String,
    /// Since when the controller is held for it.
    held_since: Option<Instant>,
    /// By uid.
    pods: HashMap<Arc<str>, Known>,
    /// Something is to be found out, or to be stopped, before the controller goes on by itself.
    pub(in crate::reconcile) hurries: bool,
    /// Whether the rollout was stopped when it was looked at last.
    was_stopped: bool,
    /// What the last old pod of a node had carried in all, and what it refused.
    before: HashMap<Arc<str>, Before>,
}

#[derive(Debug, Default)]
struct Before {
    carried: Carried,
    refused: BTreeSet<String>,
}

#[derive(Debug)]
struct Known {
    ready: bool,
    since: Instant,
    /// When it was looked at last.
    seen: Instant,
    /// Since when it is ready and does not answer.
    silent_since: Option<Instant>,
    surged: bool,
    /// What it had carried when the rollout began, or when it was heard of first since.
    at_first: Option<Carried>,
    /// What it refuses, and since when. What is new to all reaches one of them first.
    refuses_since: BTreeMap<String, Instant>,
}

/// What the proxies said, by their addresses; `None`: they were asked and did not answer.
type Answers<'a> = HashMap<IpAddr, Option<&'a ProxyStatus>>;

impl Memory {
    /// For how long the controller has been held for the template that is wanted.
    pub fn held_for(&self, now: Instant) -> Duration {
        self.held_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The pods as the rollout to the template `wanted` sees them, by what they have just `told`. `live`: what is written.
    pub fn look(
        &mut self,
        now: Instant,
        wanted: &str,
        live: Option<&Live>,
        pods: &[Arc<ProxyFacts>],
        told: &[Told],
    ) -> Vec<Seen> {
        let holds = live.is_some_and(|live| live.holds);
        let is_stopped = live.is_some_and(|live| live.failed.is_some());
        let is_tried_again = std::mem::replace(&mut self.was_stopped, is_stopped) && !is_stopped;
        let told = told.iter().map(|(pod, status)| (pod.address, status.as_ref())).collect();
        if self.wanted != wanted {
            wanted.clone_into(&mut self.wanted);
            self.held_since = None;
            self.before.clear();
            self.begin_anew();
        } else if is_tried_again {
            // Somebody wants the same once more: what stopped it, and is alone by now, must not do so again.
            self.begin_anew();
        }
        if !holds {
            self.held_since = None;
        } else if self.held_since.is_none() {
            self.held_since = Some(now);
        }
        // After a change that is taken back, the one beside a pod that was there all the while is the younger.
        let older_beside = |pod: &ProxyFacts| {
            let stays = |old: &ProxyFacts| !old.leaving && old.template != wanted && old.node == pod.node;
            pods.iter().any(|old| stays(old) && old.created < pod.created)
        };
        // The old ones first: what they carried is what the new ones are compared with.
        let (new, old): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| pod.template == wanted);
        let old: Vec<_> = old.into_iter().map(|pod| self.see(now, pod, &told, false, false)).collect();
        let new = new.into_iter().map(|pod| self.see(now, pod, &told, true, older_beside(pod)));
        let new: Vec<_> = new.collect();
        self.pods.retain(|_, known| now.saturating_duration_since(known.seen) < REMEMBERED);
        old.into_iter().chain(new).collect()
    }

    fn begin_anew(&mut self) {
        for known in self.pods.values_mut() {
            (known.surged, known.at_first) = (false, None);
        }
    }

    fn see(
        &mut self,
        now: Instant,
        pod: &ProxyFacts,
        told: &Answers<'_>,
        current: bool,
        surges: bool,
    ) -> Seen {
        let said = pod.address.and_then(|address| told.get(&address));
        let (asked, said) = (said.is_some(), said.copied().flatten());
        let total = said.map(|said| Carried { requests: said.requests, failures: said.failures });
        let known = self.pods.entry(Arc::clone(&pod.uid)).or_insert_with(|| Known {
            ready: pod.ready,
            since: now,
            seen: now,
            silent_since: None,
            surged: false,
            at_first: None,
            refuses_since: BTreeMap::new(),
        });
        known.seen = now;
        if known.ready != pod.ready {
            (known.ready, known.since) = (pod.ready, now);
        }
        known.surged |= surges;
        let silent = pod.ready && asked && said.is_none();
        known.silent_since = known.silent_since.filter(|_| silent).or_else(|| silent.then_some(now));
        // A new one is judged by all it did, an old one by what it did meanwhile.
        let carried = total.map(|total| {
            let first = if current { Carried::default() } else { total };
            total.since(*known.at_first.get_or_insert(first))
        });
        let so_long = |since: Instant| now.saturating_duration_since(since);
        let rejections = said.map(|said| {
            known.refuses_since.retain(|known, _| said.rejections.iter().any(|one| one.resource == *known));
            let lasts = |one: &&Rejection| {
                let since = known.refuses_since.entry(one.resource.clone()).or_insert(now);
                !current || so_long(*since) >= LASTS
            };
            let lasting = said.rejections.iter().filter(lasts);
            lasting.map(|one| (one.resource.clone(), one.reason.clone())).collect::<BTreeMap<_, _>>()
        });
        let (surged, since, silent_since) = (known.surged, known.since, known.silent_since);
        let before = self.before.entry(Arc::clone(&pod.node)).or_default();
        if let (false, Some(total)) = (current, total) {
            before.carried = total;
            before.refused = rejections.iter().flat_map(BTreeMap::keys).cloned().collect();
        }
        Seen {
            name: Arc::clone(&pod.name),
            node: Arc::clone(&pod.node),
            image: Arc::clone(&pod.image),
            created: pod.created,
            current,
            leaving: pod.leaving,
            surged,
            ready: pod.ready,
            so_for: so_long(since),
            trouble: pod.trouble.clone(),
            restarts: pod.restarts,
            silent_for: silent_since.map(so_long).unwrap_or_default(),
            rejections,
            carried: carried.unwrap_or_default(),
            before: before.carried,
            refused_before: before.refused.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::super::record::Record;
    use super::*;
    use crate::index::ProxyPod;

    /// With a higher `last` it is younger.
    fn pod(uid: &str, node: &str, template: &str, last: u8) -> Arc<ProxyFacts> {
        Arc::new(ProxyFacts {
            name: uid.into(),
            uid: uid.into(),
            created: Timestamp::from_second(last.into()).unwrap(),
            node: node.into(),
            address: Some([10, 0, 0, last].into()),
            template: template.to_owned(),
            image: "i".into(),
            leaving: false,
            ready: true,
            trouble: None,
            restarts: 0,
        })
    }

    fn told(last: u8, requests: u64, failures: u64) -> Told {
        let pod = ProxyPod { node: "n".into(), address: [10, 0, 0, last].into(), ready: true };
        (pod, Some(ProxyStatus { requests, failures, ..ProxyStatus::default() }))
    }

    #[test]
    fn time_counts_from_the_last_change_by_this_machine_s_clock() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let ready = pod("a", "n1", "t1", 1);
        let away = Arc::new(ProxyFacts { ready: false, ..(*ready).clone() });
        let mut so_for = |second, pod: &Arc<ProxyFacts>| {
            memory.look(at(second), "t1", None, std::slice::from_ref(pod), &[])[0].so_for.as_secs()
        };
        assert_eq!(so_for(0, &ready), 0);
        assert_eq!(so_for(4, &ready), 4);
        assert_eq!(so_for(5, &away), 0);
        assert_eq!(so_for(9, &away), 4);
    }

    #[test]
    fn old_ones_are_judged_by_what_they_carried_meanwhile_and_new_ones_by_all() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let (old, new) = (pod("old", "n1", "t1", 1), pod("new", "n1", "t2", 2));
        let at_first = [told(1, 1000, 500)];
        memory.look(now, "t1", None, std::slice::from_ref(&old), &at_first);
        memory.look(now, "t2", None, std::slice::from_ref(&old), &at_first);
        let said = [told(1, 1100, 501), told(2, 40, 3)];
        let seen = memory.look(now, "t2", None, &[old, Arc::clone(&new)], &said);
        assert_eq!(seen[0].carried, Carried { requests: 100, failures: 1 });
        assert_eq!(seen[1].carried, Carried { requests: 40, failures: 3 });
        assert!(seen[1].surged && !seen[0].surged);
        // What the node's proxy before had carried is remembered when it is gone.
        let seen = memory.look(now, "t2", None, std::slice::from_ref(&new), &said);
        assert_eq!(seen[0].before, Carried { requests: 1100, failures: 501 });
        assert!(seen[0].surged, "it came with the rollout");
        let seen = memory.look(now, "t3", None, &[new], &said);
        assert!(!seen[0].surged, "that was another rollout");
    }

    #[test]
    fn what_an_old_one_carried_before_it_was_heard_of_is_not_counted() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let old = pod("old", "n1", "t1", 1);
        let mut carried =
            |told: &[Told]| memory.look(now, "t2", None, std::slice::from_ref(&old), told)[0].carried;
        assert_eq!(carried(&[]), Carried::default());
        assert_eq!(carried(&[told(1, 1000, 500)]), Carried::default());
        assert_eq!(carried(&[told(1, 1010, 501)]), Carried { requests: 10, failures: 1 });
    }

    #[test]
    fn a_pod_that_was_there_before_what_is_rolled_back_did_not_come_with_a_rollout() {
        let (former, bad) = (pod("former", "n1", "t1", 1), pod("bad", "n1", "t2", 2));
        let pods = [Arc::clone(&former), Arc::clone(&bad)];
        let (mut memory, now) = (Memory::default(), Instant::now());
        let surged = |memory: &mut Memory, wanted, pods: &[_]| -> Vec<_> {
            let seen = memory.look(now, wanted, None, pods, &[]).into_iter().filter(|pod| pod.surged);
            seen.map(|pod| pod.name.to_string()).collect()
        };
        assert_eq!(surged(&mut memory, "t2", &pods), ["bad"]);
        assert!(surged(&mut memory, "t1", &pods).is_empty());
        assert!(surged(&mut Memory::default(), "t1", &pods).is_empty(), "nor for another leader");
        // On a node that had got the bad one the former template is what is new.
        let again = pod("again", "n1", "t1", 3);
        assert_eq!(surged(&mut memory, "t1", &[bad, again]), ["again"]);
    }

    #[test]
    fn what_stopped_it_does_not_count_when_the_same_is_tried_again() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let (old, new, other) =
            (pod("old", "n1", "t1", 1), pod("new", "n1", "t2", 2), pod("other", "n2", "t1", 3));
        let stopped = |stopped: bool| {
            let record = Record { template: "t2".into(), ..Record::default() };
            Live { failed: stopped.then_some(record), ..Live::default() }
        };
        memory.look(
            now,
            "t2",
            Some(&stopped(false)),
            &[Arc::clone(&old), Arc::clone(&new), Arc::clone(&other)],
            &[],
        );
        let mut alone = |is_stopped, pods: &[_]| -> Vec<_> {
            let seen = memory.look(now, "t2", Some(&stopped(is_stopped)), pods, &[]);
            seen.into_iter().filter(|pod| pod.surged).map(|pod| pod.name.to_string()).collect()
        };
        let left = [Arc::clone(&new), Arc::clone(&other)];
        assert_eq!(alone(false, &left), ["new"]);
        assert_eq!(alone(true, &left), ["new"]);
        assert!(alone(false, &left).is_empty(), "the record was taken off");
        assert_eq!(
            alone(false, &[old, new, other]),
            ["new"],
            "one beside its predecessor is judged as before"
        );
    }

    #[test]
    fn a_refusal_counts_once_it_lasts_and_what_the_node_s_former_proxy_refused_is_remembered() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let (old, new) = (pod("old", "n1", "t1", 1), pod("new", "n1", "t2", 2));
        let refuses = |last: u8, resource: &str| {
            let (pod, status) = told(last, 0, 0);
            let rejections = vec![Rejection { resource: resource.to_owned(), reason: "no".into() }];
            (pod, status.map(|status| ProxyStatus { rejections, ..status }))
        };
        let mut look = |millis, pods: &[_], told: &[Told]| {
            let seen = memory.look(start + Duration::from_millis(millis), "t2", None, pods, told);
            let of = |pod: &Seen| pod.rejections.clone().unwrap_or_default().into_keys().collect::<Vec<_>>();
            (seen.iter().map(of).collect::<Vec<_>>(), seen.last().unwrap().refused_before.clone())
        };
        let both = [Arc::clone(&old), Arc::clone(&new)];
        let (said, _) = look(0, &both, &[refuses(1, "a"), refuses(2, "b")]);
        assert_eq!(said, [vec!["a".to_owned()], vec![]], "the old one's counts at once");
        let (said, before) = look(500, &both, &[refuses(1, "a"), refuses(2, "b")]);
        assert_eq!(said, [["a"], ["b"]]);
        assert_eq!(before, BTreeSet::from(["a".to_owned()]));
        let (_, before) = look(600, std::slice::from_ref(&new), &[refuses(2, "b")]);
        assert_eq!(before, BTreeSet::from(["a".to_owned()]), "it is gone");
        let (said, _) = look(700, std::slice::from_ref(&new), &[refuses(2, "c")]);
        assert_eq!(said, [[""; 0]]);
    }

    #[test]
    fn silence_counts_from_the_first_question_without_an_answer() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let one = pod("a", "n1", "t1", 1);
        let mut silent = |seconds, told: &[Told]| {
            let now = start + Duration::from_secs(seconds);
            memory.look(now, "t1", None, std::slice::from_ref(&one), told)[0].silent_for.as_secs()
        };
        let mute = || vec![(told(1, 0, 0).0, None)];
        assert_eq!(silent(0, &[]), 0, "not asked yet");
        assert_eq!(silent(10, &[]), 0);
        assert_eq!(silent(20, &mute()), 0);
        assert_eq!(silent(23, &mute()), 3);
        assert_eq!(silent(24, &[told(1, 0, 0)]), 0);
    }

    #[test]
    fn a_pod_that_one_look_does_not_show_is_remembered_for_a_while() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let (old, new) = (pod("old", "n1", "t1", 1), pod("new", "n1", "t2", 2));
        let mut look = |seconds, pods: &[Arc<ProxyFacts>]| {
            let seen = memory.look(start + Duration::from_secs(seconds), "t2", None, pods, &[]);
            seen.last().map(|pod| (pod.surged, pod.so_for.as_secs()))
        };
        assert_eq!(look(0, &[Arc::clone(&old), Arc::clone(&new)]), Some((true, 0)));
        assert_eq!(look(20, &[]), None);
        assert_eq!(look(50, std::slice::from_ref(&new)), Some((true, 50)));
        look(70, &[]);
        look(120, &[]);
        assert_eq!(look(121, &[new]), Some((false, 0)));
    }

    #[test]
    fn a_hold_counts_from_its_beginning_for_each_template() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let mut held = |seconds, wanted: &str, holds| {
            let now = start + Duration::from_secs(seconds);
            let live = Live { holds, ..Live::default() };
            memory.look(now, wanted, Some(&live), &[], &[]);
            memory.held_for(now).as_secs()
        };
        assert_eq!(held(0, "t1", true), 0);
        assert_eq!(held(3, "t1", true), 3);
        assert_eq!(held(4, "t2", true), 0);
        assert_eq!(held(5, "t2", false), 0);
        assert_eq!(held(9, "t2", true), 0);
    }
}
