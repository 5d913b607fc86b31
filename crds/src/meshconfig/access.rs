//! `spec.accessControl`: who may call what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The status of a refusal unless another is asked for.
pub(super) const FORBIDDEN: u16 = 403;

/// Who may call what through the mesh.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum AccessControl {
    /// Everybody everything.
    #[default]
    Disabled,
    /// Only what a TrafficTarget allows.
    Enforced,
}
