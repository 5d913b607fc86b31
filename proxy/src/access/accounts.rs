//! Who runs at which address.
//!
//! Lookups take no lock: the addresses lie in shards, each swapped whole when one of its addresses changes hands. An account,
//! once heard of, is kept for the life of the process, about a hundred bytes for each; so rules may refer to it by number.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use weft_config::{Access, AccountId, Identity};

use super::rules::{Ask, Rules};
use crate::balance::{now_ms, now_ms_and};

/// How many parts the addresses are divided into: a change copies one.
const SHARDS: usize = 256;
/// How long identities are believed while no operator can be reached. Pods come and go meanwhile, and their addresses are
/// given to others: after this nobody is known any more, and what is restricted is denied.
pub const BELIEVED: Duration = Duration::from_secs(600);
/// How long a source that is not known is waited for. A pod runs before the API server is told its address, a second or two.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How many may wait at a time: what does not belong to a pod must not fill the memory with its requests.
const MOST_WAITING: usize = 1024;

/// A `ServiceAccount`: as whom pods run, and what may be sent to them.
#[derive(Debug)]
pub struct Account {
    /// Its namespace and name.
    pub id: AccountId,
    /// What rules call it.
    pub(super) number: u32,
    rules: ArcSwap<Rules>,
}

impl Account {
    /// Whether `source` may send what `ask` describes to those who run as this.
    pub fn allows(&self, source: &Account, ask: &Ask<'_>) -> bool {
        self.rules.load().allow(source.number, ask)
    }
}

type Shard = HashMap<IpAddr, Arc<Account>>;

/// All accounts, and who runs as them.
#[derive(Debug)]
pub struct Accounts {
    shards: Box<[ArcSwap<Shard>]>,
    known: Mutex<HashMap<AccountId, Known>>,
    /// Grows with each change of who runs where.
    generation: AtomicU64,
    /// Told of each change of who runs where or what is allowed.
    changed: watch::Sender<()>,
    /// Until when identities are believed, in [`now_ms`].
    believed_until: AtomicU64,
    /// How many wait for somebody to become known.
    waiting: AtomicUsize,
}

/// Counts one that waits, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[derive(Debug)]
struct Known {
    account: Arc<Account>,
    /// Ascending.
    addresses: Vec<IpAddr>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            known: Mutex::default(),
            generation: AtomicU64::new(1),
            changed: watch::Sender::new(()),
            believed_until: AtomicU64::new(u64::MAX),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl Accounts {
    /// Who runs at `address`.
    pub fn at(&self, address: IpAddr) -> Option<Arc<Account>> {
        let address = address.to_canonical();
        self.shards[shard_of(address)].load().get(&address).cloned()
    }

    /// Who sends from `address`; nobody when what is known of it is too old.
    pub fn source(&self, address: IpAddr) -> Option<Arc<Account>> {
        if self.is_stale() { None } else { self.at(address) }
    }

    /// The same; of an address that is not known it waits a moment to become so.
    pub async fn source_soon(&self, address: IpAddr) -> Option<Arc<Account>> {
        // Nobody is kept waiting when nobody is known anyway.
        if self.is_stale() { None } else { self.soon(PATIENCE, || self.source(address)).await }
    }

    /// What `look` finds, at once or after some change within `patience`. Too many that wait are not kept waiting.
    pub(super) async fn soon<T>(&self, patience: Duration, look: impl Fn() -> Option<T>) -> Option<T> {
        if let Some(found) = look() {
            return Some(found);
        }
        let waiting = Waiting(&self.waiting);
        if waiting.0.fetch_add(1, SeqCst) >= MOST_WAITING {
            return None;
        }
        let mut changed = self.changes();
        let found = async {
            loop {
                match look() {
                    Some(found) => return Some(found),
                    None => changed.changed().await.ok()?,
                }
            }
        };
        timeout(patience, found).await.ok()?
    }

    /// Something that decisions depend on has changed.
    pub fn tell(&self) {
        self.changed.send_replace(());
    }

    /// Whether what is known of identities is too old.
    pub fn is_stale(&self) -> bool {
        let until = self.believed_until.load(SeqCst);
        until != u64::MAX && now_ms() >= until
    }

    /// An operator is there: what it says is so.
    pub fn believe(&self) {
        if self.believed_until.swap(u64::MAX, SeqCst) != u64::MAX {
            self.tell();
        }
    }

    /// No operator is there: what is known becomes old.
    pub fn doubt(&self) {
        self.doubt_since(Duration::ZERO);
    }

    /// The same where an operator was there last so long ago.
    pub fn doubt_since(&self, ago: Duration) {
        // Only the first time counts.
        let until = now_ms_and(BELIEVED.saturating_sub(ago));
        let _ = self.believed_until.compare_exchange(u64::MAX, until, SeqCst, SeqCst);
    }

    /// Grows with each change of who runs where.
    pub fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// Told of each change from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Replaces who runs as the given accounts. Addresses that pass from one of them to another are never nobody's or the
    /// former's once this returns.
    pub fn set_identities<'a>(&self, changes: impl IntoIterator<Item = (&'a AccountId, &'a Identity)>) {
        let mut known = self.known.lock();
        let (mut lost, mut won) = (Vec::new(), Vec::new());
        for (id, identity) in changes {
            let held = know(&mut known, id);
            let now: Vec<_> = identity.addresses.iter().map(IpAddr::to_canonical).collect();
            let has = |list: &[IpAddr], address: &IpAddr| list.binary_search(address).is_ok();
            let gone = held.addresses.iter().filter(|address| !has(&now, address));
            lost.extend(gone.map(|address| (*address, held.account.number)));
            // All of them, not only what is new: another account may have claimed one meanwhile.
            let account = &held.account;
            let mine = |address: &&IpAddr| self.at(**address).is_some_and(|at| at.number == account.number);
            won.extend(
                now.iter().filter(|address| !mine(address)).map(|address| (*address, Arc::clone(account))),
            );
            held.addresses = now;
        }
        let mut shards: HashMap<usize, Shard> = HashMap::new();
        let copy = |shard: usize| (*self.shards[shard].load_full()).clone();
        for (address, number) in lost {
            let shard = shard_of(address);
            let addresses = shards.entry(shard).or_insert_with(|| copy(shard));
            // Somebody else may have it by now.
            if addresses.get(&address).is_some_and(|account| account.number == number) {
                addresses.remove(&address);
            }
        }
        for (address, account) in won {
            let shard = shard_of(address);
            shards.entry(shard).or_insert_with(|| copy(shard)).insert(address, account);
        }
        if shards.is_empty() {
            return;
        }
        for (shard, addresses) in shards {
            self.shards[shard].store(Arc::new(addresses));
        }
        self.generation.fetch_add(1, SeqCst);
        self.tell();
    }

    /// Replaces what may be sent to those who run as `id`.
    pub fn set_access(&self, id: &AccountId, access: &Access) {
        let mut known = self.known.lock();
        let rules = Rules::new(access, |source| know(&mut known, source).account.number);
        know(&mut known, id).account.rules.store(Arc::new(rules));
        self.tell();
    }
}

fn know<'a>(known: &'a mut HashMap<AccountId, Known>, id: &AccountId) -> &'a mut Known {
    let number = u32::try_from(known.len()).unwrap_or(u32::MAX);
    known.entry(id.clone()).or_insert_with(|| {
        let account = Account { id: id.clone(), number, rules: ArcSwap::default() };
        Known { account: Arc::new(account), addresses: Vec::new() }
    })
}

/// By the last byte: neighbours, as pods of a node are, lie in different ones.
fn shard_of(address: IpAddr) -> usize {
    let last = match address {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    };
    usize::from(last) % SHARDS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account(name: &str) -> AccountId {
        AccountId { namespace: "shop".into(), name: name.into() }
    }

    fn address(n: u8) -> IpAddr {
        [10, 0, n / 2, n].into()
    }

    fn identity(addresses: &[u8]) -> Identity {
        Identity { addresses: addresses.iter().map(|n| address(*n)).collect() }
    }

    fn who(accounts: &Accounts, n: u8) -> Option<String> {
        accounts.source(address(n)).map(|account| account.id.name.to_string())
    }

    #[test]
    fn an_address_that_changes_hands_is_never_the_former_owners() {
        for both_at_once in [true, false] {
            for newer_first in [true, false] {
                let accounts = Accounts::default();
                let (a, b) = (account("a"), account("b"));
                accounts.set_identities([(&a, &identity(&[1, 2])), (&b, &identity(&[3]))]);
                let (less, more) = (identity(&[2]), identity(&[1, 3]));
                let mut changes = [(&a, &less), (&b, &more)];
                if newer_first {
                    changes.reverse();
                }
                if both_at_once {
                    accounts.set_identities(changes);
                } else {
                    for change in changes {
                        accounts.set_identities([change]);
                    }
                }
                let owners: Vec<_> = [1, 2, 3].map(|n| who(&accounts, n).unwrap()).into();
                assert_eq!(owners, ["b", "a", "b"]);
            }
        }
    }

    proptest! {
        /// After any changes an address belongs to whoever claimed it last and did not give it back.
        #[test]
        fn the_last_claim_holds(steps in prop::collection::vec((0..4u8, prop::collection::btree_set(0..12u8, 0..6)), 1..40)) {
            let accounts = Accounts::default();
            let mut expected: HashMap<u8, u8> = HashMap::new();
            for (owner, addresses) in steps {
                let list: Vec<_> = addresses.iter().copied().collect();
                accounts.set_identities([(&account(&owner.to_string()), &identity(&list))]);
                expected.retain(|address, by| *by != owner || addresses.contains(address));
                expected.extend(addresses.into_iter().map(|address| (address, owner)));
                for n in 0..12 {
                    prop_assert_eq!(who(&accounts, n), expected.get(&n).map(ToString::to_string));
                }
            }
        }
    }

    #[test]
    fn an_ipv4_peer_of_an_ipv6_socket_is_known() {
        let accounts = Accounts::default();
        accounts.set_identities([(&account("a"), &identity(&[7]))]);
        let IpAddr::V4(plain) = address(7) else { panic!("it is IPv4") };
        assert!(accounts.source(plain.to_ipv6_mapped().into()).is_some());
        assert!(accounts.source("::ffff:10.0.0.9".parse().unwrap()).is_none());
    }

    #[test]
    fn without_an_operator_nobody_is_known_for_ever() {
        let accounts = Accounts::default();
        accounts.set_identities([(&account("a"), &identity(&[1]))]);
        accounts.doubt();
        assert!(who(&accounts, 1).is_some(), "a short absence is not noticed");
        accounts.believed_until.store(now_ms(), SeqCst);
        assert!(who(&accounts, 1).is_none());
        accounts.doubt();
        assert!(who(&accounts, 1).is_none(), "trying again makes nothing younger");
        accounts.believe();
        assert!(who(&accounts, 1).is_some());
    }

    #[test]
    fn what_was_old_before_the_start_is_no_younger_after_it() {
        for (ago, known) in [(0, true), (599, true), (600, false), (u64::MAX, false)] {
            let accounts = Accounts::default();
            accounts.set_identities([(&account("a"), &identity(&[1]))]);
            accounts.doubt_since(Duration::from_secs(ago));
            accounts.doubt();
            assert_eq!(who(&accounts, 1).is_some(), known, "{ago} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_has_just_started_is_waited_for() {
        let accounts = Accounts::default();
        let (known, ()) = tokio::join!(accounts.source_soon(address(1)), async {
            tokio::time::sleep(PATIENCE / 2).await;
            accounts.set_identities([(&account("a"), &identity(&[1]))]);
        });
        assert_eq!(known.unwrap().id, account("a"));
        let began = tokio::time::Instant::now();
        assert!(accounts.source_soon(address(2)).await.is_none());
        assert_eq!(began.elapsed(), PATIENCE);
    }
}
