//! What this replica serves, leader or not: the config stream over TLS, and the admin port.

pub mod admin;
pub mod auth;
pub mod ca;
pub mod metrics;
pub mod stream;
