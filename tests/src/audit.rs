//! The API server's audit log: what Weft asked for and wrote, and which of its pods did so.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use crate::Result;
use crate::mesh::NAMESPACE;
use crate::node::Embedded;

/// How long before a time the Lease was renewed at the latest, if anybody held it.
const A_TERM: Duration = Duration::from_secs(15);

/// Full files of the log that are kept beside the one that is written to.
const KEPT: usize = 2;

/// A request to the API server.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Write {
    /// What was done: create, update, patch, delete, deletecollection; or get, list, watch.
    pub verb: String,
    user: User,
    object_ref: Option<ObjectRef>,
    request_received_timestamp: Timestamp,
    stage_timestamp: Timestamp,
    response_status: Option<Answer>,
}

#[derive(Debug, Clone, Deserialize)]
struct User {
    username: String,
    #[serde(default)]
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct ObjectRef {
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Answer {
    #[serde(default)]
    code: u16,
}

impl Write {
    /// Resource, with its subresource.
    pub fn resource(&self) -> String {
        let Some(object) = &self.object_ref else { return String::new() };
        if object.subresource.is_empty() {
            object.resource.clone()
        } else {
            format!("{}/{}", object.resource, object.subresource)
        }
    }

    /// Resource and name.
    pub fn object(&self) -> String {
        format!("{} {}", self.resource(), self.object_ref.as_ref().map_or("", |object| &object.name))
    }

    /// The pod that asked, where its token says so.
    pub fn pod(&self) -> &str {
        let names = self.user.extra.get("authentication.kubernetes.io/pod-name");
        names.and_then(|names| names.first()).map_or("", String::as_str)
    }

    /// Whether it writes anything: everything does but get, list and watch.
    pub fn writes(&self) -> bool {
        !matches!(&*self.verb, "get" | "list" | "watch")
    }

    /// Whether it is part of the election.
    pub fn is_of_lease(&self) -> bool {
        self.resource() == "leases"
    }

    /// Whether it makes or changes an object. A review is a question in the form of one; the Lease is another matter.
    pub fn is_of_object(&self) -> bool {
        let question = matches!(&*self.resource(), "tokenreviews" | "subjectaccessreviews");
        self.writes() && !question && !self.is_of_lease()
    }

    /// A MeshConfig is deleted, as its user may at any time: who leads does the rest.
    fn is_a_removals_begin(&self) -> bool {
        self.verb == "delete" && self.resource() == "meshconfigs"
    }

    fn succeeded(&self) -> bool {
        self.response_status.as_ref().is_some_and(|answer| (200..300).contains(&answer.code))
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        format!("{} {} {} by {}", self.request_received_timestamp, self.verb, self.object(), self.pod())
    }
}

impl Embedded {
    /// Writes by the `ServiceAccount` `namespace/name` since `since`, in order.
    pub async fn writes_by(&self, namespace: &str, name: &str, since: SystemTime) -> Result<Vec<Write>> {
        let mut requests = self.requests_by(namespace, name, since).await?;
        requests.retain(Write::writes);
        Ok(requests)
    }

    /// Everything asked for by it; reading only where it is one of Weft's own namespace.
    pub async fn requests_by(&self, namespace: &str, name: &str, since: SystemTime) -> Result<Vec<Write>> {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let since = Timestamp::try_from(since)?;
        let mut requests = Vec::new();
        for text in self.audit_log(since).await? {
            // The last line may be half written.
            let complete = text.rfind('\n').map_or("", |end| &text[..end]);
            for line in complete.lines().filter(|line| line.contains(&user)) {
                let request: Write = serde_json::from_str(line)?;
                if request.user.username == user && request.request_received_timestamp >= since {
                    requests.push(request);
                }
            }
        }
        Ok(requests)
    }

    /// The files of the log, oldest first: the API server begins a new one every 100 MB and keeps two of the old. An error when what
    /// was asked since `since` may be in one that is gone.
    async fn audit_log(&self, since: Timestamp) -> Result<Vec<String>> {
        loop {
            let files = self.audit_files().await?;
            let mut texts = Vec::new();
            for file in &files {
                texts.push(tokio::fs::read_to_string(file).await.unwrap_or_default());
            }
            if files != self.audit_files().await? {
                // A new one was begun meanwhile.
                continue;
            }
            if files.len() > KEPT {
                let first: Option<Write> = texts[0].lines().next().map(serde_json::from_str).transpose()?;
                if first.is_none_or(|first| first.stage_timestamp > since) {
                    return Err(format!("the audit log no longer goes back to {since}").into());
                }
            }
            return Ok(texts);
        }
    }

    async fn audit_files(&self) -> Result<Vec<PathBuf>> {
        let mut entries = tokio::fs::read_dir(self.state.join("control-plane/var/log/audit")).await?;
        let mut files = Vec::new();
        while let Some(entry) = entries.next_entry().await? {
            files.push(entry.path());
        }
        // `audit-<time>.log` comes before `audit.log`.
        files.sort();
        Ok(files)
    }

    /// Every write of an operator, or of the clean-up that stands in for one, since `since` that it made while another held the
    /// Lease, or might have. A line each.
    pub async fn two_writers(&self, since: SystemTime) -> Result<(usize, Vec<String>)> {
        let mut writes = self.writes_by(NAMESPACE, "weft-operator", since - A_TERM).await?;
        let by_the_clean_up = self.writes_by(NAMESPACE, "weft-cleanup", since - A_TERM).await?;
        writes.extend(by_the_clean_up.into_iter().filter(|write| !write.is_a_removals_begin()));
        writes.sort_by_key(|write| write.request_received_timestamp);
        let since = Timestamp::try_from(since)?;
        let counted =
            writes.iter().filter(|write| write.is_of_object() && write.request_received_timestamp >= since);
        Ok((counted.count(), out_of_turn(&writes, since)))
    }
}

/// A leader alone writes the Lease, stand-bys only take it: who wrote it last has it. So every write of an object must begin
/// after its pod's own write of the Lease, and must have ended before another pod began one that succeeded.
fn out_of_turn(writes: &[Write], since: Timestamp) -> Vec<String> {
    let terms: Vec<_> = writes.iter().filter(|write| write.is_of_lease() && write.succeeded()).collect();
    let objects =
        writes.iter().filter(|write| write.is_of_object() && write.request_received_timestamp >= since);
    let mut wrong = Vec::new();
    for write in objects {
        let before = terms.iter().filter(|term| term.stage_timestamp <= write.request_received_timestamp);
        let holder = before.max_by_key(|term| term.stage_timestamp).map_or("nobody", |term| term.pod());
        if holder != write.pod() {
            wrong.push(format!("{}, while {holder} had the Lease", write.describe()));
        }
        let taken = terms.iter().find(|term| {
            term.pod() != write.pod()
                && term.stage_timestamp > write.request_received_timestamp
                && term.request_received_timestamp < write.stage_timestamp
        });
        if let Some(taken) = taken {
            wrong.push(format!("{}, under way when {}", write.describe(), taken.describe()));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pod: &str, resource: &str, second: u32, until: u32, code: u16) -> Write {
        let line = format!(
            r#"{{"kind":"Event","verb":"patch","user":{{"username":"system:serviceaccount:weft-system:weft-operator",
            "extra":{{"authentication.kubernetes.io/pod-name":["{pod}"]}}}},"responseStatus":{{"code":{code}}},
            "objectRef":{{"resource":"{resource}","namespace":"weft-system","name":"a-weft-b"}},
            "requestReceivedTimestamp":"2026-11-23T21:03:{second:02}.000000Z","stageTimestamp":"2026-11-23T21:03:{until:02}.500000Z"}}"#
        );
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_line_of_the_audit_log_tells_which_pod_wrote_what() {
        let write = request("weft-operator-1", "services", 34, 34, 200);
        assert_eq!((write.pod(), &*write.resource()), ("weft-operator-1", "services"));
        assert!(write.describe().ends_with("patch services a-weft-b by weft-operator-1"));
        assert!(write.is_of_object() && !request("p", "tokenreviews", 1, 1, 201).is_of_object());
    }

    #[test]
    fn who_writes_without_the_lease_is_found() {
        let start: Timestamp = "2026-11-23T21:03:00Z".parse().unwrap();
        let (lease, service) = ("leases", "services");
        let good = vec![
            request("a", lease, 1, 1, 200),
            request("a", service, 3, 3, 200),
            request("b", lease, 4, 4, 409),
            request("a", service, 5, 5, 200),
            request("b", lease, 8, 8, 200),
            request("b", service, 9, 9, 200),
            request("a", "tokenreviews", 10, 10, 201),
        ];
        assert_eq!(out_of_turn(&good, start), Vec::<String>::new());
        for (wrong, what) in [
            (request("a", service, 10, 10, 200), "while b had the Lease"),
            (request("a", service, 6, 9, 200), "under way when"),
            (request("b", service, 6, 6, 200), "while a had the Lease"),
            (request("c", service, 0, 0, 403), "while nobody had the Lease"),
        ] {
            let mut writes = good.clone();
            writes.push(wrong);
            let found = out_of_turn(&writes, start);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(what), "{found:?}");
        }
    }
}
