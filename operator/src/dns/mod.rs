//! The mesh domains in the cluster's DNS: pure editors, and the check that asks the DNS pods themselves.

pub mod block;
pub mod check;
pub mod corefile;
