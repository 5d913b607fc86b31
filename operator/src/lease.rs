//! Leader election on a Lease, with fencing: whoever writes holds a [`Fence`] that says when the right to write ends, by this
//! process's own clock.
//!
//! Clocks of different machines are never compared. A stand-by notes, by its own clock, when it last saw the record change
//! ([`record`]); only when it has not changed for the whole duration does it try to take over, with the record's
//! resourceVersion as a precondition, so that of several only one succeeds. It watches the record, and asks for it only when a
//! write of its own was refused. See docs/decisions/0020-never-two-writers.md.

mod contact;
mod fence;
mod record;

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::client::UNACKNOWLEDGED;
use crate::watches;
pub use contact::Contact;
pub use fence::Fence;
use record::{Decision, Record, give_back, holder};

/// Name of the Lease; the chart makes it.
pub const NAME: &str = "weft-operator";
/// How long a leader that is not heard of keeps the lead.
pub(crate) const DURATION: Duration = Duration::from_secs(10);
/// How often the leader renews.
const RENEW: Duration = Duration::from_secs(3);
/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a request of the election may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long before the end of its term a leader stops to write: longer than a write may be on its way.
const MARGIN: Duration = Duration::from_secs(4);
/// How long a write may take; then it is given up. What it sent may land for [`UNACKNOWLEDGED`] longer.
pub(crate) const WRITE: Duration = Duration::from_secs(2);
/// A write has landed so long after it began, or never does; whatever has become of the process that made it.
pub(crate) const LANDS_WITHIN: Duration = WRITE.saturating_add(UNACKNOWLEDGED);

/// Takes part in the election as `me` until `stop`; `leading` says how it stands, `contact` whether there is anybody to take part
/// with. On `stop` a leader gives the Lease back.
pub async fn take_part(
    client: Client,
    namespace: &str,
    me: &str,
    fence: Fence,
    contact: Contact,
    leading: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let api: Api<Lease> = Api::namespaced(client, namespace);
    let named = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut events = pin!(watches::objects(api.clone(), named));
    let mut listed = None;
    let mut candidate = Candidate::new(api, me, fence, contact);
    loop {
        let next = candidate.next();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            event = events.next() => match event {
                Some(Ok(event)) => candidate.notice(event, &mut listed),
                Some(Err(error)) => {
                    // That is its word as well, and says nothing against what else it tells.
                    if watches::is_forbidden(&error) {
                        candidate.contact.made();
                    }
                    tracing::warn!(%error, lease = NAME, "the watch of the lease is broken; it starts again");
                }
                None => return,
            },
            () = sleep_until(next) => {}
        }
        candidate.act().await;
        let leads = candidate.fence.is_open();
        leading.send_if_modified(|leading| {
            let changed = *leading != leads;
            if changed {
                tracing::info!(leads, "leadership");
            }
            *leading = leads;
            changed
        });
    }
    candidate.fence.close();
    leading.send_replace(false);
    candidate.resign().await;
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// One replica in the election.
struct Candidate<'a> {
    api: Api<Lease>,
    me: &'a str,
    fence: Fence,
    contact: Contact,
    record: Record,
    /// When the leader renews next.
    renew_at: Instant,
    /// Nothing is tried before: something failed.
    not_before: Instant,
}

impl<'a> Candidate<'a> {
    fn new(api: Api<Lease>, me: &'a str, fence: Fence, contact: Contact) -> Self {
        let now = Instant::now();
        Self { api, me, fence, contact, record: Record::default(), renew_at: now, not_before: now }
    }

    /// When there is something to do, unless the record changes before.
    fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        let due = match self.record.decide(self.me, self.fence.is_open(), now) {
            Decision::Renew => Some(self.renew_at.max(self.not_before)),
            Decision::Take | Decision::Create => Some(self.not_before),
            Decision::Wait(at) => at,
        };
        // The end of the term has to be told as well.
        let end = self.fence.until().filter(|until| now < *until);
        due.into_iter().chain(end).min()
    }

    fn notice(&mut self, event: Event<Lease>, listed: &mut Option<Lease>) {
        match event {
            Event::Init => *listed = None,
            Event::InitApply(lease) => *listed = Some(lease),
            Event::InitDone => self.note(listed.take()),
            Event::Apply(lease) => self.note(Some(lease)),
            Event::Delete(lease) => {
                self.contact.made();
                self.record.note_deleted(&lease, self.me, Instant::now());
            }
        }
    }

    /// Takes in what the record is. Whoever sees that it is somebody else's writes no more.
    fn note(&mut self, lease: Option<Lease>) {
        self.contact.made();
        let is_anothers = lease.as_ref().is_some_and(|lease| holder(lease) != Some(self.me));
        self.record.note(lease, self.me, Instant::now());
        if is_anothers && !self.record.is_held_by(self.me) {
            self.fence.close();
        }
    }

    /// Does what is due.
    async fn act(&mut self) {
        // The term counts from before the request: the record may have been written at any moment since.
        let began = Instant::now();
        let decision = self.record.decide(self.me, self.fence.is_open(), began);
        let due = match decision {
            Decision::Wait(_) => return,
            Decision::Renew => self.renew_at.max(self.not_before),
            Decision::Take | Decision::Create => self.not_before,
        };
        if began < due {
            return;
        }
        let wanted = self.record.held_by(self.me);
        let written = if decision == Decision::Create {
            timeout(PATIENCE, self.create(&wanted)).await
        } else {
            timeout(PATIENCE, self.api.replace(NAME, &PostParams::default(), &wanted)).await
        };
        match written {
            Ok(Ok(lease)) => {
                self.note(Some(lease));
                self.fence.open(began + DURATION - MARGIN);
                self.renew_at = began + RENEW;
            }
            // Somebody was quicker, an answer of ours was lost, or the Lease is gone: look. Whatever else it is refused for, whether there
            // is contact is told by a look.
            Ok(Err(kube::Error::Api(status))) => {
                self.look().await;
                if !matches!(status.code, 404 | 409) {
                    self.failed(&status.message);
                }
            }
            Ok(Err(error)) => self.failed(&error.to_string()),
            Err(_) => self.failed("the API server does not answer"),
        }
    }

    /// Without force and each replica under a name of its own: where somebody else was quicker it is refused. Asks for the right
    /// to make this one Lease only, which a plain creation could not.
    async fn create(&self, wanted: &Lease) -> kube::Result<Lease> {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NAME, "labels": {"app.kubernetes.io/part-of": "weft"}},
            "spec": wanted.spec,
        });
        self.api.patch(NAME, &PatchParams::apply(self.me), &Patch::Apply(lease)).await
    }

    async fn look(&mut self) {
        match timeout(PATIENCE, self.api.get_opt(NAME)).await {
            Ok(Ok(lease)) => {
                self.note(lease);
                // Not at once again and again, whatever comes back.
                self.not_before = Instant::now() + RETRY / 5;
            }
            Ok(Err(error)) => self.failed(&error.to_string()),
            Err(_) => self.failed("the API server does not answer"),
        }
    }

    fn failed(&mut self, why: &str) {
        tracing::warn!(lease = NAME, why, "leader election");
        self.not_before = Instant::now() + RETRY;
    }

    /// Gives the Lease back, if it is ours. The fence is closed already; what was sent before must have been answered, or the
    /// next leader and a late write of ours could meet.
    async fn resign(&self) {
        if !self.fence.drained(LANDS_WITHIN).await {
            tracing::warn!(lease = NAME, "a write was not answered: the lease runs out by itself");
            return;
        }
        if let Err(why) = self.hand_over().await {
            tracing::warn!(lease = NAME, why, "the lease could not be given back; it runs out by itself");
        }
    }

    async fn hand_over(&self) -> Result<(), String> {
        let handed_over = timeout(PATIENCE, async {
            let Some(mut lease) = self.api.get_opt(NAME).await? else { return Ok(()) };
            if holder(&lease) == Some(self.me) {
                give_back(&mut lease);
                self.api.replace(NAME, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        });
        handed_over.await.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_stops_writing_before_another_may_begin() {
        // A stand-by waits the whole duration from when it saw a renewal, which is after the leader began it. The leader's
        // last write begins before the end of its term, is sent before it is given up, and dropped soon after.
        assert!(DURATION - MARGIN + LANDS_WITHIN < DURATION);
        // One renewal may go unanswered without the lead being lost.
        assert!(RENEW + PATIENCE + RETRY < DURATION - MARGIN);
    }
}
