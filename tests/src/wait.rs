//! Waiting: a condition, a deadline and, when it is over, the last state seen. Nothing else in the tests waits.

use std::time::{Duration, Instant};

use crate::Result;

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(100);

/// What a condition says: it holds, or what is the matter.
pub enum Seen<T> {
    /// It holds.
    Done(T),
    /// Not yet; what was seen instead.
    NotYet(String),
}

impl<T> Seen<T> {
    /// Done with `value` if `holds`, else what `state` says.
    pub fn when(holds: bool, value: T, state: impl FnOnce() -> String) -> Self {
        if holds { Self::Done(value) } else { Self::NotYet(state()) }
    }
}

/// Looks at `condition` until it holds; an error counts as not yet. Fails after `deadline` with the last state.
pub async fn until<T, F>(what: &str, deadline: Duration, condition: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Seen<T>>,
{
    until_every(EVERY, what, deadline, condition).await
}

/// The same, looking so often.
pub async fn until_every<T, F>(every: Duration, what: &str, deadline: Duration, mut condition: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Seen<T>>,
{
    let began = Instant::now();
    loop {
        let state = match condition().await {
            Ok(Seen::Done(value)) => return Ok(value),
            Ok(Seen::NotYet(state)) => state,
            Err(error) => error.to_string(),
        };
        if began.elapsed() >= deadline {
            return Err(format!("not within {} s: {what}; last seen: {state}", deadline.as_secs()).into());
        }
        tokio::time::sleep(every).await;
    }
}

/// Seconds.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_gives_its_value() {
        let mut looks = 0;
        let value = until("three looks", seconds(5), async || {
            looks += 1;
            Ok(Seen::when(looks == 3, looks, || format!("{looks} looks")))
        });
        assert_eq!(value.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_deadline_tells_the_last_state_seen_errors_included() {
        let seen = until("it", Duration::ZERO, async || Ok(Seen::<()>::NotYet("half".to_owned()))).await;
        assert_eq!(seen.unwrap_err().to_string(), "not within 0 s: it; last seen: half");
        let failed = until::<(), _>("it", Duration::ZERO, async || Err("broken".into())).await;
        assert_eq!(failed.unwrap_err().to_string(), "not within 0 s: it; last seen: broken");
    }
}
