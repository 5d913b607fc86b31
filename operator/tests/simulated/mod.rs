//! What the tests of the reconcilers share: objects as an API server keeps them, and the cluster that the chart and Kubernetes
//! itself have made before the operator starts. Transport, delays and faults are each test's own.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod chart;
pub(crate) mod fields;
pub(crate) mod paths;
pub(crate) mod store;
pub(crate) mod typed;
