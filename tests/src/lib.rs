//! What the end-to-end tests and measurements are made of: a real cluster, pods that talk, and patience with a deadline.
//!
//! - [`cluster`]: the cluster under test, the runtime; [`turns`]: which tests run at a time.
//! - [`wait`]: conditions with a deadline that tell the last state seen.
//! - [`afterwards`]: what must be put right again whatever came of a test.
//! - [`exec`]: commands in pods, with their streams.
//! - [`node`]: what only the embedded cluster allows: processes on its nodes, its power, its audit log.
//! - [`workloads`], [`servers`], [`clients`], [`services`], [`certificates`]: what a user has.
//! - [`stage`]: a namespace with all of that, ready to be called.
//! - [`traffic`], [`protocols`], [`probe`]: requests, load and DNS queries from a user's pods; gRPC, WebSocket, TCP, UDP,
//!   raw bytes; each change of who answers.
//! - [`mixed`]: load of every kind at once.
//! - [`mesh`]: installing Weft and looking at what it made.
//! - [`smi`]: objects of the Service Mesh Interface, and what became of them.
//! - [`metrics`]: what the proxies count; [`access_log`]: what they write of each request.
//! - [`debug`]: what an operator says when it is asked.
//! - [`stream`]: the config stream as a stranger would call it; [`forgery`]: headers with which one poses as another.
//! - [`rights`]: what a `ServiceAccount` may do.
//! - [`report`]: what is shown when a test fails.
//!
//! The tests themselves are in `e2e/`, what runs in the pods in `lab/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "this crate is tests: what must hold and does not is a failure of the test"
)]

pub mod access_log;
pub mod afterwards;
pub mod certificates;
pub mod clients;
pub mod cluster;
pub mod debug;
pub mod exec;
pub mod forgery;
pub mod mesh;
pub mod metrics;
pub mod mixed;
pub mod node;
pub mod probe;
pub mod protocols;
pub mod report;
pub mod rights;
pub mod servers;
pub mod services;
pub mod smi;
pub mod stage;
pub mod stream;
pub mod traffic;
pub mod turns;
pub mod wait;
pub mod workloads;

/// What a test may fail with, besides an assertion.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// The outcome of a test and of most steps.
pub type Result<T = ()> = std::result::Result<T, Failure>;
