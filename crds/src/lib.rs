//! The Kubernetes API types Weft defines.
//!
//! Plain types with their schema: no watching, no HTTP, no knowledge of the configuration made from them. The CRD YAML
//! in the chart is generated from here by `crdgen`.

pub mod meshconfig;

pub use meshconfig::{MeshConfig, MeshConfigSpec, MeshConfigStatus};
