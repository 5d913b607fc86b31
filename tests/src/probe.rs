//! A client that asks all the time and tells each change of the answer: how soon a change is in force, and what was answered
//! around it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;

use crate::Result;
use crate::cluster::Cluster;
use crate::exec::{self, PodRef, Session};
use crate::wait::{self, Seen};

/// An answer that is another one than before. Times are the client's, in microseconds since the epoch.
#[derive(Debug, Clone, Deserialize)]
pub struct Change {
    /// When the last request left that had the answer before; 0 for the first.
    pub before_us: u64,
    /// When the request left.
    pub sent_us: u64,
    /// When its answer was there.
    pub answered_us: u64,
    answer: Value,
}

impl Change {
    /// The pod that answered.
    pub fn pod(&self) -> Option<&str> {
        self.answer["pod"].as_str()
    }

    /// Why there was no answer of a pod, for example `status 403`.
    pub fn error(&self) -> Option<&str> {
        self.answer["error"].as_str()
    }
}

/// What a prober has printed.
pub fn changes(printed: &str) -> Vec<Change> {
    printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A prober in a client pod.
pub struct Probe {
    session: Session,
    /// What it has printed, read once, and from where on it goes on.
    read: Mutex<(Vec<Change>, usize)>,
}

impl Probe {
    /// Asks `url` from `client` every other millisecond.
    pub async fn start(cluster: &Cluster, client: &PodRef, url: &str) -> Result<Self> {
        Self::start_every(cluster, client, url, 2).await
    }

    /// The same so often: it takes CPU from what it looks at.
    pub async fn start_every(cluster: &Cluster, client: &PodRef, url: &str, millis: u32) -> Result<Self> {
        let every = millis.to_string();
        let command = ["/weft-lab", "probe", url, "--every-ms", &every, "--until-stdin"].map(str::to_owned);
        Ok(Self { session: exec::start(cluster, client, &command).await?, read: Mutex::default() })
    }

    /// The changes so far, from the one with the number `first` on.
    fn changes_from(&self, first: usize) -> Vec<Change> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (text, next) = self.session.printed_from(read.1);
        read.0.extend(changes(&text));
        read.1 = next;
        read.0.get(first..).unwrap_or_default().to_vec()
    }

    /// How many changes there were so far.
    pub fn count(&self) -> usize {
        self.changes_from(usize::MAX);
        self.read.lock().unwrap_or_else(PoisonError::into_inner).0.len()
    }

    /// The changes so far.
    pub fn changes(&self) -> Vec<Change> {
        self.changes_from(0)
    }

    /// Waits for the first change since `since` (of [`now_us`]) to an answer as wanted.
    pub async fn sees(
        &self,
        what: &str,
        since: u64,
        deadline: Duration,
        wanted: impl Fn(&Change) -> bool,
    ) -> Result<Change> {
        self.sees_after(0, what, since, deadline, wanted).await
    }

    /// The same among the changes after the first `count`, which need not be looked at.
    pub async fn sees_after(
        &self,
        count: usize,
        what: &str,
        since: u64,
        deadline: Duration,
        wanted: impl Fn(&Change) -> bool,
    ) -> Result<Change> {
        wait::until_every(Duration::from_millis(5), what, deadline, async || {
            let changes = self.changes_from(count);
            let found = changes.iter().find(|change| change.answered_us >= since && wanted(change)).cloned();
            Ok(match found {
                Some(change) => Seen::Done(change),
                None => Seen::NotYet(format!("{:?}", changes.last())),
            })
        })
        .await
    }

    /// Ends it; all changes.
    pub async fn stop(mut self) -> Result<Vec<Change>> {
        self.session.tell_to_end().await?;
        Ok(changes(&self.session.output().await?))
    }
}

/// Now, in microseconds since the epoch: the pods' clock as well on the embedded cluster.
pub fn now_us() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_and_the_closing_line_is_none() {
        let printed = r#"{"before_us":0,"sent_us":1,"answered_us":2,"asked":1,"answer":{"pod":"a"}}
{"before_us":5,"sent_us":6,"answered_us":7,"asked":3,"answer":{"error":"status 403"}}
{"asked":9}
"#;
        let changes = changes(printed);
        assert_eq!(changes.len(), 2);
        assert_eq!((changes[0].pod(), changes[0].error()), (Some("a"), None));
        assert_eq!((changes[1].before_us, changes[1].error()), (5, Some("status 403")));
    }
}
