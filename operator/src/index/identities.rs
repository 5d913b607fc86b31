//! Whose an address is. Pure: the identities follow from the pods that are there, in whatever order they came.
//!
//! An address tells who calls, so a wrong answer lets somebody pass as somebody else; no answer lets nobody pass. While two pods
//! that live claim one address nobody has it. One that is being deleted gives way to one that lives, which may have been given
//! its address already.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use weft_config::{AccountId, Identity};

use super::pods::PodFacts;
use crate::smi::Name;

/// Who has which address.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// Pods that claim an address.
    claims: HashMap<IpAddr, Claims>,
    /// The one that has it.
    holders: HashMap<IpAddr, AccountId>,
    accounts: HashMap<AccountId, BTreeSet<IpAddr>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    account: AccountId,
    terminating: bool,
}

/// Those of the pods, mostly one, that claim one address.
#[derive(Debug, Default)]
struct Claims(Vec<(Name, Claim)>);

impl Claims {
    /// Returns what the pod claimed before.
    fn insert(&mut self, pod: &Name, claim: Claim) -> Option<Claim> {
        if let Some((_, known)) = self.0.iter_mut().find(|(name, _)| name == pod) {
            return Some(std::mem::replace(known, claim));
        }
        self.0.reserve_exact(1);
        self.0.push((pod.clone(), claim));
        None
    }

    fn remove(&mut self, pod: &Name) {
        self.0.retain(|(name, _)| name != pod);
    }

    /// The only one that lives; when none does, the only one there is.
    fn holder(&self) -> Option<&Claim> {
        let mut living = self.0.iter().map(|(_, claim)| claim).filter(|claim| !claim.terminating);
        match (living.next(), living.next()) {
            (Some(one), None) => Some(one),
            (Some(_), Some(_)) => None,
            (None, _) => self.0.first().map(|(_, claim)| claim).filter(|_| self.0.len() == 1),
        }
    }
}

impl Identities {
    /// The pod `name` was `before` and is `now`. Returns the accounts whose identity changed.
    pub(super) fn update(
        &mut self,
        name: &Name,
        before: Option<&PodFacts>,
        now: Option<&PodFacts>,
    ) -> BTreeSet<AccountId> {
        let claimed = |pod: Option<&PodFacts>| pod.map(claims).unwrap_or_default();
        let (before, now) = (claimed(before), claimed(now));
        let mut changed = BTreeSet::new();
        for (address, claim) in &now {
            let claims = self.claims.entry(*address).or_default();
            if claims.insert(name, claim.clone()).as_ref() != Some(claim) {
                self.settle(*address, &mut changed);
            }
        }
        for address in before.keys().filter(|address| !now.contains_key(address)) {
            if let Some(claims) = self.claims.get_mut(address) {
                claims.remove(name);
                if claims.0.is_empty() {
                    self.claims.remove(address);
                }
            }
            self.settle(*address, &mut changed);
        }
        changed
    }

    /// The addresses of those who run as `account`.
    pub(super) fn get(&self, account: &AccountId) -> Identity {
        let addresses = self.accounts.get(account).into_iter().flatten();
        Identity { addresses: addresses.copied().collect() }
    }

    /// As whom the pod at `address` runs.
    pub(super) fn holder_of(&self, address: IpAddr) -> Option<&AccountId> {
        self.holders.get(&address)
    }

    /// All accounts that have an address.
    pub(super) fn accounts(&self) -> impl Iterator<Item = &AccountId> {
        self.accounts.keys()
    }

    /// Decides anew who has `address`.
    fn settle(&mut self, address: IpAddr, changed: &mut BTreeSet<AccountId>) {
        let holder = self.claims.get(&address).and_then(Claims::holder).map(|claim| claim.account.clone());
        let before = match &holder {
            Some(holder) => self.holders.insert(address, holder.clone()),
            None => self.holders.remove(&address),
        };
        if before == holder {
            return;
        }
        if let Some(before) = before {
            if let Some(addresses) = self.accounts.get_mut(&before) {
                addresses.remove(&address);
                if addresses.is_empty() {
                    self.accounts.remove(&before);
                }
            }
            changed.insert(before);
        }
        if let Some(holder) = holder {
            self.accounts.entry(holder.clone()).or_default().insert(address);
            changed.insert(holder);
        }
    }
}

/// What `pod` claims. A pod on its node's network has the node's addresses, and who calls from there is not known. One that has
/// ended calls nobody; its address may be another's.
fn claims(pod: &PodFacts) -> BTreeMap<IpAddr, Claim> {
    if pod.host_network || pod.finished {
        return BTreeMap::new();
    }
    let account = AccountId { namespace: pod.name.namespace.clone(), name: pod.service_account.clone() };
    let claim = Claim { account, terminating: pod.terminating };
    pod.addresses.iter().map(|address| (*address, claim.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::pods::Labels;
    use super::*;

    fn pod(name: u8, account: u8, address: u8, state: u8) -> PodFacts {
        PodFacts {
            name: Name::new("shop", format!("pod{name}")),
            uid: "".into(),
            service_account: format!("account{account}").into(),
            addresses: vec![[10, 0, 0, address].into(), [10, 0, 1, address / 2].into()],
            host_network: state == 3,
            node: None,
            finished: state == 2,
            terminating: state == 1,
            owner: None,
            labels: Labels::default(),
        }
    }

    /// The rule once more, from the pods alone.
    fn expected(pods: &HashMap<Name, PodFacts>) -> BTreeMap<IpAddr, Arc<str>> {
        let all: BTreeSet<IpAddr> = pods.values().flat_map(|pod| pod.addresses.clone()).collect();
        let holder = |address: &IpAddr| {
            let here =
                |pod: &&PodFacts| !pod.host_network && !pod.finished && pod.addresses.contains(address);
            let (dying, living): (Vec<_>, Vec<_>) =
                pods.values().filter(here).partition(|pod| pod.terminating);
            match (&living[..], &dying[..]) {
                ([one], _) | ([], [one]) => Some(one.service_account.clone()),
                _ => None,
            }
        };
        all.into_iter().filter_map(|address| Some((address, holder(&address)?))).collect()
    }

    proptest! {
        /// Whatever happened before, the identities are those of the pods that are there; and who changed is told.
        #[test]
        fn identities_follow_from_the_pods_that_are_there(
            steps in prop::collection::vec((0..5u8, 0..3u8, 0..4u8, 0..5u8), 1..60)
        ) {
            let (mut identities, mut pods) = (Identities::default(), HashMap::new());
            let mut told: HashMap<AccountId, Identity> = HashMap::new();
            for (name, account, address, state) in steps {
                let now = (state < 4).then(|| pod(name, account, address, state));
                let name = Name::new("shop", format!("pod{name}"));
                let before = match now.clone() {
                    Some(now) => pods.insert(name.clone(), now),
                    None => pods.remove(&name),
                };
                for account in identities.update(&name, before.as_ref(), now.as_ref()) {
                    told.insert(account.clone(), identities.get(&account));
                }
                let mut seen = BTreeMap::new();
                for (account, identity) in &told {
                    prop_assert_eq!(identity, &identities.get(account), "{} was not told", account);
                    for address in &identity.addresses {
                        prop_assert!(seen.insert(*address, account.name.clone()).is_none(), "{} is two's", address);
                    }
                }
                prop_assert_eq!(&seen, &expected(&pods));
                prop_assert_eq!(identities.accounts().count(), told.values().filter(|i| !i.addresses.is_empty()).count());
                prop_assert_eq!(identities.holders.len(), seen.len(), "nothing is left behind");
            }
        }
    }
}
