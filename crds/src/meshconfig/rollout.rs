//! `spec.proxy.rollout`: how a change of the proxies goes from node to node.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a change of the proxies goes from node to node: one node first, then twice as many at a time, at most a quarter
/// of them. A new proxy that fails stops it, and says so in the condition RolloutPaused.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// For so long a new proxy must be ready beside the old one of its node before the old one goes. Meanwhile both
    /// take connections, and the new one is compared with the others.
    #[schemars(range(max = 600))]
    pub observe_seconds: u32,

    /// A new proxy that is not ready for so long has failed. The old one of its node carries on all the while.
    #[schemars(range(min = 10, max = 3600))]
    pub patience_seconds: u32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { observe_seconds: 5, patience_seconds: 60 }
    }
}
