//! The operator's whole life on a real cluster. One file for each subject; `tests/run-e2e.sh lifecycle` runs them all, one at a
//! time, on one mesh.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "lifecycle/dns.rs"]
mod dns;
#[path = "lifecycle/dns_admission.rs"]
mod dns_admission;
#[path = "lifecycle/dns_conflict.rs"]
mod dns_conflict;
#[path = "lifecycle/dns_cycles.rs"]
mod dns_cycles;
