//! When to look again. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::reconcile::status::is_well;

/// How often the proxies and the DNS pods are asked how they are although nothing seemed to happen. The API server is not
/// asked then: what it has is watched.
pub(super) const AT_REST: Duration = Duration::from_secs(20);
/// The same while something waits for a person, who may come at any time, or for a node that may be back.
pub(super) const WATCHFUL: Duration = Duration::from_secs(2);
/// The same while something is on its way.
pub(super) const UNDER_WAY: Duration = Duration::from_millis(500);
/// Seconds. What has not been well for longer is on its way no more: DNS pods take up new lines within two minutes.
const ON_ITS_WAY: i64 = 120;

/// When to look again after what has been found: `again`, what failed is to be tried again after this; `hurries`, a change of
/// the proxies is under way, or is to be stopped; `all_current`, none of them is behind.
pub(super) fn wait(
    again: Option<Duration>,
    hurries: bool,
    conditions: &[Condition],
    all_current: bool,
    now: Timestamp,
) -> Duration {
    let since = |condition: &Condition| now.duration_since(condition.last_transition_time.0).as_secs();
    let unwell: Vec<_> = conditions.iter().filter(|condition| !is_well(condition)).map(since).collect();
    match again {
        // Whatever else fails: by the look a new proxy is found out before the old one goes.
        _ if hurries => UNDER_WAY,
        Some(again) => again,
        // Who led before may have had another clock.
        None if unwell.iter().any(|since| (0..ON_ITS_WAY).contains(since)) => UNDER_WAY,
        None if unwell.is_empty() && all_current => AT_REST,
        None => WATCHFUL,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::reconcile::status::{DEGRADED, PROXIES_READY};

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Since the second given.
    fn condition(kind: &str, status: &str, second: i64) -> Condition {
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: "Some".to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(time(second)),
        }
    }

    #[test]
    fn it_is_looked_often_at_what_is_on_its_way_only() {
        let well = [condition(PROXIES_READY, "True", 999), condition(DEGRADED, "False", 999)];
        let at =
            |conditions: &[Condition], all_current| wait(None, false, conditions, all_current, time(1000));
        assert_eq!(at(&well, true), AT_REST);
        assert_eq!(at(&well, false), WATCHFUL);
        for unwell in [condition(PROXIES_READY, "False", 990), condition(DEGRADED, "True", 990)] {
            assert_eq!(at(std::slice::from_ref(&unwell), true), UNDER_WAY);
            // A node that is lost, a change that was stopped: for days perhaps.
            let Condition { type_, status, .. } = unwell;
            assert_eq!(at(&[condition(&type_, &status, 880)], true), WATCHFUL);
            assert_eq!(at(&[condition(&type_, &status, 1010)], true), WATCHFUL, "by another clock");
        }
    }

    #[test]
    fn what_fails_is_tried_less_and_less_often_but_a_rollout_is_looked_at_all_the_while() {
        let again = Some(Duration::from_secs(32));
        let unwell = [condition(PROXIES_READY, "False", 990)];
        assert_eq!(wait(again, false, &unwell, true, time(1000)), Duration::from_secs(32));
        assert_eq!(wait(again, true, &unwell, true, time(1000)), UNDER_WAY);
        assert_eq!(wait(None, true, &[], true, time(1000)), UNDER_WAY);
    }
}
