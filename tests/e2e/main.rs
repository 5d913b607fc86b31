//! The main job on a real cluster: a pod calls a Service by its mesh name, and its own node's proxy carries it. One file for
//! each subject; `tests/run-e2e.sh main` runs them all, one at a time, on one mesh.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "main/access.rs"]
mod access;
#[path = "main/endpoints.rs"]
mod endpoints;
#[path = "main/lifecycle.rs"]
mod lifecycle;
#[path = "main/operator.rs"]
mod operator;
#[path = "main/requests.rs"]
mod requests;
#[path = "main/rollout.rs"]
mod rollout;
#[path = "main/services.rs"]
mod services;
#[path = "main/snapshot.rs"]
mod snapshot;
#[path = "main/traffic.rs"]
mod traffic;
