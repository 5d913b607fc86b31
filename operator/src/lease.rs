//! Leader election on a Lease, with fencing: whoever writes holds a [`Fence`] that says when the right to write ends, by this
//! process's own clock.
//!
//! Clocks of different machines are never compared. A stand-by notes, by its own clock, when it last saw the record change;
//! only when it has not changed for the whole duration does it try to take over, with the record's resourceVersion as a
//! precondition, so that of several only one succeeds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;

/// How long a leader that is not heard of keeps the lead.
const DURATION: Duration = Duration::from_secs(10);
/// How often the leader renews and a stand-by looks.
const PERIOD: Duration = Duration::from_secs(2);
/// How long before the end of its term a leader stops to write: what a write may be on its way.
const MARGIN: Duration = Duration::from_secs(3);

/// Until when this process may write.
#[derive(Debug, Clone, Default)]
pub struct Fence(Arc<Mutex<Option<Instant>>>);

impl Fence {
    /// Whether writing is allowed now.
    pub fn is_open(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// What a stand-by has seen of the record.
#[derive(Debug, Default)]
struct Observed {
    resource_version: String,
    since: Option<Instant>,
}

/// What to do with a record just read.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It is ours: renew it.
    Renew,
    /// Nobody has it, or who has it has not been heard of for too long: take it.
    Take,
    /// Somebody has it.
    Wait,
}

impl Observed {
    /// Pure but for `now`.
    fn decide(&mut self, lease: &Lease, me: &str, now: Instant) -> Decision {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match self.since {
            Some(since) if self.resource_version == version => since,
            _ => now,
        };
        *self = Self { resource_version: version, since: Some(since) };
        match lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) {
            Some(holder) if holder == me => Decision::Renew,
            None | Some("") => Decision::Take,
            Some(_) if now.duration_since(since) >= DURATION => Decision::Take,
            Some(_) => Decision::Wait,
        }
    }
}

/// Takes part in the election as `me` until `stop`; `leading` says how it stands. On `stop` a leader gives the Lease back.
pub async fn take_part(
    client: Client,
    namespace: &str,
    name: &str,
    me: &str,
    fence: Fence,
    leading: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let api: Api<Lease> = Api::namespaced(client, namespace);
    let mut observed = Observed::default();
    loop {
        // The term counts from before the request: the record may have been written at any moment since.
        let began = Instant::now();
        let round = tokio::time::timeout(PERIOD, campaign(&api, name, me, &mut observed));
        match round.await {
            Ok(Ok(true)) => fence.set(Some(began + DURATION - MARGIN)),
            Ok(Ok(false)) => fence.set(None),
            Ok(Err(error)) => tracing::warn!(%error, lease = name, "leader election"),
            Err(_) => tracing::warn!(lease = name, "leader election: the API server does not answer"),
        }
        let leads = fence.is_open();
        leading.send_if_modified(|leading| {
            let changed = *leading != leads;
            if changed {
                tracing::info!(leads, "leadership");
            }
            *leading = leads;
            changed
        });
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    fence.set(None);
    leading.send_replace(false);
    if let Err(error) = resign(&api, name, me).await {
        tracing::warn!(%error, lease = name, "the lease could not be given back; it runs out by itself");
    }
}

async fn campaign(api: &Api<Lease>, name: &str, me: &str, observed: &mut Observed) -> kube::Result<bool> {
    let mut lease = api.get(name).await?;
    let decision = observed.decide(&lease, me, Instant::now());
    if decision == Decision::Wait {
        return Ok(false);
    }
    let now = MicroTime(Timestamp::now());
    let spec = lease.spec.get_or_insert_default();
    if decision == Decision::Take {
        spec.holder_identity = Some(me.to_owned());
        spec.acquire_time = Some(now.clone());
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
    }
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    spec.renew_time = Some(now);
    match api.replace(name, &PostParams::default(), &lease).await {
        Ok(written) => {
            observed.resource_version = written.metadata.resource_version.unwrap_or_default();
            Ok(true)
        }
        // Somebody was quicker: look again in the next round.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn resign(api: &Api<Lease>, name: &str, me: &str) -> kube::Result<()> {
    let mut lease = api.get(name).await?;
    let spec: &mut LeaseSpec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() == Some(me) {
        spec.holder_identity = Some(String::new());
        api.replace(name, &PostParams::default(), &lease).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some(version.into());
        lease.spec = Some(LeaseSpec { holder_identity: Some(holder.into()), ..LeaseSpec::default() });
        lease
    }

    #[test]
    fn an_empty_lease_is_taken_and_ours_is_renewed() {
        let mut observed = Observed::default();
        let now = Instant::now();
        assert_eq!(observed.decide(&Lease::default(), "a", now), Decision::Take);
        assert_eq!(observed.decide(&lease("", "1"), "a", now), Decision::Take);
        assert_eq!(observed.decide(&lease("a", "2"), "a", now), Decision::Renew);
    }

    #[test]
    fn a_leader_that_renews_keeps_the_lead_and_a_silent_one_loses_it() {
        let mut observed = Observed::default();
        let start = Instant::now();
        for second in 0..60 {
            let renewed = lease("b", &second.to_string());
            assert_eq!(observed.decide(&renewed, "a", start + Duration::from_secs(second)), Decision::Wait);
        }
        let last = start + Duration::from_secs(59);
        let silent = lease("b", "59");
        assert_eq!(observed.decide(&silent, "a", last + DURATION - Duration::from_millis(1)), Decision::Wait);
        assert_eq!(observed.decide(&silent, "a", last + DURATION), Decision::Take);
    }

    #[test]
    fn the_leader_stops_writing_before_another_may_begin() {
        // A stand-by waits the whole duration from when it saw a renewal, which is after the leader began it.
        assert!(DURATION - MARGIN + PERIOD <= DURATION - Duration::from_secs(1));
        let fence = Fence::default();
        assert!(!fence.is_open());
        fence.set(Some(Instant::now() + Duration::from_secs(1)));
        assert!(fence.is_open());
        fence.set(Some(Instant::now()));
        assert!(!fence.is_open());
    }
}
