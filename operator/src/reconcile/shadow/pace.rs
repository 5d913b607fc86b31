//! How many shadows are written at a time: as many as the API server answers soon. One that is given more than it can carry
//! answers none of them in time, and all of them have to be sent again.

use std::time::Duration;

use tokio::time::Instant;

/// At most: what one waits for is the API server's time, not ours.
const MOST: usize = 16;
/// An answer after this is late: half of the time after which a write is given up.
const LATE: Duration = Duration::from_secs(1);

/// Additive increase, multiplicative decrease.
pub(super) struct Pace {
    at_a_time: usize,
    /// Answers that came soon since the number was changed.
    soon: usize,
    /// When it was made less: what began before says nothing of it.
    lessened: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { at_a_time: MOST, soon: 0, lessened: None }
    }
}

impl Pace {
    /// Whether one more may begin while so many are on their way.
    pub(super) fn allows(&self, on_their_way: usize) -> bool {
        on_their_way < self.at_a_time
    }

    /// A write that began at `began` has ended now; `overload`: because there is too much to do.
    pub(super) fn ended(&mut self, began: Instant, overload: bool) {
        let now = Instant::now();
        if !overload && now - began < LATE {
            self.soon += 1;
            if self.soon >= self.at_a_time && self.at_a_time < MOST {
                (self.at_a_time, self.soon) = (self.at_a_time + 1, 0);
            }
        } else if self.lessened.is_none_or(|lessened| began >= lessened) {
            (self.at_a_time, self.soon) = ((self.at_a_time / 2).max(1), 0);
            self.lessened = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Writes for `lasts` to an API server that works on one after the other, each for `work`, and gives one up after two
    /// seconds, having done its work. Returns how many were done in time and how many were not.
    async fn write_for(lasts: Duration, work: Duration) -> (usize, usize) {
        let (mut pace, mut queue, mut done, mut given_up) = (Pace::default(), VecDeque::new(), 0, 0);
        let end = Instant::now() + lasts;
        while Instant::now() < end {
            while pace.allows(queue.len()) {
                queue.push_back(Instant::now());
            }
            tokio::time::sleep(work).await;
            let began = queue.pop_front().unwrap();
            let late = began.elapsed() > Duration::from_secs(2);
            given_up += usize::from(late);
            done += usize::from(!late);
            pace.ended(began, late);
        }
        (done, given_up)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_api_server_is_given_what_it_can_carry() {
        // Sixteen of these take 3.2 s.
        let (done, given_up) = write_for(Duration::from_secs(600), Duration::from_millis(200)).await;
        assert_eq!(done + given_up, 3000, "it is never idle");
        assert!(given_up <= 10, "only the first ones: {given_up}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_a_second_is_given_one_at_a_time_or_two() {
        let (done, given_up) = write_for(Duration::from_secs(600), Duration::from_millis(1200)).await;
        assert!(done > 450 && given_up < 50, "{done} done, {given_up} given up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_one_gets_as_many_as_there_may_be_again_after_it_was_slow() {
        let mut pace = Pace::default();
        for _ in 0..4 {
            let began = Instant::now();
            tokio::time::sleep(LATE).await;
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
