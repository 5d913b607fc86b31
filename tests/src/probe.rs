//! A client that asks all the time and tells each change of the answer: how soon a change is in force, and what was answered
//! around it.

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
pub struct Probe(Session);

impl Probe {
    /// Asks `url` from `client` every other millisecond.
    pub async fn start(cluster: &Cluster, client: &PodRef, url: &str) -> Result<Self> {
        let command = ["/weft-lab", "probe", url, "--every-ms", "2", "--until-stdin"].map(str::to_owned);
        Ok(Self(exec::start(cluster, client, &command).await?))
    }

    /// The changes so far.
    pub fn changes(&self) -> Vec<Change> {
        changes(&self.0.printed())
    }

    /// Waits for the first change since `since` (of [`now_us`]) to an answer as wanted.
    pub async fn sees(
        &self,
        what: &str,
        since: u64,
        deadline: Duration,
        wanted: impl Fn(&Change) -> bool,
    ) -> Result<Change> {
        wait::until_every(Duration::from_millis(5), what, deadline, async || {
            let changes = self.changes();
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
        self.0.tell_to_end().await?;
        Ok(changes(&self.0.output().await?))
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
