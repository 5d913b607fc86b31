//! The operator's whole life on a real cluster: what it does at rest, what comes back, who owns what, who leads, what it takes to
//! be without a control plane, and how it ends. One file for each subject; `tests/run-e2e.sh lifecycle` runs them all.
//!
//! Every test here but those of `state` has the mesh to itself. Those that take it away come last by their names.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "lifecycle/at_rest.rs"]
mod at_rest;
#[path = "lifecycle/chaos.rs"]
mod chaos;
#[path = "lifecycle/crds.rs"]
mod crds;
#[path = "lifecycle/dns.rs"]
mod dns;
#[path = "lifecycle/dns_admission.rs"]
mod dns_admission;
#[path = "lifecycle/dns_conflict.rs"]
mod dns_conflict;
#[path = "lifecycle/dns_cycles.rs"]
mod dns_cycles;
#[path = "lifecycle/drift.rs"]
mod drift;
#[path = "lifecycle/ha.rs"]
mod ha;
#[path = "lifecycle/outage.rs"]
mod outage;
#[path = "lifecycle/ownership.rs"]
mod ownership;
#[path = "lifecycle/removal.rs"]
mod removal;
#[path = "lifecycle/skew.rs"]
mod skew;
#[path = "lifecycle/soak.rs"]
mod soak;
#[path = "lifecycle/state.rs"]
mod state;
#[path = "lifecycle/upgrade.rs"]
mod upgrade;
#[path = "lifecycle/upgrade_bad.rs"]
mod upgrade_bad;
#[path = "lifecycle/versions.rs"]
mod versions;
