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
        self.doubtful.remove(&listen_port);
        self.owners.insert(listen_port, owner.clone());
        self.by_owner.insert(owner, listen_port);
    }

    /// What only one claims is its own.
    fn own_what_one_claims(&mut self) {
        let alone: Vec<_> = self.claimed.extract_if(.., |_, owners| owners.len() == 1).collect();
        for (listen_port, owners) in alone {
            for owner in owners {
                self.own(owner, listen_port);
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
                self.own(holder.clone(), *listen_port);
            }
        }
        for (service, port) in claimed.iter().flat_map(|(_, owners)| owners) {
            self.reclaim(question, held_for, service, *port);
        }
        for (listen_port, owners) in claimed {
            let without = owners.into_iter().find(|owner| !self.by_owner.contains_key(owner));
            if let Some(owner) = without.filter(|_| self.doubtful.contains_key(&listen_port)) {
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
mod tests;
