//! Access control: who may send what to whom. Only ports with a restriction ask here.
//!
//! - [`accounts`]: who runs at which address.
//! - [`rules`]: what may be sent to those who run as an account.
//! - [`admit`]: the decision for one request, connection or session, and why it was denied.
//!
//! The source is the address at the other end of the socket; nothing a caller says of itself counts. The destination is
//! whoever runs at the endpoint's address. Where either is not known nothing is allowed.

pub mod accounts;
pub mod admit;
pub mod rules;

pub use accounts::{Account, Accounts};
pub use admit::{Allowed, Denied};
pub use rules::{Ask, What};
