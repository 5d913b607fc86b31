//! What the end-to-end tests and measurements are made of: a real cluster, pods that talk, and patience with a deadline.
//!
//! - [`cluster`]: the cluster under test, the runtime, one test at a time.
//! - [`wait`]: conditions with a deadline that tell the last state seen.
//! - [`exec`]: commands in pods, with their streams.
//! - [`node`]: what only the embedded cluster allows: processes on its nodes, its audit log.
//! - [`workloads`]: namespaces, servers and clients of a user.
//! - [`traffic`]: requests, load and DNS queries from those clients.
//! - [`mesh`]: installing Weft and looking at what it made.
//! - [`stream`]: the config stream as a stranger would call it.
//! - [`rights`]: what a `ServiceAccount` may do.
//! - [`report`]: what is shown when a test fails.
//!
//! The tests themselves are in `e2e/`, what runs in the pods in `lab/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "this crate is tests: what must hold and does not is a failure of the test"
)]

pub mod cluster;
pub mod exec;
pub mod mesh;
pub mod node;
pub mod report;
pub mod rights;
pub mod stream;
pub mod traffic;
pub mod wait;
pub mod workloads;

/// What a test may fail with, besides an assertion.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// The outcome of a test and of most steps.
pub type Result<T = ()> = std::result::Result<T, Failure>;
