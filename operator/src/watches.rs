//! Watches, begun again for ever and soon after they broke.

use std::fmt::Debug;
use std::time::Duration;

use futures::Stream;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{Config, DefaultBackoff, Error, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// The longest wait before a broken watch is begun again. The library's own grows to a minute, in which a cluster whose API
/// server is back after an outage would be left with the endpoints of before it; a few replicas with a score of watches each
/// are no burden to a server that comes up.
const LONGEST: Duration = Duration::from_secs(2);

/// The objects of `api` that `config` selects, as they come and go.
pub(crate) fn objects<K>(
    api: Api<K>,
    config: Config,
) -> impl Stream<Item = Result<Event<K>, Error>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Clone,
{
    watcher(api, config).backoff(Soon::default())
}

/// The library's waits, none longer than [`LONGEST`].
#[derive(Default)]
pub(crate) struct Soon(DefaultBackoff);

impl Iterator for Soon {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(LONGEST))
    }
}

impl Backoff for Soon {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_long_outage_no_wait_is_long() {
        let waits: Vec<_> = Soon::default().take(1000).collect();
        assert_eq!(waits.len(), 1000, "it never gives up");
        assert!(waits.iter().all(|wait| !wait.is_zero() && *wait <= LONGEST), "{waits:?}");
    }
}
