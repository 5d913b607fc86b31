//! The Service Mesh Interface on a real cluster: who may call what, how the traffic of a Service is divided, in every version
//! the objects were ever written in. One file for each subject; `tests/run-e2e.sh smi` runs them all on one mesh.
//!
//! Tests in files whose names begin with `access` need a mesh that lets nothing pass but what is allowed; they run side by
//! side with each other, first by their names, so that the mesh is changed only a few times.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "smi/access_accounts.rs"]
mod access_accounts;
#[path = "smi/access_address.rs"]
mod access_address;
#[path = "smi/access_change.rs"]
mod access_change;
#[path = "smi/access_conformance.rs"]
mod access_conformance;
#[path = "smi/access_examples.rs"]
mod access_examples;
#[path = "smi/access_forged.rs"]
mod access_forged;
#[path = "smi/access_http.rs"]
mod access_http;
#[path = "smi/access_ports.rs"]
mod access_ports;
#[path = "smi/access_schemes.rs"]
mod access_schemes;
#[path = "smi/access_splits.rs"]
mod access_splits;
#[path = "smi/access_streams.rs"]
mod access_streams;
#[path = "smi/access_tenants.rs"]
mod access_tenants;
#[path = "smi/definitions.rs"]
mod definitions;
#[path = "smi/examples.rs"]
mod examples;
#[path = "smi/metrics.rs"]
mod metrics;
#[path = "smi/scene.rs"]
mod scene;
#[path = "smi/split_change.rs"]
mod split_change;
#[path = "smi/split_choice.rs"]
mod split_choice;
#[path = "smi/split_conformance.rs"]
mod split_conformance;
#[path = "smi/split_examples.rs"]
mod split_examples;
#[path = "smi/split_matches.rs"]
mod split_matches;
#[path = "smi/split_shares.rs"]
mod split_shares;
#[path = "smi/split_streams.rs"]
mod split_streams;
#[path = "smi/told.rs"]
mod told;
