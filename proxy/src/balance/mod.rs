//! Which endpoint a request goes to: power of two choices on outstanding requests, over the ready endpoints.
//!
//! An endpoint that could not be connected to, or that failed several times in a row, is passed over for a while (passive
//! ejection), but never all of them: when every one is ejected they are used as if none were, and for failed answers never
//! more than half of them are.

mod connecting;
mod endpoint;
pub mod split;

use std::borrow::Borrow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwapOption;
use weft_config::Endpoints;

use crate::access::{Account, Accounts};

pub use connecting::Connecting;
pub use endpoint::{EndpointState, now_ms, now_ms_and};

/// Counts a request on its way to an endpoint, until dropped.
#[derive(Debug)]
pub struct Outstanding(Arc<EndpointState>);

impl Outstanding {
    /// The endpoint.
    pub fn endpoint(&self) -> &EndpointState {
        &self.0
    }

    /// Whether it is still in `list`.
    pub fn is_in(&self, list: &EndpointList) -> bool {
        list.ready.iter().chain(&list.draining).any(|state| Arc::ptr_eq(state, &self.0))
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Relaxed);
    }
}

/// The endpoints of one port of a Service, as they are now. Replaced whole when they change.
#[derive(Debug, Default)]
pub struct EndpointList {
    ready: Vec<Arc<EndpointState>>,
    draining: Vec<Arc<EndpointState>>,
    unready: u32,
    /// As whom they run, as far as somebody asked.
    runs: ArcSwapOption<Runs>,
}

/// As whom the endpoints of a list run; `None`: that is not known of some.
type RunAs = Arc<[Option<Arc<Account>>]>;

#[derive(Debug)]
struct Runs {
    /// Of [`Accounts`], when this was looked up.
    generation: u64,
    accounts: RunAs,
}

impl EndpointList {
    /// The list for `endpoints`, which takes over the state of those that `before` knew.
    pub fn new(endpoints: &Endpoints, before: &Self) -> Self {
        let state = |address: &SocketAddr| {
            let known = before.ready.iter().chain(&before.draining).find(|state| state.address == *address);
            known.cloned().unwrap_or_else(|| Arc::new(EndpointState::new(*address)))
        };
        Self {
            ready: endpoints.ready.iter().map(state).collect(),
            draining: endpoints.draining.iter().map(state).collect(),
            unready: endpoints.unready,
            runs: ArcSwapOption::empty(),
        }
    }

    /// As whom its usable endpoints run, each once. Looked up again only when some pod changed.
    pub fn accounts(&self, accounts: &Accounts) -> RunAs {
        let generation = accounts.generation();
        if let Some(runs) = &*self.runs.load()
            && runs.generation == generation
        {
            return Arc::clone(&runs.accounts);
        }
        let mut all: Vec<Option<Arc<Account>>> = Vec::new();
        for endpoint in self.candidates() {
            let account = accounts.at(endpoint.address.ip());
            let same = |one: &Option<Arc<Account>>| match (one, &account) {
                (Some(one), Some(account)) => Arc::ptr_eq(one, account),
                (None, None) => true,
                _ => false,
            };
            if !all.iter().any(same) {
                all.push(account);
            }
        }
        let all: RunAs = all.into();
        self.runs.store(Some(Arc::new(Runs { generation, accounts: Arc::clone(&all) })));
        all
    }

    /// Picks an endpoint for a request that has already tried `tried`. `None`: there is nothing to send it to.
    ///
    /// An endpoint that was tried is picked again only when there is no other.
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<Outstanding> {
        two_choices(self.candidates(), tried).map(outstanding)
    }

    /// The same, among the endpoints for which `may` holds.
    pub fn pick_where(
        &self,
        tried: &[SocketAddr],
        may: impl Fn(&EndpointState) -> bool,
    ) -> Option<Outstanding> {
        let some: Vec<_> = self.candidates().iter().filter(|endpoint| may(endpoint)).collect();
        two_choices(&some, tried).map(outstanding)
    }

    fn candidates(&self) -> &[Arc<EndpointState>] {
        if self.ready.is_empty() { &self.draining } else { &self.ready }
    }

    /// A request to `endpoint` failed. True: it is passed over from now on, unless half of the endpoints are already.
    pub fn answer_failed(&self, endpoint: &EndpointState) -> bool {
        endpoint.answer_failed() && self.pass_over(endpoint)
    }

    /// A datagram goes to `endpoint`. True: it has been silent for too long and is passed over from now on.
    pub fn datagram_goes(&self, endpoint: &EndpointState) -> bool {
        endpoint.datagram_goes(now_ms) && self.pass_over(endpoint)
    }

    fn pass_over(&self, endpoint: &EndpointState) -> bool {
        let ejected = self.ready.iter().filter(|state| state.is_ejected()).count();
        let may = (ejected + 1) * 2 <= self.ready.len();
        if may {
            endpoint.eject();
        }
        may
    }

    /// Why there is nothing to pick from, for people.
    pub fn why_empty(&self) -> String {
        match self.unready {
            0 => "the Service has no endpoints".to_owned(),
            1 => "its only endpoint is not ready".to_owned(),
            n => format!("none of its {n} endpoints is ready"),
        }
    }

    /// The number of endpoints requests may go to.
    pub fn usable(&self) -> usize {
        self.candidates().len()
    }
}

fn outstanding(picked: &Arc<EndpointState>) -> Outstanding {
    picked.outstanding.fetch_add(1, Relaxed);
    Outstanding(Arc::clone(picked))
}

fn two_choices<'a, E: Borrow<Arc<EndpointState>>>(
    list: &'a [E],
    tried: &[SocketAddr],
) -> Option<&'a Arc<EndpointState>> {
    let good = |state: &Arc<EndpointState>| !state.is_ejected() && !tried.contains(&state.address);
    match list {
        [] => return None,
        [only] => return Some(only.borrow()),
        _ => {}
    }
    let first = fastrand::usize(..list.len());
    let mut second = fastrand::usize(..list.len() - 1);
    if second >= first {
        second += 1;
    }
    let (first, second) = (list[first].borrow(), list[second].borrow());
    match (good(first), good(second)) {
        (true, true) if second.outstanding() < first.outstanding() => Some(second),
        (true, _) => Some(first),
        (false, true) => Some(second),
        // Rare: both drawn are out. Look at all, from a random place on, and take the best kind there is.
        (false, false) => {
            let from = fastrand::usize(..list.len());
            let around = || list[from..].iter().chain(&list[..from]).map(Borrow::borrow);
            around()
                .find(|state| good(state))
                .or_else(|| around().find(|state| !tried.contains(&state.address)))
                .or(Some(first))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(i: u8) -> SocketAddr {
        ([10, 0, 0, i], 80).into()
    }

    fn list(ready: &[u8], draining: &[u8]) -> EndpointList {
        let all = |list: &[u8]| list.iter().map(|i| address(*i)).collect();
        let endpoints = Endpoints { ready: all(ready), draining: all(draining), unready: 0 };
        EndpointList::new(&endpoints, &EndpointList::default())
    }

    fn picks(
        list: &EndpointList,
        tried: &[SocketAddr],
        n: usize,
    ) -> std::collections::BTreeMap<SocketAddr, usize> {
        fastrand::seed(7);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..n {
            *counts.entry(list.pick(tried).unwrap().endpoint().address).or_default() += 1;
        }
        counts
    }

    #[test]
    fn idle_endpoints_get_equal_shares() {
        let counts = picks(&list(&[1, 2, 3, 4], &[]), &[], 4000);
        assert_eq!(counts.len(), 4);
        assert!(counts.values().all(|n| (800..1200).contains(n)), "{counts:?}");
    }

    #[test]
    fn a_busy_endpoint_gets_less() {
        let list = list(&[1, 2, 3], &[]);
        let _busy: Vec<_> = (0..50)
            .map(|_| {
                list.ready[0].outstanding.fetch_add(1, Relaxed);
                Outstanding(Arc::clone(&list.ready[0]))
            })
            .collect();
        let counts = picks(&list, &[], 3000);
        assert_eq!(counts.get(&address(1)), None, "always loses against an idle one: {counts:?}");
    }

    #[test]
    fn outstanding_is_counted_until_dropped() {
        let list = list(&[1], &[]);
        let picked = list.pick(&[]).unwrap();
        assert_eq!(picked.endpoint().outstanding(), 1);
        drop(picked);
        assert_eq!(list.ready[0].outstanding(), 0);
    }

    #[test]
    fn a_failed_endpoint_is_passed_over_until_it_connects_again() {
        let list = list(&[1, 2, 3], &[]);
        list.ready[0].connect_failed();
        assert_eq!(picks(&list, &[], 500).get(&address(1)), None);
        list.ready[0].connected();
        assert!(picks(&list, &[], 500).contains_key(&address(1)));
    }

    #[test]
    fn an_endpoint_that_fails_again_and_again_is_passed_over() {
        let list = list(&[1, 2, 3], &[]);
        let bad = &list.ready[0];
        assert!((1..endpoint::MOST_FAILURES).all(|_| !list.answer_failed(bad)), "not yet");
        bad.answered();
        assert!((1..endpoint::MOST_FAILURES).all(|_| !list.answer_failed(bad)), "a good answer begins anew");
        assert!(list.answer_failed(bad));
        assert_eq!(picks(&list, &[], 500).get(&address(1)), None);
    }

    #[test]
    fn never_more_than_half_are_passed_over_for_what_they_answer() {
        let list = list(&[1, 2, 3], &[]);
        for state in &list.ready {
            (0..endpoint::MOST_FAILURES * 2).for_each(|_| {
                list.answer_failed(state);
            });
        }
        assert_eq!(picks(&list, &[], 500).len(), 2, "one of three");
        let only = super::tests::list(&[1], &[]);
        assert!((0..20).all(|_| !only.answer_failed(&only.ready[0])), "there is no other");
    }

    #[test]
    fn when_all_are_ejected_all_are_used() {
        let list = list(&[1, 2, 3], &[]);
        list.ready.iter().for_each(|state| state.connect_failed());
        assert_eq!(picks(&list, &[], 500).len(), 3);
    }

    #[test]
    fn a_retry_goes_elsewhere_while_there_is_an_elsewhere() {
        let list = list(&[1, 2, 3], &[]);
        assert_eq!(
            picks(&list, &[address(1), address(2)], 100).into_keys().collect::<Vec<_>>(),
            [address(3)]
        );
        assert!(list.pick(&[address(1), address(2), address(3)]).is_some());
    }

    #[test]
    fn a_retry_prefers_an_ejected_endpoint_to_the_one_that_just_failed() {
        let list = list(&[1, 2], &[]);
        list.ready.iter().for_each(|state| state.connect_failed());
        assert_eq!(picks(&list, &[address(1)], 100).into_keys().collect::<Vec<_>>(), [address(2)]);
    }

    #[test]
    fn draining_endpoints_are_a_last_resort() {
        assert_eq!(picks(&list(&[1], &[2, 3]), &[], 100).into_keys().collect::<Vec<_>>(), [address(1)]);
        assert_eq!(picks(&list(&[], &[2, 3]), &[], 100).len(), 2);
        assert!(list(&[], &[]).pick(&[]).is_none());
    }

    #[test]
    fn a_change_keeps_what_was_learnt_and_never_picks_what_is_gone() {
        let before = list(&[1, 2], &[]);
        before.ready[1].connect_failed();
        let endpoints = Endpoints { ready: vec![address(2), address(3)], ..Endpoints::default() };
        let after = EndpointList::new(&endpoints, &before);
        assert!(Arc::ptr_eq(&before.ready[1], &after.ready[0]));
        assert_eq!(picks(&after, &[], 200).into_keys().collect::<Vec<_>>(), [address(3)]);
    }

    #[test]
    fn people_are_told_why_there_is_nothing() {
        let text = |unready| EndpointList { unready, ..EndpointList::default() }.why_empty();
        assert_eq!(text(0), "the Service has no endpoints");
        assert_eq!(text(1), "its only endpoint is not ready");
        assert_eq!(text(3), "none of its 3 endpoints is ready");
    }
}
