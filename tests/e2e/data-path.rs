//! What the mesh does for the traffic it carries, asked for by annotations and seen from real pods. One file for each subject;
//! `tests/run-e2e.sh data-path` runs them all on one mesh, side by side where they mind no other.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "data-path/access_log.rs"]
mod access_log;
#[path = "data-path/annotations.rs"]
mod annotations;
#[path = "data-path/bodies.rs"]
mod bodies;
#[path = "data-path/circuit_breaker.rs"]
mod circuit_breaker;
#[path = "data-path/forwarding.rs"]
mod forwarding;
#[path = "data-path/grpc.rs"]
mod grpc;
#[path = "data-path/http.rs"]
mod http;
#[path = "data-path/https.rs"]
mod https;
#[path = "data-path/lost_node.rs"]
mod lost_node;
#[path = "data-path/malformed.rs"]
mod malformed;
#[path = "data-path/mesh_defaults.rs"]
mod mesh_defaults;
#[path = "data-path/metrics.rs"]
mod metrics;
#[path = "data-path/rate_limit.rs"]
mod rate_limit;
#[path = "data-path/retries.rs"]
mod retries;
#[path = "data-path/tcp.rs"]
mod tcp;
#[path = "data-path/timeouts.rs"]
mod timeouts;
#[path = "data-path/traffic_type.rs"]
mod traffic_type;
#[path = "data-path/udp.rs"]
mod udp;
#[path = "data-path/websocket.rs"]
mod websocket;
