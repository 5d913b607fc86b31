//! What the end-to-end tests and measurements are made of: a real cluster, pods that talk, and patience with a deadline.
//!
//! - [`cluster`]: the cluster under test, the runtime; [`turns`]: which tests run at a time.
//! - [`wait`]: conditions with a deadline that tell the last state seen.
//! - [`afterwards`]: what must be put right again whatever came of a test.
//! - [`exec`]: commands in pods, with their streams.
//! - [`node`], [`audit`], [`daemons`]: what only the embedded cluster allows: processes on its nodes, its power, its audit log,
//!   its daemons.
//! - [`faults`], [`campaign`], [`invariants`]: what can break, one after the other, and what must hold afterwards; [`soak`]: a long
//!   time without.
//! - [`workloads`], [`servers`], [`clients`], [`services`], [`certificates`]: what a user has.
//! - [`stage`]: a namespace with all of that, ready to be called.
//! - [`traffic`], [`protocols`], [`probe`]: requests, load and DNS queries from a user's pods; gRPC, WebSocket, TCP, UDP,
//!   raw bytes; each change of who answers.
//! - [`observers`]: load and probes that go on while there is no API server.
//! - [`mixed`]: load of every kind at once.
//! - [`mesh`]: installing Weft and looking at what it made.
//! - [`smi`]: objects of the Service Mesh Interface, and what became of them.
//! - [`metrics`]: what the proxies count; [`access_log`]: what they write of each request.
//! - [`dns`]: the cluster's DNS, and DNS servers of a test's own.
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
pub mod audit;
pub mod campaign;
pub mod certificates;
pub mod clients;
pub mod cluster;
pub mod daemons;
pub mod debug;
pub mod dns;
pub mod exec;
pub mod faults;
pub mod forgery;
pub mod invariants;
pub mod mesh;
pub mod metrics;
pub mod mixed;
pub mod node;
pub mod observers;
pub mod probe;
pub mod protocols;
pub mod report;
pub mod rights;
pub mod servers;
pub mod services;
pub mod smi;
pub mod soak;
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

/// How long the environment variable `name` says something is to last, in seconds.
pub fn seconds_of(name: &str, otherwise: u64) -> Result<std::time::Duration> {
    Ok(wait::seconds(number_of(name, otherwise)?))
}

/// The number in the environment variable `name`.
pub fn number_of(name: &str, otherwise: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name}={text}: a number is wanted").into()),
        Err(_) => Ok(otherwise),
    }
}

/// Writes what was measured to `target/<name>`.
pub fn write_results(name: &str, results: &impl serde::Serialize) -> Result {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(name), serde_json::to_string_pretty(results)?)?;
    Ok(())
}
