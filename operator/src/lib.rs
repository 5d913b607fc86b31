//! The operator.
//!
//! Every replica watches ([`index`]), compiles ([`compile`]), publishes ([`publish`]) and serves ([`serve`]). The one that
//! leads ([`lease`]) also writes ([`apply`]): [`reconcile`] starts and stops with the Lease. [`run`] puts these together. [`names`], [`ports`] and [`dns`]
//! are the pure parts it decides with; [`smi`] says what the objects of the Service Mesh Interface mean, [`policies`] what they
//! make of this cluster, [`traffic`] what passed through it.

pub mod annotations;
pub mod apply;
pub mod args;
pub mod cleanup;
pub mod client;
pub mod compile;
pub mod context;
pub mod definition;
pub mod dns;
pub mod index;
pub mod lease;
mod listed;
pub mod names;
pub mod outside;
pub mod policies;
pub mod ports;
pub mod publish;
pub mod reconcile;
pub mod run;
pub mod serve;
pub mod smi;
pub mod traffic;
mod watches;
