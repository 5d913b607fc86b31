//! Traffic metrics: who called whom in the last half minute, and how that went, as `metrics.smi-spec.io/v1alpha1` shows it.
//!
//! ```text
//! proxies ── edges (addresses) ─▶ gather ─▶ view ─▶ document (JSON)
//!                       index ─▶ Cluster ──┘
//! ```
//!
//! Pods are the grain: [`Cluster`] finds the pod an address belongs to and the object of each [`Kind`] a pod belongs to, and
//! [`view`] adds up. All but [`gather`] is pure. How questions come in is in [`crate::serve::traffic`].

mod cluster;
mod document;
mod figures;
pub mod gather;
mod kind;
pub mod selector;
pub mod view;

pub use cluster::Cluster;
pub use document::{Document, GROUP, GROUP_VERSION, VERSION};
pub use kind::{KINDS, Kind};
pub use view::{Ask, Refusal, Subject};
