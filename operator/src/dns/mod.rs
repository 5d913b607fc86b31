//! The mesh domains in the cluster's DNS.
//!
//! ```text
//! facts ──▶ detect ──▶ places ─┬▶ corefile (block)   CoreDNS, NodeLocal DNSCache
//!             │                ├▶ a key of our own    coredns-custom
//!             └─ syntax        └▶ stubs               kube-dns ──▶ resolver
//! ```
//!
//! All of it is pure but for [`check`], which asks DNS servers themselves. [`fight`] says when to stop writing what somebody
//! else undoes. [`resolver`] answers for the mesh domains itself.

pub mod block;
pub mod check;
pub mod corefile;
pub mod detect;
pub mod facts;
pub mod fight;
pub mod places;
pub mod resolver;
pub mod stubs;
pub mod syntax;
pub mod version;

#[cfg(test)]
mod corefiles;
