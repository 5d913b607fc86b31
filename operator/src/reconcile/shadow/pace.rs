//! How many shadows are written at a time: as many as the API server answers soon. One that is given more than it can carry
//! answers none of them in time, and all of them have to be sent again.

use tokio::time::Instant;

use crate::lease::WRITE;

/// At most: what one waits for is the API server's time, not ours.
const MOST: usize = 16;

/// Additive increase, multiplicative decrease.
pub(super) struct Pace {
    at_a_time: usize,
    /// Answers that came soon since the number was changed.
    soon: usize,
    /// What began before this says nothing.
    since: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { at_a_time: MOST, soon: 0, since: None }
    }
}

impl Pace {
    /// Whether one more may begin while so many are on their way.
    pub(super) fn allows(&self, on_their_way: usize) -> bool {
        on_their_way < self.at_a_time
    }

    /// A write that began at `began` has ended now; `overload`: because there is too much to do. One that has taken half of what
    /// it may is late.
    pub(super) fn ended(&mut self, began: Instant, overload: bool) {
        let now = Instant::now();
        if !overload && (now - began) * 2 < WRITE {
            self.soon += 1;
            if self.soon >= self.at_a_time && self.at_a_time < MOST {
                (self.at_a_time, self.soon) = (self.at_a_time + 1, 0);
            }
        } else if self.since.is_none_or(|since| began >= since) {
            (self.at_a_time, self.soon) = ((self.at_a_time / 2).max(1), 0);
            self.since = Some(now);
        }
    }

    /// What is on its way may have ended long ago.
    pub(super) fn was_not_looked_at(&mut self) {
        self.since = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use super::*;

    /// Writes for `lasts` to an API server that works on one after the other, each for `work`, also when nobody waits for it any
    /// more. Returns how many were done in time and how many were given up.
    async fn write_for(lasts: Duration, work: Duration) -> (u32, u32) {
        let (mut pace, mut sent, mut done, mut given_up) = (Pace::default(), 0, 0, 0);
        let (mut waiting, mut server) = (VecDeque::<(u32, Instant)>::new(), VecDeque::<u32>::new());
        let (end, mut ready) = (Instant::now() + lasts, Instant::now() + work);
        while Instant::now() < end {
            while pace.allows(waiting.len()) {
                waiting.push_back((sent, Instant::now()));
                server.push_back(sent);
                sent += 1;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            if Instant::now() >= ready {
                ready += work;
                let finished = server.pop_front();
                if let Some((_, began)) = waiting.pop_front_if(|(first, _)| Some(*first) == finished) {
                    pace.ended(began, false);
                    done += 1;
                }
            }
            while let Some((_, began)) = waiting.pop_front_if(|(_, began)| began.elapsed() >= WRITE) {
                pace.ended(began, true);
                given_up += 1;
            }
        }
        (done, given_up)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_api_server_is_given_what_it_can_carry() {
        // Sixteen of these take 3.2 s; it can do three thousand.
        let (done, given_up) = write_for(Duration::from_secs(600), Duration::from_millis(200)).await;
        assert!(done > 2900 && given_up < 24, "{done} done, {given_up} given up");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_always_late_is_given_one_at_a_time() {
        // What it is given at first, and what comes until it is through with that, is lost. It can do a thousand.
        let (done, given_up) = write_for(Duration::from_secs(1200), Duration::from_millis(1200)).await;
        assert!(done > 900 && given_up < 80, "{done} done, {given_up} given up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_one_gets_as_many_as_there_may_be_again_after_it_was_slow() {
        let mut pace = Pace::default();
        for _ in 0..4 {
            let began = Instant::now();
            tokio::time::sleep(WRITE / 2).await;
            pace.ended(began, false);
        }
        assert!(pace.allows(0) && !pace.allows(1));
        for _ in 0..200 {
            pace.ended(Instant::now(), false);
        }
        assert!(pace.allows(MOST - 1) && !pace.allows(MOST));
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_fail_at_once_count_as_one() {
        let mut pace = Pace::default();
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..MOST {
            pace.ended(began, true);
        }
        assert!(pace.allows(MOST / 2 - 1) && !pace.allows(MOST / 2));
    }
}
