//! When to stop writing what somebody else undoes. A pure state machine; time is given to it.
//!
//! Each time our lines are found otherwise than we wrote them is a round. After [`ROUNDS`] of them within [`WINDOW`] nothing is
//! written for a while, each time for longer, until our lines stay or the MeshConfig changes.

use std::collections::VecDeque;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use tokio::time::Instant;

/// How often our lines are put back before the other one gets its way.
pub const ROUNDS: usize = 5;
/// Within which time; also how long lines must stay for the past to be forgotten.
pub const WINDOW: Duration = Duration::from_secs(600);
/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_secs(300);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The rounds over the lines in one `ConfigMap`.
#[derive(Debug, Default)]
pub struct Fight {
    /// What was written last, and when, as long as it has not been found otherwise.
    written: Option<(Option<String>, Instant)>,
    /// When it was found otherwise.
    rounds: VecDeque<Instant>,
    /// Until when nothing is written.
    paused_until: Option<Instant>,
    /// How long the last pause was.
    pause: Option<Duration>,
}

impl Fight {
    /// Our lines were found like this. Returns whether a pause begins.
    pub fn found(&mut self, lines: Option<&str>, now: Instant) -> bool {
        let Some((written, at)) = &self.written else { return false };
        if written.as_deref() == lines {
            // They have stayed: whoever undid them has given up.
            if now.duration_since(*at) >= WINDOW {
                *self = Self { written: self.written.take(), ..Self::default() };
            }
            return false;
        }
        self.written = None;
        self.rounds.push_back(now);
        while self.rounds.front().is_some_and(|first| now.duration_since(*first) > WINDOW) {
            self.rounds.pop_front();
        }
        // After a pause one round is enough.
        let begins = self.rounds.len() >= ROUNDS || self.pause.is_some();
        if begins {
            let pause = self.pause.map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
            self.pause = Some(pause);
            self.paused_until = Some(now + pause);
            self.rounds.clear();
        }
        begins
    }

    /// Whether our lines may be written.
    pub fn may_write(&self, now: Instant) -> bool {
        self.paused_until.is_none_or(|until| now >= until)
    }

    /// How long it still rests.
    pub fn rests(&self, now: Instant) -> Option<Duration> {
        Some(self.paused_until?.checked_duration_since(now)?).filter(|rest| !rest.is_zero())
    }

    /// Our lines were written like this.
    pub fn wrote(&mut self, lines: Option<String>, now: Instant) {
        self.written = Some((lines, now));
        self.paused_until = None;
    }
}

/// Who but us wrote the `ConfigMap`'s `data` last, as its managed fields tell.
pub fn other_writer<'a>(managers: &'a [ManagedFieldsEntry], us: &str) -> Option<&'a str> {
    let wrote_data = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() != Some(us)
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:data").is_some())
    };
    let last = managers.iter().filter(wrote_data).max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    last?.manager.as_deref()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OURS: &str = "ours";

    /// Writes whenever it may, and finds its lines undone a second later, for so long. Returns how often it wrote.
    fn undone_for(fight: &mut Fight, now: &mut Instant, so_long: Duration) -> usize {
        let end = *now + so_long;
        let mut writes = 0;
        while *now < end {
            fight.found(None, *now);
            if fight.may_write(*now) {
                fight.wrote(Some(OURS.into()), *now);
                writes += 1;
            }
            *now += Duration::from_secs(1);
        }
        writes
    }

    #[test]
    fn after_a_few_rounds_it_rests_ever_longer() {
        let (mut fight, mut now) = (Fight::default(), Instant::now());
        assert_eq!(undone_for(&mut fight, &mut now, Duration::from_secs(299)), ROUNDS, "then it rests");
        assert!(!fight.may_write(now) && fight.rests(now).is_some());
        // 5 minutes, 10, 20, 40, then an hour each.
        let day = undone_for(&mut fight, &mut now, Duration::from_secs(86_400));
        assert!((24..=30).contains(&day), "{day} writes in a day");
    }

    #[test]
    fn an_edit_now_and_then_is_no_fight() {
        let (mut fight, mut now) = (Fight::default(), Instant::now());
        for _ in 0..50 {
            fight.wrote(Some(OURS.into()), now);
            now += WINDOW / 3;
            assert!(!fight.found(Some("edited"), now), "never five within the window");
            assert!(fight.may_write(now));
        }
    }

    #[test]
    fn lines_that_stay_make_peace() {
        let (mut fight, mut now) = (Fight::default(), Instant::now());
        undone_for(&mut fight, &mut now, Duration::from_secs(20));
        assert!(!fight.may_write(now));
        now += FIRST_PAUSE;
        assert!(fight.may_write(now) && fight.rests(now).is_none());
        fight.wrote(Some(OURS.into()), now);
        assert!(!fight.found(Some(OURS), now + WINDOW / 2));
        assert!(fight.pause.is_some(), "not yet");
        assert!(!fight.found(Some(OURS), now + WINDOW));
        now += WINDOW;
        assert!(!fight.found(None, now), "the first round of a new fight");
        assert!(fight.may_write(now));
    }

    #[test]
    fn once_more_after_a_pause_is_enough() {
        let (mut fight, mut now) = (Fight::default(), Instant::now());
        undone_for(&mut fight, &mut now, Duration::from_secs(20));
        now += FIRST_PAUSE;
        fight.wrote(Some(OURS.into()), now);
        assert!(fight.found(None, now + Duration::from_secs(1)), "a pause begins");
        assert_eq!(fight.rests(now + Duration::from_secs(1)), Some(FIRST_PAUSE * 2));
    }

    #[test]
    fn what_we_did_not_write_is_nobodys_undoing() {
        let mut fight = Fight::default();
        for _ in 0..20 {
            assert!(!fight.found(None, Instant::now()));
        }
    }

    #[test]
    fn the_other_writer_is_who_wrote_data_last() {
        let entry = |manager: &str, time: &str, fields: serde_json::Value| {
            serde_json::from_value(json!({"manager": manager, "time": time, "fieldsV1": fields})).unwrap()
        };
        let data = json!({"f:data": {"f:Corefile": {}}});
        let managers: Vec<ManagedFieldsEntry> = vec![
            entry("kubeadm", "2026-01-01T00:00:00Z", data.clone()),
            entry("argocd-controller", "2026-01-02T00:00:00Z", data.clone()),
            entry("labeller", "2026-01-03T00:00:00Z", json!({"f:metadata": {}})),
            entry("weft-operator", "2026-01-04T00:00:00Z", data),
        ];
        assert_eq!(other_writer(&managers, "weft-operator"), Some("argocd-controller"));
        assert_eq!(other_writer(&[], "weft-operator"), None);
    }
}
