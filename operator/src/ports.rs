//! Who owns which listen port. Pure: it neither reads nor writes the cluster.
//!
//! The record is in the shadow Services; an [`Allocator`] is rebuilt from them before anything is written. Ports are handed
//! out in a circle. One that is not in use is in doubt until every proxy was asked and none holds it: a port that passed to
//! another Service while somebody still has the old meaning would carry requests to the wrong Service. So is one that two shadows
//! claim, because somebody has edited one of them while nobody led, until the proxies have said for whom they hold it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use weft_config::ServiceId;

/// A port of a Service, whatever it is called.
pub type Owner = (ServiceId, u16);

/// For whom the proxies hold a listen port; `None`: they differ, or one does not say.
pub type HeldFor = BTreeMap<u16, Option<Owner>>;

/// What one shadow Service records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose shadow.
    pub service: ServiceId,
    /// (Port number, listen port).
    pub ports: Vec<(u16, u16)>,
}

/// Why a port could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPort {
    /// Every port of the range is in use.
    #[error(
        "Service {0} port {1} gets no listen port: all of the range are in use; widen spec.proxy.listenPorts in the MeshConfig"
    )]
    Exhausted(ServiceId, u16),
    /// The same, but it has one from when the range was another.
    #[error(
        "Service {0} port {1} goes on at listen port {2}, outside of the range, all of which are in use; widen spec.proxy.listenPorts in the MeshConfig"
    )]
    Outside(ServiceId, u16, u16),
    /// The free ones may still be held by a proxy.
    #[error(
        "Service {0} port {1} waits for a listen port: the free ones are still held by a proxy or one did not answer"
    )]
    InDoubt(ServiceId, u16),
    /// Its shadow has one that another shadow has, too.
    #[error(
        "Service {0} port {1} has listen port {2} by its shadow, and so has another: both stay as they are until every proxy has said for whom it holds it"
    )]
    Claimed(ServiceId, u16, u16),
}

impl NoPort {
    /// Whether the proxies may know more.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::InDoubt(..) | Self::Claimed(..))
    }
}

/// All listen ports.
#[derive(Debug)]
pub struct Allocator {
    first: u16,
    last: u16,
    owners: BTreeMap<u16, Owner>,
    by_owner: BTreeMap<Owner, u16>,
    /// What the record has outside of the range: nobody else's, and nobody gets it.
    outside: BTreeMap<Owner, u16>,
    /// Of those in doubt: which more than one have in the record, and who, oldest first.
    claimed: BTreeMap<u16, Vec<Owner>>,
    /// Ports not in use that a proxy may hold, with the number of the release that put them here.
    doubtful: BTreeMap<u16, u64>,
    releases: u64,
    next: u16,
}

/// What was in doubt when the proxies began to be asked.
#[derive(Debug)]
pub struct Question(BTreeMap<u16, u64>);

impl Allocator {
    /// Rebuilt from `records`, oldest first. The owner of a port outside of the range gets another, and has the old one while there
    /// is none; of two that claim it the older.
    pub fn new(first: u16, last: u16, records: impl IntoIterator<Item = Record>) -> Self {
        let mut allocator = Self {
            first,
            last,
            owners: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            outside: BTreeMap::new(),
            claimed: BTreeMap::new(),
            doubtful: BTreeMap::new(),
            releases: 0,
            next: first,
        };
        let (mut seen, mut taken_outside) = (BTreeSet::new(), BTreeSet::new());
        for record in records {
            for (port, listen_port) in record.ports {
                let owner = (record.service.clone(), port);
                if !seen.insert(owner.clone()) {
                    continue;
                }
                if (first..=last).contains(&listen_port) {
                    allocator.claimed.entry(listen_port).or_default().push(owner);
                } else if taken_outside.insert(listen_port) {
                    allocator.outside.insert(owner, listen_port);
                }
            }
        }
        allocator.own_what_one_claims();
        // Whatever came before is unknown: every port not in use may be held.
        let unknown =
            (first..=last).filter(|port| !allocator.owners.contains_key(port)).map(|port| (port, 0));
        allocator.doubtful = unknown.collect();
        // Begin behind the highest port in use: the least likely to have been given back a moment ago.
        allocator.next = allocator.owners.keys().next_back().map_or(first, |port| allocator.after(*port));
        allocator
    }

    fn after(&self, port: u16) -> u16 {
        if port >= self.last { self.first } else { port + 1 }
    }

    fn own(&mut self, owner: Owner, listen_port: u16) {
        self.owners.insert(listen_port, owner.clone());
        self.by_owner.insert(owner, listen_port);
    }

    /// What only one claims is its own.
    fn own_what_one_claims(&mut self) {
        for (listen_port, owners) in self.claimed.extract_if(.., |_, owners| owners.len() == 1) {
            for owner in owners {
                self.doubtful.remove(&listen_port);
                self.owners.insert(listen_port, owner.clone());
                self.by_owner.insert(owner, listen_port);
            }
        }
    }

    /// The listen port of `port` of `service`: the one it has, or a new one.
    pub fn allocate(&mut self, service: &ServiceId, port: u16) -> Result<u16, NoPort> {
        let owner = (service.clone(), port);
        if let Some(listen_port) = self.by_owner.get(&owner) {
            return Ok(*listen_port);
        }
        if let Some((listen_port, _)) = self.claimed.iter().find(|(_, owners)| owners.contains(&owner)) {
            return Err(NoPort::Claimed(owner.0, port, *listen_port));
        }
        let circle = (self.next..=self.last).chain(self.first..self.next);
        let free = |port: &u16| !self.owners.contains_key(port) && !self.doubtful.contains_key(port);
        let Some(listen_port) = circle.into_iter().find(free) else {
            return Err(match self.outside.get(&owner) {
                _ if !self.doubtful.is_empty() => NoPort::InDoubt(owner.0, port),
                Some(outside) => NoPort::Outside(owner.0, port, *outside),
                None => NoPort::Exhausted(owner.0, port),
            });
        };
        self.next = self.after(listen_port);
        self.own(owner, listen_port);
        Ok(listen_port)
    }

    /// Makes one that has been in doubt since `question` was put, and that the proxies hold for `port` of `service` and nobody else,
    /// its own again, if it has none.
    pub fn reclaim(
        &mut self,
        question: &Question,
        held_for: &HeldFor,
        service: &ServiceId,
        port: u16,
    ) -> Option<u16> {
        let owner = (service.clone(), port);
        if self.by_owner.contains_key(&owner) {
            return None;
        }
        let in_doubt = |listen_port: &u16| {
            let release = self.doubtful.get(listen_port);
            release.is_some() && release == question.0.get(listen_port)
        };
        let held = held_for.iter().filter(|(_, holder)| holder.as_ref() == Some(&owner));
        let listen_port = held.map(|(listen_port, _)| *listen_port).find(in_doubt)?;
        self.doubtful.remove(&listen_port);
        self.own(owner, listen_port);
        Some(listen_port)
    }

    /// Every proxy has said for whom it holds those of `asked`, which have been in doubt since `question` was put. Of those who claim
    /// one of them the one has it for whom it is held, of the others each what is held for it, and what is then left to nobody is the
    /// oldest one's of those that have none.
    pub fn settle_claims(&mut self, asked: &[u16], question: &Question, held_for: &HeldFor) {
        let settled = |port: &u16, _: &mut Vec<Owner>| asked.contains(port);
        let claimed: Vec<_> = self.claimed.extract_if(.., settled).collect();
        for (listen_port, owners) in &claimed {
            if let Some(Some(holder)) = held_for.get(listen_port)
                && owners.contains(holder)
            {
                self.doubtful.remove(listen_port);
                self.own(holder.clone(), *listen_port);
            }
        }
        for (service, port) in claimed.iter().flat_map(|(_, owners)| owners) {
            self.reclaim(question, held_for, service, *port);
        }
        for (listen_port, owners) in claimed {
            let without = owners.into_iter().find(|owner| !self.by_owner.contains_key(owner));
            if let Some(owner) = without.filter(|_| self.doubtful.remove(&listen_port).is_some()) {
                self.own(owner, listen_port);
            }
        }
    }

    /// The listen port that `port` of `service` has outside of the range, from when that was another.
    pub fn outside(&self, service: &ServiceId, port: u16) -> Option<u16> {
        self.outside.get(&(service.clone(), port)).copied()
    }

    /// Whether `service` has any.
    pub fn owns_any(&self, service: &ServiceId) -> bool {
        let any = |ports: &BTreeMap<Owner, u16>| ports.range(Self::of(service)).next().is_some();
        any(&self.by_owner) || any(&self.outside)
    }

    fn of(service: &ServiceId) -> RangeInclusive<Owner> {
        (service.clone(), 0)..=(service.clone(), u16::MAX)
    }

    /// Gives back the ports of `service` except those in `keep`. They are in doubt from now on. Whether there were any.
    pub fn release_except(&mut self, service: &ServiceId, keep: &[u16]) -> bool {
        let of = |ports: &BTreeMap<Owner, u16>| -> Vec<Owner> {
            ports.range(Self::of(service)).map(|(owner, _)| owner.clone()).collect()
        };
        for owner in of(&self.outside) {
            if !keep.contains(&owner.1) || self.by_owner.contains_key(&owner) {
                self.outside.remove(&owner);
            }
        }
        let before = self.releases;
        for owners in self.claimed.values_mut() {
            let gives_up = |(owner, port): &mut Owner| owner == service && !keep.contains(port);
            self.releases += owners.extract_if(.., gives_up).count() as u64;
        }
        self.claimed.retain(|_, owners| !owners.is_empty());
        self.own_what_one_claims();
        for owner in of(&self.by_owner).into_iter().filter(|(_, port)| !keep.contains(port)) {
            if let Some(listen_port) = self.by_owner.remove(&owner) {
                self.owners.remove(&listen_port);
                self.releases += 1;
                self.doubtful.insert(listen_port, self.releases);
            }
        }
        self.releases > before
    }

    /// What is in doubt now. Ask every proxy, then [`Allocator::confirm`].
    pub fn question(&self) -> Question {
        Question(self.doubtful.clone())
    }

    /// What is in doubt now, what is claimed first.
    pub fn in_doubt(&self) -> impl Iterator<Item = u16> {
        let others = self.doubtful.keys().filter(|port| !self.claimed.contains_key(port));
        self.claimed.keys().chain(others).copied()
    }

    /// Every proxy has answered: `held` is all that any of them holds. What was given back since the question was put stays
    /// in doubt, and so does what is claimed.
    pub fn confirm(&mut self, question: &Question, held: &BTreeSet<u16>) {
        for (port, release) in &question.0 {
            let stays = held.contains(port) || self.claimed.contains_key(port);
            if !stays && self.doubtful.get(port) == Some(release) {
                self.doubtful.remove(port);
            }
        }
    }

    /// Ports in use, those outside of the range included.
    pub fn used(&self) -> usize {
        self.owners.len() + self.outside.len()
    }

    /// Ports left in the range, those in doubt included.
    pub fn free(&self) -> usize {
        usize::from(self.last - self.first) + 1 - self.owners.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service(i: u8) -> ServiceId {
        ServiceId::new("ns", format!("s{i}"))
    }

    fn confirmed(first: u16, last: u16, records: Vec<Record>) -> Allocator {
        let mut allocator = Allocator::new(first, last, records);
        let question = allocator.question();
        allocator.confirm(&question, &BTreeSet::new());
        allocator
    }

    #[derive(Debug, Clone)]
    enum Step {
        Allocate(u8, u16),
        Release(u8),
        Reclaim(u8, u16, u16),
        Confirm(Vec<u16>),
        Rebuild,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..6u8, 80..83u16).prop_map(|(s, p)| Step::Allocate(s, p)),
            2 => (0..6u8).prop_map(Step::Release),
            1 => (0..6u8, 80..83u16, 100..112u16).prop_map(|(s, p, l)| Step::Reclaim(s, p, l)),
            2 => prop::collection::vec(100..112u16, 0..4).prop_map(Step::Confirm),
            1 => Just(Step::Rebuild),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// Through any life: one owner a port, an owner keeps its port, a port given back is not handed out before a question
        /// put after its release was answered without it.
        #[test]
        fn no_port_ever_has_two_owners(steps in steps()) {
            let mut allocator = confirmed(100, 111, vec![]);
            let mut truth: BTreeMap<Owner, u16> = BTreeMap::new();
            let mut doubtful: BTreeSet<u16> = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Allocate(s, port) => {
                        let owner = (service(s), port);
                        if let Ok(listen) = allocator.allocate(&owner.0, port) {
                            if let Some(before) = truth.insert(owner.clone(), listen) {
                                prop_assert_eq!(before, listen);
                            } else {
                                prop_assert!(!doubtful.contains(&listen));
                            }
                            prop_assert_eq!(truth.values().filter(|l| **l == listen).count(), 1);
                        }
                    }
                    Step::Release(s) => {
                        allocator.release_except(&service(s), &[]);
                        truth.retain(|owner, listen| {
                            if owner.0 == service(s) { doubtful.insert(*listen); }
                            owner.0 != service(s)
                        });
                    }
                    Step::Reclaim(s, port, listen) => {
                        let (owner, question) = ((service(s), port), allocator.question());
                        let had = truth.contains_key(&owner);
                        let held_for = HeldFor::from([(listen, Some(owner.clone()))]);
                        let reclaimed = allocator.reclaim(&question, &held_for, &owner.0, port);
                        prop_assert_eq!(reclaimed, (!had && doubtful.remove(&listen)).then_some(listen));
                        if reclaimed.is_some() {
                            truth.insert(owner, listen);
                        }
                    }
                    Step::Confirm(held) => {
                        let held: BTreeSet<_> = held.into_iter().collect();
                        let question = allocator.question();
                        allocator.confirm(&question, &held);
                        doubtful.retain(|port| held.contains(port));
                    }
                    Step::Rebuild => {
                        let mut records: BTreeMap<ServiceId, Vec<(u16, u16)>> = BTreeMap::new();
                        for ((service, port), listen) in &truth {
                            records.entry(service.clone()).or_default().push((*port, *listen));
                        }
                        let records = records.into_iter().map(|(service, ports)| Record { service, ports });
                        allocator = Allocator::new(100, 111, records);
                        doubtful = (100..=111).filter(|p| !truth.values().any(|l| l == p)).collect();
                    }
                }
                prop_assert_eq!(allocator.used(), truth.len());
                prop_assert_eq!(allocator.free(), 12 - truth.len());
            }
        }
    }

    fn claimed(held_for: &HeldFor) -> (Allocator, Vec<Option<u16>>) {
        let records = [1, 2, 3].map(|i| Record { service: service(i), ports: vec![(80, 100)] });
        let mut allocator = Allocator::new(100, 101, records);
        let question = allocator.question();
        allocator.confirm(&question, &held_for.keys().copied().collect());
        for i in [1, 2, 3] {
            let claims = NoPort::Claimed(service(i), 80, 100);
            assert_eq!(allocator.allocate(&service(i), 80), Err(claims), "while nobody knows");
        }
        assert_eq!(allocator.in_doubt().next(), Some(100));
        allocator.settle_claims(&[100, 101], &question, held_for);
        let has = [1, 2, 3].map(|i| allocator.by_owner.get(&(service(i), 80)).copied());
        (allocator, has.into())
    }

    fn held(for_whom: &[(u16, Option<u8>)]) -> HeldFor {
        for_whom.iter().map(|(port, i)| (*port, i.map(|i| (service(i), 80)))).collect()
    }

    #[test]
    fn of_those_who_claim_a_port_the_one_has_it_for_whom_it_is_held_and_each_has_what_is_held_for_it() {
        let has = |for_whom: &[_]| claimed(&held(for_whom)).1;
        assert_eq!(has(&[(100, Some(2))]), [None, Some(100), None]);
        assert_eq!(has(&[(100, Some(2)), (101, Some(1))]), [Some(101), Some(100), None]);
        assert_eq!(has(&[(101, Some(1))]), [Some(101), Some(100), None], "the oldest of those who have none");
        assert_eq!(has(&[(100, None), (101, Some(1))]), [Some(101), Some(100), None], "proxies differ");
        for nobody in [&[][..], &[(100, None)], &[(100, Some(4))], &[(101, Some(4))]] {
            assert_eq!(has(nobody), [Some(100), None, None], "the oldest: {nobody:?}");
        }
    }

    #[test]
    fn who_claims_a_port_and_has_it_by_the_proxies_gets_no_other_that_one_of_them_still_holds_for_it() {
        let records = [1, 2].map(|i| Record { service: service(i), ports: vec![(80, 101)] });
        let mut allocator = Allocator::new(100, 101, records);
        let question = allocator.question();
        allocator.settle_claims(&[100, 101], &question, &held(&[(100, Some(2)), (101, Some(2))]));
        assert_eq!(allocator.by_owner, BTreeMap::from([((service(2), 80), 101)]));
    }

    #[test]
    fn who_has_lost_a_claim_gets_another_port_and_who_gives_it_up_no_longer_claims() {
        let (mut allocator, _) = claimed(&HeldFor::new());
        assert_eq!(allocator.allocate(&service(2), 80), Ok(101));
        assert_eq!(allocator.allocate(&service(3), 80), Err(NoPort::Exhausted(service(3), 80)));

        let records = [1, 2].map(|i| Record { service: service(i), ports: vec![(80, 100), (81, 101)] });
        let mut allocator = Allocator::new(100, 101, records);
        let question = allocator.question();
        assert!(allocator.release_except(&service(1), &[81]), "whoever waits is to look again");
        assert_eq!(allocator.allocate(&service(2), 80), Ok(100), "nobody else claims it any more");
        assert!(allocator.allocate(&service(2), 81).is_err_and(|no_port| no_port.is_in_doubt()));
        allocator.settle_claims(&[100], &question, &HeldFor::new());
        let claims = Err(NoPort::Claimed(service(2), 81, 101));
        assert_eq!(allocator.allocate(&service(2), 81), claims, "it was not asked for");
        allocator.settle_claims(&[101], &question, &HeldFor::new());
        assert_eq!(allocator.allocate(&service(1), 81), Ok(101));
    }

    #[test]
    fn a_port_outside_of_a_changed_range_is_replaced() {
        let mut allocator =
            confirmed(100, 109, vec![Record { service: service(1), ports: vec![(80, 5000)] }]);
        assert_eq!(allocator.allocate(&service(1), 80), Ok(100));
    }

    #[test]
    fn a_port_outside_of_the_range_is_its_owners_while_there_is_no_other() {
        let one = Record { service: service(1), ports: vec![(80, 100), (81, 5000), (82, 5001)] };
        // Somebody has given it another's; of two claims the older counts.
        let two = Record { service: service(2), ports: vec![(80, 5000)] };
        let mut allocator = confirmed(100, 100, vec![one, two]);
        assert_eq!(allocator.allocate(&service(1), 80), Ok(100));
        let goes_on = allocator.allocate(&service(1), 81);
        assert_eq!(goes_on, Err(NoPort::Outside(service(1), 81, 5000)));
        assert_eq!(allocator.allocate(&service(2), 80), Err(NoPort::Exhausted(service(2), 80)));
        assert_eq!((allocator.used(), allocator.free()), (3, 0));
        assert_eq!(allocator.outside(&service(1), 81), Some(5000));

        assert!(allocator.release_except(&service(1), &[81]));
        assert_eq!(allocator.outside(&service(1), 82), None, "it was given back");
        let question = allocator.question();
        allocator.confirm(&question, &BTreeSet::new());
        assert_eq!(allocator.allocate(&service(1), 81), Ok(100));
        assert_eq!(allocator.outside(&service(1), 81), Some(5000), "until the new one is written");
        assert!(!allocator.release_except(&service(1), &[81]));
        assert_eq!(allocator.outside(&service(1), 81), None);
    }

    #[test]
    fn early_reuse_is_avoided_and_exhaustion_names_the_service() {
        let mut allocator = confirmed(100, 102, vec![]);
        assert_eq!(allocator.allocate(&service(1), 80), Ok(100));
        allocator.release_except(&service(1), &[]);
        assert_eq!(allocator.allocate(&service(2), 80), Ok(101));
        assert_eq!(allocator.allocate(&service(3), 80), Ok(102));
        let waits = allocator.allocate(&service(4), 80).unwrap_err();
        assert!(matches!(waits, NoPort::InDoubt(..)), "{waits}");
        let question = allocator.question();
        allocator.confirm(&question, &BTreeSet::from([100]));
        assert!(allocator.allocate(&service(4), 80).is_err(), "a proxy still holds it");
        let question = allocator.question();
        allocator.confirm(&question, &BTreeSet::new());
        assert_eq!(allocator.allocate(&service(4), 80), Ok(100));
        let exhausted = allocator.allocate(&service(5), 80).unwrap_err().to_string();
        assert!(exhausted.contains("ns/s5") && exhausted.contains("listenPorts"), "{exhausted}");
    }

    #[test]
    fn what_is_in_doubt_can_be_had_back_and_what_somebody_has_cannot() {
        let mut allocator = confirmed(100, 101, vec![]);
        let before = allocator.question();
        for i in [1, 2] {
            allocator.allocate(&service(i), 80).unwrap();
        }
        let held_for = HeldFor::from([(100, Some((service(3), 80))), (101, None)]);
        let reclaim = |allocator: &mut Allocator, question: &Question, i: u8| {
            allocator.reclaim(question, &held_for, &service(i), 80)
        };
        assert_eq!(reclaim(&mut allocator, &before, 3), None, "it is another's");
        allocator.release_except(&service(1), &[]);
        assert_eq!(reclaim(&mut allocator, &before, 3), None, "it was not in doubt when they were asked");
        let question = allocator.question();
        assert_eq!(reclaim(&mut allocator, &question, 4), None, "it is held for another");
        assert_eq!(reclaim(&mut allocator, &question, 3), Some(100));
        assert_eq!(allocator.allocate(&service(3), 80), Ok(100));
        assert_eq!(reclaim(&mut allocator, &question, 3), None, "it has it");
        allocator.release_except(&service(2), &[]);
        assert_eq!((allocator.used(), allocator.free()), (1, 1));
    }

    #[test]
    fn an_answer_to_an_older_question_does_not_clear_a_later_release() {
        let mut allocator = confirmed(100, 100, vec![]);
        allocator.allocate(&service(1), 80).unwrap();
        allocator.release_except(&service(1), &[]);
        let question = allocator.question();
        let answer = BTreeSet::new();
        allocator.confirm(&question, &answer);
        allocator.allocate(&service(2), 80).unwrap();
        allocator.release_except(&service(2), &[]);
        allocator.confirm(&question, &answer);
        assert!(allocator.allocate(&service(3), 80).is_err());
    }
}
