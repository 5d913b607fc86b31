//! Watches, begun again for ever and soon after they broke.

use std::fmt::Debug;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{Config, DefaultBackoff, Error, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// The longest wait before a broken watch is begun again. The library's own grows to a minute while an API server cannot be
/// reached, and a cluster whose server is back would be left with the endpoints of before; a few replicas with a score of
/// watches each are no burden to a server that comes up.
const LONGEST: Duration = Duration::from_secs(2);
/// The wait where the right is missing: somebody has to give it.
const FORBIDDEN: Duration = Duration::from_secs(10);

/// The objects of `api` that `config` selects, as they come and go.
pub(crate) fn objects<K>(
    api: Api<K>,
    config: Config,
) -> impl Stream<Item = Result<Event<K>, Error>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Clone,
{
    let events = Box::pin(watcher(api, config).backoff(Soon::default()));
    stream::unfold((events, false), |(mut events, forbidden)| async move {
        if forbidden {
            tokio::time::sleep(FORBIDDEN).await;
        }
        let event = events.next().await?;
        let forbidden = event.as_ref().is_err_and(is_forbidden);
        Some((event, (events, forbidden)))
    })
}

/// Whether the API server says that the right is missing.
pub(crate) fn is_forbidden(error: &Error) -> bool {
    use kube::Error::Api;
    match error {
        Error::InitialListFailed(Api(status))
        | Error::WatchStartFailed(Api(status))
        | Error::WatchError(status) => status.code == 403,
        _ => false,
    }
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
    use std::convert::Infallible;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use hyper::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Client;
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    #[test]
    fn after_a_long_outage_no_wait_is_long() {
        let waits: Vec<_> = Soon::default().take(1000).collect();
        assert_eq!(waits.len(), 1000, "it never gives up");
        assert!(waits.iter().all(|wait| !wait.is_zero() && *wait <= LONGEST), "{waits:?}");
    }

    /// How often it is asked in a minute by a watch that is answered with `code`.
    async fn asked_in_a_minute(code: u16) -> u32 {
        let asked = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        let server = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Relaxed);
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code});
            let answer = Response::builder().status(code).body(Body::from(status.to_string().into_bytes()));
            std::future::ready(Ok::<_, Infallible>(answer.unwrap()))
        });
        let api: Api<ConfigMap> = Api::namespaced(Client::new(server, "ns"), "ns");
        let mut events = pin!(objects(api, Config::default()));
        let minute = Duration::from_secs(60);
        let _ = tokio::time::timeout(minute, async { while events.next().await.is_some() {} }).await;
        asked.load(Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_right_is_missing_it_is_asked_seldom() {
        assert!(asked_in_a_minute(503).await >= 25);
        assert!((4..=7).contains(&asked_in_a_minute(403).await));
    }
}
