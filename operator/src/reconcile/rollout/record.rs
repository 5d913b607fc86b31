//! Why a rollout was stopped, as it is written on the DaemonSet: whoever leads next must know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The annotation. Taken off by hand, the same template is tried again.
pub const ANNOTATION: &str = "weft.mesh/rollout-failed";

/// Why a rollout was stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The template that failed.
    pub template: String,
    /// Where.
    pub node: String,
    /// In which pod.
    pub pod: String,
    /// With which image.
    pub image: String,
    /// In one word.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

impl Record {
    /// Reads it from the annotations of a DaemonSet. What cannot be read is nothing: the rollout is tried again.
    pub fn of(annotations: Option<&BTreeMap<String, String>>) -> Option<Self> {
        serde_json::from_str(annotations?.get(ANNOTATION)?).ok()
    }

    /// What people read in the condition.
    pub fn told(&self, namespace: &str) -> String {
        format!(
            "the new proxy {} on node {} (image {}) fails: {}: {}. The other nodes keep the proxies they have. \
             Undo the change (the former MeshConfig, or helm rollback where it came with the chart) or correct it; to try \
             the same again: kubectl -n {namespace} annotate daemonset weft-proxy {ANNOTATION}-",
            self.pod, self.node, self.image, self.reason, self.message
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_broken_is_nothing() {
        let record = Record {
            template: "abc".into(),
            node: "node1".into(),
            pod: "weft-proxy-1".into(),
            image: "proxy:bad".into(),
            reason: "CrashLoopBackOff".into(),
            message: "it ended with exit code 1 (Error)".into(),
        };
        let annotations = |text: String| BTreeMap::from([(ANNOTATION.to_owned(), text)]);
        let written = annotations(serde_json::to_string(&record).unwrap());
        assert_eq!(Record::of(Some(&written)).as_ref(), Some(&record));
        assert_eq!(Record::of(Some(&annotations("{".into()))), None);
        assert_eq!(Record::of(None), None);
        assert_eq!(
            record.told("weft-system"),
            "the new proxy weft-proxy-1 on node node1 (image proxy:bad) fails: CrashLoopBackOff: it ended with exit code 1 \
             (Error). The other nodes keep the proxies they have. Undo the change (the former MeshConfig, or helm rollback \
             where it came with the chart) or correct it; to try the same again: kubectl -n weft-system annotate daemonset \
             weft-proxy weft.mesh/rollout-failed-"
        );
    }
}
