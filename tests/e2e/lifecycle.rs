//! The operator's whole life on a real cluster: upgrades under load, versions beside each other, what Helm does. One file for
//! each subject; `tests/run-e2e.sh lifecycle` runs them all on one mesh.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "lifecycle/crds.rs"]
mod crds;
#[path = "lifecycle/skew.rs"]
mod skew;
#[path = "lifecycle/upgrade.rs"]
mod upgrade;
#[path = "lifecycle/upgrade_bad.rs"]
mod upgrade_bad;
#[path = "lifecycle/versions.rs"]
mod versions;
