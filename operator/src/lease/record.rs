//! What a replica has seen of the record, and what follows from it. Pure but for the time, which is given.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{DURATION, LANDS_WITHIN};

/// `leaseDurationSeconds` of a Lease that its holder gave back, having closed its fence before. A Lease without a holder may
/// also be somebody's edit while the holder still writes; this one may be taken at once. `client-go` marks it in the same way.
const GIVEN_BACK: i32 = 1;

/// The record as this replica knows it.
#[derive(Debug, Default)]
pub(super) struct Record {
    known: Known,
    /// When anything was seen of it first.
    first: Option<Instant>,
    /// When, by this process's clock, it was last seen to be another than before.
    since: Option<Instant>,
    /// When somebody else was last seen to hold it, or it was seen to go.
    anothers: Option<Instant>,
}

#[derive(Debug, Default)]
enum Known {
    /// Nothing was read yet.
    #[default]
    Nothing,
    Absent,
    There(Box<Lease>),
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is ours: renew it.
    Renew,
    /// Nobody has it, or who has it has not been heard of for too long: take it.
    Take,
    /// It is gone, and nobody can still be writing by it but ourselves: make it anew.
    Create,
    /// Nothing before then; without a time, before the record changes.
    Wait(Option<Instant>),
}

impl Record {
    /// Takes in what was read or watched; what is older than what is known is left out.
    pub(super) fn note(&mut self, lease: Option<Lease>, me: &str, now: Instant) {
        if let (Some(new), Known::There(known)) = (&lease, &self.known) {
            let same_object = new.metadata.uid == known.metadata.uid;
            let (new, known) = (version(new), version(known));
            if same_object && new.is_some() && new <= known {
                return;
            }
        }
        if lease.is_none() && matches!(self.known, Known::Absent) {
            return;
        }
        self.first.get_or_insert(now);
        let was_anothers = match &self.known {
            Known::There(known) => holder(known).is_some_and(|holder| holder != me),
            Known::Absent => true,
            Known::Nothing => false,
        };
        if was_anothers || lease.as_ref().and_then(holder).is_some_and(|holder| holder != me) {
            self.anothers = Some(now);
        }
        self.since = Some(now);
        self.known = lease.map_or(Known::Absent, |lease| Known::There(Box::new(lease)));
    }

    /// The same for what a watch says went; `gone` is the object as it was last.
    pub(super) fn note_deleted(&mut self, gone: &Lease, me: &str, now: Instant) {
        let of_another_life = match &self.known {
            Known::There(known) => known.metadata.uid != gone.metadata.uid,
            Known::Nothing | Known::Absent => false,
        };
        if !of_another_life {
            self.note(None, me, now);
        }
    }

    /// Whether it says that `me` holds it.
    pub(super) fn is_held_by(&self, me: &str) -> bool {
        matches!(&self.known, Known::There(lease) if holder(lease) == Some(me))
    }

    /// `leads`: this replica's own term has not ended yet.
    pub(super) fn decide(&self, me: &str, leads: bool, now: Instant) -> Decision {
        let or_wait_for = |from: Option<Instant>, long, then| match from.map(|from| from + long) {
            Some(at) if now < at => Decision::Wait(Some(at)),
            _ => then,
        };
        let or_wait = |from, then| or_wait_for(from, DURATION, then);
        match &self.known {
            Known::Nothing => Decision::Wait(None),
            Known::Absent if leads => Decision::Create,
            Known::Absent => or_wait(self.since, Decision::Create),
            Known::There(lease) => match holder(lease) {
                // A container that is started again has its pod's name: what its former life has sent may be on its way.
                Some(holder) if holder == me && !leads => {
                    or_wait_for(self.first, LANDS_WITHIN, Decision::Renew)
                }
                Some(holder) if holder == me => Decision::Renew,
                None if is_given_back(lease) => Decision::Take,
                // As the chart makes it; or made anew beneath somebody who still writes.
                None if was_never_held(lease) => or_wait(self.anothers, Decision::Take),
                _ => or_wait(self.since, Decision::Take),
            },
        }
    }

    /// The record as it is to be written: held by `me`.
    pub(super) fn held_by(&self, me: &str) -> Lease {
        let mut lease = match &self.known {
            Known::There(lease) => (**lease).clone(),
            Known::Nothing | Known::Absent => Lease::default(),
        };
        let now = MicroTime(Timestamp::now());
        let anew = holder(&lease) != Some(me);
        let spec = lease.spec.get_or_insert_default();
        if anew {
            spec.holder_identity = Some(me.to_owned());
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
        }
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }
}

/// Makes `lease` one that its holder gave back.
pub(super) fn give_back(lease: &mut Lease) {
    let spec: &mut LeaseSpec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(GIVEN_BACK);
    spec.renew_time = Some(MicroTime(Timestamp::now()));
}

/// Who holds it.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn is_given_back(lease: &Lease) -> bool {
    lease.spec.as_ref().is_some_and(|spec| spec.lease_duration_seconds == Some(GIVEN_BACK))
}

fn was_never_held(lease: &Lease) -> bool {
    lease.spec.as_ref().is_none_or(|spec| spec.acquire_time.is_none() && spec.renew_time.is_none())
}

/// Versions of one object grow; where they are no numbers nothing is concluded.
fn version(lease: &Lease) -> Option<u64> {
    lease.metadata.resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A_MOMENT: Duration = Duration::from_millis(1);

    fn lease(holder: &str, version: u64) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.uid = Some("one".into());
        lease.metadata.resource_version = Some(version.to_string());
        let time = Some(MicroTime(Timestamp::UNIX_EPOCH));
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(10),
            acquire_time: time.clone(),
            renew_time: time,
            ..LeaseSpec::default()
        });
        lease
    }

    /// What `a` does, `after` so long, having seen `leases` one after the other at the same time.
    fn decision(leases: Vec<Option<Lease>>, leads: bool, after: Duration) -> Decision {
        let (mut record, start) = (Record::default(), Instant::now());
        for lease in leases {
            record.note(lease, "a", start);
        }
        record.decide("a", leads, start + after)
    }

    fn waits(decision: &Decision) -> bool {
        matches!(decision, Decision::Wait(Some(_)))
    }

    #[test]
    fn a_new_lease_is_taken_and_ours_is_renewed() {
        assert_eq!(decision(vec![], false, DURATION), Decision::Wait(None), "nothing was read yet");
        assert_eq!(decision(vec![Some(Lease::default())], false, Duration::ZERO), Decision::Take);
        assert_eq!(decision(vec![Some(lease("a", 2))], true, Duration::ZERO), Decision::Renew);
    }

    #[test]
    fn who_is_started_again_waits_for_what_its_former_life_has_sent() {
        let found = |after| decision(vec![Some(lease("a", 2))], false, after);
        assert!(waits(&found(LANDS_WITHIN - A_MOMENT)));
        assert_eq!(found(LANDS_WITHIN), Decision::Renew);
        // One whose term has ended meanwhile knows what it has sent.
        let (mut record, start) = (Record::default(), Instant::now());
        for version in 1..=9 {
            record.note(Some(lease("a", version)), "a", start + Duration::from_secs(version));
        }
        assert_eq!(record.decide("a", false, start + Duration::from_secs(9)), Decision::Renew);
    }

    #[test]
    fn one_that_was_given_back_is_taken_at_once_and_one_that_somebody_emptied_is_not() {
        let mut back = lease("b", 1);
        give_back(&mut back);
        back.metadata.resource_version = Some("2".into());
        assert_eq!(decision(vec![Some(lease("b", 1)), Some(back)], false, Duration::ZERO), Decision::Take);
        let emptied = || vec![Some(lease("b", 1)), Some(lease("", 2))];
        assert!(waits(&decision(emptied(), false, DURATION - A_MOMENT)), "b may still write");
        assert_eq!(decision(emptied(), false, DURATION), Decision::Take);
    }

    #[test]
    fn a_leader_that_renews_keeps_the_lead_and_a_silent_one_loses_it() {
        let (mut record, start) = (Record::default(), Instant::now());
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            record.note(Some(lease("b", second)), "a", now);
            assert_eq!(record.decide("a", false, now), Decision::Wait(Some(now + DURATION)));
        }
        let last = start + Duration::from_secs(59);
        // The same once more, as a watch that began anew tells it, is no sign of life; nor is an older one.
        record.note(Some(lease("b", 59)), "a", last + DURATION / 2);
        record.note(Some(lease("b", 7)), "a", last + DURATION / 2);
        assert!(waits(&record.decide("a", false, last + DURATION - A_MOMENT)));
        assert_eq!(record.decide("a", false, last + DURATION), Decision::Take);
    }

    #[test]
    fn one_that_is_gone_is_made_anew_by_who_leads_and_by_others_only_when_nobody_can_lead() {
        let gone = || vec![Some(lease("b", 1)), None];
        assert!(waits(&decision(gone(), false, DURATION - A_MOMENT)));
        assert_eq!(decision(gone(), false, DURATION), Decision::Create);
        assert_eq!(decision(vec![Some(lease("a", 1)), None], true, Duration::ZERO), Decision::Create);
        // Somebody makes an empty one in its place, while b may still write.
        let mut fresh = Lease::default();
        fresh.metadata.uid = Some("two".into());
        for before in [vec![Some(lease("b", 1))], gone()] {
            let all: Vec<_> = before.into_iter().chain([Some(fresh.clone())]).collect();
            assert!(waits(&decision(all.clone(), false, DURATION - A_MOMENT)));
            assert_eq!(decision(all, false, DURATION), Decision::Take);
        }
    }

    #[test]
    fn a_deletion_of_an_earlier_lease_is_old_news() {
        let (mut record, now) = (Record::default(), Instant::now());
        let mut second = lease("a", 5);
        second.metadata.uid = Some("two".into());
        record.note(Some(second), "a", now);
        record.note_deleted(&lease("a", 4), "a", now);
        assert!(record.is_held_by("a"));
        let mut second = lease("a", 6);
        second.metadata.uid = Some("two".into());
        record.note_deleted(&second, "a", now);
        assert!(!record.is_held_by("a"));
    }

    #[test]
    fn what_is_written_is_ours_and_counts_who_held_it() {
        let (mut record, now) = (Record::default(), Instant::now());
        record.note(Some(lease("b", 3)), "a", now);
        let taken = record.held_by("a");
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("3"), "of several that try one succeeds");
        let spec = taken.spec.clone().unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("a"), Some(1)));
        record.note(Some(Lease { metadata: lease("", 4).metadata, ..taken }), "a", now);
        assert_eq!(record.held_by("a").spec.unwrap().lease_transitions, Some(1), "renewed, not taken");
    }
}
