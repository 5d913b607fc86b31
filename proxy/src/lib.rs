//! The node proxy.
//!
//! Data goes one way: [`sync`] receives resources, [`tables`] turns them into what a request needs, [`listen`] holds a
//! socket for each port, [`http`] carries a request, [`balance`] picks the endpoint. [`drain`] is how it all ends,
//! [`admin`] and [`metrics`] are what people and Kubernetes see of it.

pub mod admin;
pub mod args;
pub mod balance;
pub mod drain;
pub mod http;
pub mod listen;
pub mod metrics;
pub mod sync;
pub mod tables;
