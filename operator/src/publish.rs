//! The configuration as all proxies should hold it: kept in step with the index, one owner of resources at a time, and offered
//! to the streams as what changed since they last looked.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weft_config::{AccountId, Entry, ResourceKey, ResourceSet, ServiceId, Update};

use crate::annotations::Problem;
use crate::compile::{self, Compiled};
use crate::index::Index;
use crate::index::changes::{About, Changed};
use crate::policies;
use crate::serve::metrics::Metrics;

/// How many versions back a stream can be told what changed; a proxy further behind reconnects and gets the difference to what
/// it holds.
const REMEMBERED: usize = 1024;
/// How many keys those versions may name together, the latest version excepted.
const REMEMBERED_KEYS: usize = 1 << 16;

/// Shared by all tasks; cloning is cheap.
#[derive(Clone)]
pub struct Publisher {
    state: Arc<RwLock<State>>,
    version: watch::Sender<u64>,
}

/// Whose resources are replaced together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A Service: itself and its endpoints.
    Service(ServiceId),
    /// An account: who runs as it.
    Account(AccountId),
    /// All policies together: what may be sent to whom.
    Policies,
}

#[derive(Default)]
struct State {
    set: ResourceSet,
    /// Sorted.
    by_owner: HashMap<Owner, Box<[ResourceKey]>>,
    /// What was asked for and could not be understood.
    problems: BTreeMap<ServiceId, Vec<Problem>>,
    /// What this replica, as the leader, could not do for a Service.
    failures: BTreeMap<ServiceId, String>,
    version: u64,
    /// What changed with each of the latest versions, oldest first; the last is `version`'s.
    log: VecDeque<Version>,
    /// The number of keys in the log.
    logged: usize,
}

/// One of the latest versions.
struct Version {
    /// What changed with it.
    changed: Box<[ResourceKey]>,
    /// Digest of the whole.
    digest: u64,
    since: Instant,
}

impl State {
    fn remember(&mut self, changed: BTreeSet<ResourceKey>) {
        self.logged += changed.len();
        let (changed, digest) = (changed.into_iter().collect(), self.set.digest());
        self.log.push_back(Version { changed, digest, since: Instant::now() });
        while self.log.len() > REMEMBERED || (self.log.len() > 1 && self.logged > REMEMBERED_KEYS) {
            self.logged -= self.log.pop_front().map_or(0, |oldest| oldest.changed.len());
        }
    }
}

/// A change for one stream.
#[derive(Debug)]
pub struct Change {
    /// The version it leads to.
    pub version: u64,
    /// What changed.
    pub update: Update,
    /// Digest of the whole configuration at that version.
    pub digest: u64,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { state: Arc::default(), version: watch::Sender::new(0) }
    }
}

impl Publisher {
    /// Follows `index` for ever. Publishes nothing before the index is complete: a proxy would take what is missing for gone.
    pub async fn run(self, index: Index, metrics: Arc<Metrics>) {
        index.synced().await;
        let changes = index.changes(About::Everything);
        loop {
            let changed = changes.next().await;
            let began = Instant::now();
            self.publish(compile(&index, changed));
            metrics.compile.observe(began.elapsed().as_secs_f64());
        }
    }

    /// Replaces the resources of the given owners, at once for whoever looks. The first call publishes even when it changes
    /// nothing.
    pub fn publish(&self, compiled: Vec<(Owner, Compiled)>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = BTreeSet::new();
        for (owner, Compiled { entries, problems }) in compiled {
            if let Owner::Service(id) = &owner {
                if problems.is_empty() {
                    state.problems.remove(id);
                } else {
                    state.problems.insert(id.clone(), problems);
                }
            }
            let keys: BTreeSet<_> = entries.iter().map(|entry| entry.resource.key()).collect();
            let gone = state.by_owner.get(&owner).into_iter().flatten().filter(|key| !keys.contains(key));
            for key in gone.cloned().collect::<Vec<_>>() {
                state.set.remove(&key);
                changed.insert(key);
            }
            if keys.is_empty() {
                state.by_owner.remove(&owner);
            } else {
                state.by_owner.insert(owner, keys.into_iter().collect());
            }
            for entry in entries {
                let key = entry.resource.key();
                if state.set.insert(entry) {
                    changed.insert(key);
                }
            }
        }
        if changed.is_empty() && state.version > 0 {
            return;
        }
        state.version += 1;
        state.remember(changed);
        self.version.send_replace(state.version);
    }

    /// The version now in force, as it grows; 0 before the first.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// What a proxy lacks that holds `held`.
    pub fn difference(&self, held: &BTreeMap<ResourceKey, u64>) -> Change {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Change { version: state.version, update: state.set.missing_from(held), digest: state.set.digest() }
    }

    /// What changed since `version`, however many versions that is. `None`: it is too long ago to know.
    pub fn since(&self, version: u64) -> Option<Change> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let behind = usize::try_from(state.version.checked_sub(version)?).ok()?;
        let from = state.log.len().checked_sub(behind)?;
        let keys: BTreeSet<_> = state.log.range(from..).flat_map(|version| &version.changed).collect();
        let mut update = Update::default();
        for key in keys {
            match state.set.get(key) {
                Some(entry) => update.upserts.push(entry.clone()),
                None => update.removals.push(key.clone()),
            }
        }
        Some(Change { version: state.version, update, digest: state.set.digest() })
    }

    /// Digest of the whole configuration, in the form proxies report theirs.
    pub fn digest(&self) -> String {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        format!("{:016x}", state.set.digest())
    }

    /// Whether `digest`, in that form, is the current one or was within the last `while_ago`: where changes come all the time,
    /// a proxy that keeps up holds the current configuration at no moment anybody asks.
    pub fn is_recent(&self, digest: &str, while_ago: Duration) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Ok(digest) = u64::from_str_radix(digest, 16) else { return false };
        let Some(at) = state.log.iter().rposition(|version| version.digest == digest) else { return false };
        state.log.get(at + 1).is_none_or(|after| after.since.elapsed() <= while_ago)
    }

    /// What was asked for one Service and could not be understood.
    pub fn problems_of(&self, service: &ServiceId) -> Vec<Problem> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.problems.get(service).cloned().unwrap_or_default()
    }

    /// What could not be done for one Service, as far as this replica leads.
    pub fn failure_of(&self, service: &ServiceId) -> Option<String> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.failures.get(service).cloned()
    }

    /// This is all that could not be done.
    pub fn set_failures(&self, failures: BTreeMap<ServiceId, String>) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).failures = failures;
    }

    /// The resources of one owner.
    pub fn resources_of(&self, owner: &Owner) -> Vec<Entry> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let keys = state.by_owner.get(owner).into_iter().flatten();
        keys.filter_map(|key| state.set.get(key).cloned()).collect()
    }

    /// What was asked for and could not be understood, by Service.
    pub fn problems(&self) -> BTreeMap<ServiceId, Vec<Problem>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).problems.clone()
    }

    /// All resources, in the order of their keys.
    pub fn configuration(&self) -> Vec<Entry> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).set.iter().cloned().collect()
    }

    /// The number of resources.
    pub fn resources(&self) -> usize {
        self.state.read().unwrap_or_else(PoisonError::into_inner).set.len()
    }
}

/// Compiles what `changed` concerns.
fn compile(index: &Index, changed: Changed) -> Vec<(Owner, Compiled)> {
    let scope = index.scope();
    let service = |id: ServiceId| {
        let compiled = index.meshed(&id).map(|service| {
            let (slices, shadow) = (index.slices(&id), index.shadow(&id));
            let splits = policies::splits(index, &service);
            compile::service(&service, &slices, shadow.as_deref(), &scope, splits)
        });
        (Owner::Service(id), compiled.unwrap_or_default())
    };
    let compiled = |entries| Compiled { entries, problems: Vec::new() };
    let account = |account: AccountId| {
        let entries = policies::identity(index, &account);
        (Owner::Account(account), compiled(entries))
    };
    let services: BTreeSet<_> = changed.services.into_iter().chain(changed.endpoints).collect();
    let services = services.into_iter().map(service);
    let mut all: Vec<_> = services.chain(changed.accounts.into_iter().map(account)).collect();
    if changed.policies {
        all.push((Owner::Policies, compiled(policies::access(index))));
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_config::{Endpoints, EndpointsId, Resource};

    use super::*;

    fn service(i: u8) -> ServiceId {
        ServiceId::new("ns", format!("s{i}"))
    }

    fn owner(i: u8) -> Owner {
        Owner::Service(service(i))
    }

    /// Service `i` with `ports` ports of `ready` endpoints each.
    fn entries(i: u8, ports: u16, ready: u8) -> Compiled {
        let list = |port| {
            let ready = (0..ready).map(|a| ([10, 0, i, a], 80).into()).collect();
            let id = EndpointsId { service: service(i), port };
            Entry::new(Resource::Endpoints(id, Endpoints { ready, ..Endpoints::default() }))
        };
        Compiled { entries: (1..=ports).map(list).collect(), problems: Vec::new() }
    }

    proptest! {
        /// A stream that looks now and then holds in the end what a new one gets at once.
        #[test]
        fn following_the_changes_is_as_good_as_the_whole(
            steps in prop::collection::vec((0..5u8, 0..3u16, 0..3u8, any::<bool>()), 1..60)
        ) {
            let publisher = Publisher::default();
            let mut held = ResourceSet::default();
            let mut at = 0;
            for (i, ports, ready, look) in steps {
                publisher.publish(vec![(owner(i), entries(i, ports, ready))]);
                if look {
                    let change = publisher.since(at).unwrap();
                    held.apply(&change.update);
                    at = change.version;
                    prop_assert_eq!(held.digest(), change.digest);
                }
            }
            held.apply(&publisher.since(at).unwrap().update);
            let whole = publisher.difference(&BTreeMap::new());
            prop_assert_eq!(held.digest(), whole.digest);
            prop_assert_eq!(held.len(), whole.update.upserts.len());
        }
    }

    #[test]
    fn what_is_too_long_ago_is_not_guessed() {
        let publisher = Publisher::default();
        for i in 0..=REMEMBERED {
            publisher.publish(vec![(owner(1), entries(1, 1, u8::from(i % 2 == 0)))]);
        }
        assert!(publisher.since(0).is_none());
        assert!(publisher.since(1).is_some());
        assert!(publisher.since(u64::MAX).is_none(), "a version from another life");
    }

    #[test]
    fn large_changes_are_remembered_fewer_at_a_time() {
        let publisher = Publisher::default();
        let ports = u16::try_from(REMEMBERED_KEYS / 2 + 1).unwrap();
        for ready in 0..4 {
            publisher.publish(vec![(owner(1), entries(1, ports, ready))]);
        }
        assert!(publisher.since(2).is_none());
        let last = publisher.since(3).unwrap();
        assert_eq!(
            last.update.upserts.len(),
            usize::from(ports),
            "the latest is remembered whatever its size"
        );
    }

    #[test]
    fn what_was_current_a_moment_ago_is_recent_and_what_never_was_is_not() {
        let publisher = Publisher::default();
        let digests: Vec<_> = (1..4)
            .map(|ready| {
                publisher.publish(vec![(owner(1), entries(1, 1, ready))]);
                publisher.digest()
            })
            .collect();
        let recent = |digest: &str, ago| publisher.is_recent(digest, Duration::from_secs(ago));
        assert!(digests.iter().all(|digest| recent(digest, 60)));
        assert!(recent(&digests[2], 0) && !recent(&digests[0], 0), "the first was replaced before that");
        assert!(!recent("0000000000000001", 60) && !recent("no digest", 60));
    }

    #[tokio::test]
    async fn nothing_is_published_before_every_watch_has_its_list() {
        let index = Index::new("weft-system");
        let publisher = Publisher::default();
        let mut run = Box::pin(publisher.clone().run(index.clone(), Arc::default()));
        for kind in index.awaited() {
            assert!(futures::poll!(&mut run).is_pending());
            assert_eq!(*publisher.versions().borrow(), 0, "there may be {kind}s that were not listed yet");
            index.listed(kind);
        }
        assert!(futures::poll!(&mut run).is_pending());
        assert_eq!(*publisher.versions().borrow(), 1, "complete, and empty");
    }

    #[test]
    fn nothing_new_is_no_version() {
        let publisher = Publisher::default();
        publisher.publish(vec![]);
        assert_eq!(*publisher.versions().borrow(), 1, "the first says: complete");
        publisher.publish(vec![(owner(1), entries(1, 1, 1))]);
        publisher.publish(vec![(owner(1), entries(1, 1, 1))]);
        assert_eq!(*publisher.versions().borrow(), 2);
    }
}
