//! Which of several backends a request goes to: at random, in proportion to their weights.
//!
//! A backend that has no endpoint is passed over, and its share goes to the others in proportion; one with weight 0 never gets
//! anything. What goes to a backend may be divided once more.

use std::sync::Arc;

use weft_config::HttpMatch;

use crate::http::matching::{self, Form};
use crate::tables::Backend;

/// The traffic of a port, divided.
#[derive(Debug)]
pub struct Split {
    /// Only requests that one of these describes are divided. All when empty.
    matches: Vec<HttpMatch>,
    shares: Vec<Share>,
    /// Of all shares, and of those within them: looked through for every datagram.
    backends: Box<[Arc<Backend>]>,
}

/// One part of it.
#[derive(Debug)]
pub struct Share {
    /// Where it goes.
    pub backend: Arc<Backend>,
    /// Means something only beside the others.
    pub weight: u32,
    /// How it is divided once more.
    pub split: Option<Split>,
}

impl Split {
    /// Divides among `shares`.
    pub fn new(matches: Vec<HttpMatch>, shares: impl IntoIterator<Item = Share>) -> Self {
        let shares: Vec<_> = shares.into_iter().filter(|share| share.weight > 0).collect();
        let nested = shares.iter().filter_map(|share| share.split.as_ref()).flat_map(Self::backends);
        let backends = shares.iter().map(|share| &share.backend).chain(nested).cloned().collect();
        Self { matches, shares, backends }
    }

    /// Whether it divides this; `form` is there for HTTP requests only.
    pub fn concerns(&self, form: Option<Form<'_>>) -> bool {
        self.matches.is_empty() || form.is_some_and(|form| matching::any(&self.matches, form))
    }

    /// Calls `f` for every backend that a request like this may go to.
    pub fn each<E>(
        &self,
        form: Option<Form<'_>>,
        f: &mut impl FnMut(&Arc<Backend>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.shares.iter().try_for_each(|share| match share.split_for(form) {
            Some(split) => split.each(form, f),
            None => f(&share.backend),
        })
    }

    /// All backends, the plain ones of those that are divided once more included.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// Where the next goes. `None`: nowhere; no backend has an endpoint.
    pub fn pick(&self, form: Option<Form<'_>>) -> Option<&Arc<Backend>> {
        // All have endpoints, mostly: the first draw is the last.
        let drawn = self.draw(|_| true)?;
        let share = if drawn.is_usable(form) { drawn } else { self.draw(|share| share.is_usable(form))? };
        match share.split_for(form) {
            Some(split) => split.pick(form),
            None => Some(&share.backend),
        }
    }

    fn draw(&self, counts: impl Fn(&Share) -> bool) -> Option<&Share> {
        let shares = || self.shares.iter().filter(|share| counts(share));
        let total: u64 = shares().map(|share| u64::from(share.weight)).sum();
        if total == 0 {
            return None;
        }
        let mut at = fastrand::u64(..total);
        for share in shares() {
            match at.checked_sub(share.weight.into()) {
                Some(rest) => at = rest,
                None => return Some(share),
            }
        }
        // An endpoint list changed between the sum and now.
        shares().next()
    }
}

impl Share {
    /// How what goes here is divided once more, if it is.
    fn split_for(&self, form: Option<Form<'_>>) -> Option<&Split> {
        self.split.as_ref().filter(|split| split.concerns(form))
    }

    fn is_usable(&self, form: Option<Form<'_>>) -> bool {
        match self.split_for(form) {
            Some(split) => split.shares.iter().any(|share| share.is_usable(form)),
            None => self.backend.endpoints.load().usable() > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use weft_config::{Endpoints, EndpointsId, Pattern, ServiceId};

    use super::*;
    use crate::balance::EndpointList;

    fn backend(endpoints: u8) -> Arc<Backend> {
        let ready = (0..endpoints).map(|i| ([10, 0, 0, i], 80).into()).collect();
        let list = EndpointList::new(&Endpoints { ready, ..Endpoints::default() }, &EndpointList::default());
        let id = EndpointsId { service: ServiceId::new("shop", "part"), port: 80 };
        let backend = Backend::new(id);
        backend.endpoints.store(Arc::new(list));
        Arc::new(backend)
    }

    fn share(backend: &Arc<Backend>, weight: u32) -> Share {
        Share { backend: Arc::clone(backend), weight, split: None }
    }

    fn counts(split: &Split, form: Option<Form<'_>>, backends: &[&Arc<Backend>]) -> Vec<u32> {
        fastrand::seed(11);
        let mut counts = vec![0; backends.len()];
        for _ in 0..10_000 {
            if let Some(picked) = split.pick(form) {
                counts[backends.iter().position(|backend| Arc::ptr_eq(backend, picked)).unwrap()] += 1;
            }
        }
        counts
    }

    /// How often each of the backends was picked in 10,000 times.
    fn shares(backends: &[(Arc<Backend>, u32)]) -> Vec<u32> {
        let split = Split::new(Vec::new(), backends.iter().map(|(backend, weight)| share(backend, *weight)));
        counts(&split, None, &backends.iter().map(|(backend, _)| backend).collect::<Vec<_>>())
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
        assert!(Split::new(Vec::new(), []).pick(None).is_none());
    }

    #[test]
    fn a_share_is_divided_once_more_for_the_requests_that_concerns() {
        let [plain, a, b, empty] = [backend(1), backend(1), backend(1), backend(0)];
        let beta = HttpMatch {
            headers: vec![("beta".into(), Pattern::anywhere("1").unwrap())],
            ..HttpMatch::default()
        };
        let inner = Split::new(vec![beta], [share(&a, 3), share(&empty, 5)]);
        let outer =
            Split::new(Vec::new(), [Share { split: Some(inner), ..share(&plain, 50) }, share(&b, 50)]);
        let all = [&plain, &a, &b];
        let mut headers = HeaderMap::new();
        let none = counts(&outer, Some(Form { method: "GET", path: "/", headers: &headers }), &all);
        assert!(none[1] == 0 && (4_900..5_100).contains(&none[0]), "{none:?}");
        headers.insert("beta", "1".parse().unwrap());
        let form = Some(Form { method: "GET", path: "/", headers: &headers });
        let some = counts(&outer, form, &all);
        assert!(some[0] == 0 && (4_900..5_100).contains(&some[1]), "{some:?}");
        let mut seen = 0;
        let count = &mut |_: &Arc<Backend>| {
            seen += 1;
            Ok::<_, ()>(())
        };
        outer.each(form, count).unwrap();
        assert_eq!(seen, 3, "a, the one without endpoints, and b");
        assert_eq!(counts(&outer, None, &all)[1], 0, "what is no HTTP request matches nothing");
    }

    #[test]
    fn a_share_whose_parts_are_all_without_endpoints_goes_to_the_others() {
        let [plain, b, empty] = [backend(1), backend(1), backend(0)];
        let inner = Split::new(Vec::new(), [share(&empty, 1)]);
        let outer = Split::new(Vec::new(), [Share { split: Some(inner), ..share(&plain, 99) }, share(&b, 1)]);
        assert_eq!(counts(&outer, None, &[&plain, &b]), [0, 10_000]);
    }
}
