//! The node proxy.
//!
//! Data goes one way: [`sync`] receives resources, [`tables`] turns them into what a request needs, [`listen`] holds a
//! socket for each port, [`http`] carries a request, [`tcp`] a connection, [`udp`] datagrams, [`balance`] picks the endpoint. [`drain`] is how it all ends,
//! [`admin`], [`metrics`], [`edges`] and [`access_log`] are what people, Kubernetes and the operator see of it.

pub mod access;
pub mod access_log;
pub mod admin;
pub mod args;
pub mod balance;
pub mod drain;
pub mod edges;
pub mod http;
pub mod listen;
pub mod metrics;
pub mod sync;
pub mod tables;
pub mod tcp;
pub mod udp;
