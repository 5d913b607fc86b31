//! Which of several backends a request goes to: at random, in proportion to their weights.
//!
//! A backend that has no endpoint is passed over, and its share goes to the others in proportion; one with weight 0 never gets
//! anything.

use std::sync::Arc;

use weft_config::HttpMatch;

use crate::tables::Backend;

/// The traffic of a port, divided.
#[derive(Debug)]
pub struct Split {
    /// Only requests that one of these describes are divided. All when empty.
    pub matches: Vec<HttpMatch>,
    shares: Vec<Share>,
}

#[derive(Debug)]
struct Share {
    backend: Arc<Backend>,
    weight: u64,
}

impl Split {
    /// Divides among `backends`, each with its weight.
    pub fn new(matches: Vec<HttpMatch>, backends: impl IntoIterator<Item = (Arc<Backend>, u32)>) -> Self {
        let share = |(backend, weight): (_, u32)| Share { backend, weight: weight.into() };
        let shares = backends.into_iter().map(share).filter(|share| share.weight > 0).collect();
        Self { matches, shares }
    }

    /// All of them.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.shares.iter().map(|share| &share.backend)
    }

    /// Where the next goes. `None`: nowhere; no backend has an endpoint.
    pub fn pick(&self) -> Option<&Arc<Backend>> {
        // All have endpoints, mostly: the first draw is the last.
        let drawn = self.draw(|_| true)?;
        if usable(drawn) { Some(drawn) } else { self.draw(usable) }
    }

    fn draw(&self, counts: impl Fn(&Arc<Backend>) -> bool) -> Option<&Arc<Backend>> {
        let shares = || self.shares.iter().filter(|share| counts(&share.backend));
        let total: u64 = shares().map(|share| share.weight).sum();
        if total == 0 {
            return None;
        }
        let mut at = fastrand::u64(..total);
        for share in shares() {
            match at.checked_sub(share.weight) {
                Some(rest) => at = rest,
                None => return Some(&share.backend),
            }
        }
        // An endpoint list changed between the sum and now.
        shares().next().map(|share| &share.backend)
    }
}

fn usable(backend: &Arc<Backend>) -> bool {
    backend.endpoints.load().usable() > 0
}

#[cfg(test)]
mod tests {
    use weft_config::Endpoints;

    use super::*;
    use crate::balance::EndpointList;

    fn backend(endpoints: u8) -> Arc<Backend> {
        let ready = (0..endpoints).map(|i| ([10, 0, 0, i], 80).into()).collect();
        let list = EndpointList::new(&Endpoints { ready, ..Endpoints::default() }, &EndpointList::default());
        let backend = Backend::default();
        backend.endpoints.store(Arc::new(list));
        Arc::new(backend)
    }

    /// How often each of the backends was picked in 10,000 times.
    fn shares(backends: &[(Arc<Backend>, u32)]) -> Vec<u32> {
        fastrand::seed(11);
        let split = Split::new(Vec::new(), backends.iter().cloned());
        let mut counts = vec![0; backends.len()];
        for _ in 0..10_000 {
            if let Some(picked) = split.pick() {
                counts[backends.iter().position(|(backend, _)| Arc::ptr_eq(backend, picked)).unwrap()] += 1;
            }
        }
        counts
    }

    #[test]
    fn shares_follow_the_weights() {
        for weights in [[90, 10], [1, 1], [999, 1], [50_000, 150_000]] {
            let backends = weights.map(|weight| (backend(1), weight));
            let sum = f64::from(weights.iter().sum::<u32>());
            for (count, weight) in shares(&backends).into_iter().zip(weights) {
                let off = (f64::from(count) / 10_000.0 - f64::from(weight) / sum).abs();
                assert!(off < 0.01, "{weights:?}: {count} for {weight}");
            }
        }
    }

    #[test]
    fn the_share_of_one_without_endpoints_goes_to_the_others() {
        let counts = shares(&[(backend(0), 50), (backend(1), 30), (backend(1), 10), (backend(1), 0)]);
        assert_eq!((counts[0], counts[3]), (0, 0), "{counts:?}");
        assert!((7_400..7_600).contains(&counts[1]), "{counts:?}");
        assert_eq!(counts.iter().sum::<u32>(), 10_000, "nothing is lost");
    }

    #[test]
    fn with_no_endpoint_anywhere_nothing_is_picked() {
        assert_eq!(shares(&[(backend(0), 1), (backend(0), 1), (backend(1), 0)]), [0, 0, 0]);
        assert!(Split::new(Vec::new(), []).pick().is_none());
    }
}
