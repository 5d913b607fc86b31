//! The operator's whole life on a real cluster. One file for each subject.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "lifecycle/state.rs"]
mod state;
