//! What a request needs to know, compiled from resources: the local port it arrived on leads straight to it.
//!
//! One slot per port number, each swapped whole; a change of endpoints swaps only the list behind its backend. Requests
//! take no lock and look nothing up by name. How updates are taken is in [`apply`], what ports come to in `entries`, what
//! is held in which form in [`held`].

pub mod apply;
mod entries;
pub mod held;

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use weft_config::{EndpointsId, Restriction, ServiceId, Timeouts};

use crate::access::Accounts;
use crate::balance::EndpointList;
use crate::balance::split::Split;
use crate::edges::Edges;
use crate::http::matching::Form;
use crate::http::upstream::HttpPort;
use crate::metrics::PortMetrics;

/// The endpoints behind one port of a Service, swapped whole when they change.
#[derive(Debug)]
pub struct Backend {
    /// Whose endpoints they are.
    pub id: Arc<EndpointsId>,
    /// The endpoints as they are now.
    pub endpoints: ArcSwap<EndpointList>,
}

impl Backend {
    /// Without endpoints yet.
    pub fn new(id: EndpointsId) -> Self {
        Self { id: Arc::new(id), endpoints: ArcSwap::default() }
    }
}

/// One port of one Service.
#[derive(Debug)]
pub struct PortEntry {
    /// The Service.
    pub service: ServiceId,
    /// The Service's port number.
    pub port: u16,
    /// The local port.
    pub listen_port: u16,
    /// The port's name; empty when the Service does not name it.
    pub name: Box<str>,
    /// Where its requests go.
    pub backend: Arc<Backend>,
    /// How they are divided among others instead.
    pub split: Option<Split>,
    /// Nothing passes but what is allowed.
    pub restriction: Option<Restriction>,
    /// How it is carried.
    pub traffic: PortTraffic,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Its series.
    pub metrics: Arc<PortMetrics>,
    /// Who calls whom, of all ports.
    pub edges: Arc<Edges>,
}

/// How a port is carried.
#[derive(Debug)]
pub enum PortTraffic {
    /// As HTTP requests. Shared with the entry before, as long as the same is asked for: what was counted stays.
    Http(Arc<HttpPort>),
    /// As connections.
    Tcp,
    /// As datagrams.
    Udp,
}

/// Where something goes.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    /// To one of these endpoints.
    pub backend: &'a Arc<Backend>,
    /// Chosen by this.
    pub split: Option<&'a Split>,
}

/// For error texts: `Service shop/cart port 80 (http)`.
impl fmt::Display for PortEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service {} port {}", self.service, self.port)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " ({})", self.name) }
    }
}

impl PortEntry {
    /// Where the next goes; `form` is there for HTTP requests only.
    pub fn route(&self, form: Option<Form<'_>>) -> Route<'_> {
        let split = self.split.as_ref().filter(|split| split.concerns(form));
        // With no endpoint in any part of it the Service's own are better than none.
        let backend = split.and_then(|split| split.pick(form)).unwrap_or(&self.backend);
        Route { backend, split }
    }

    /// Every backend something may go to.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        std::iter::once(&self.backend).chain(self.split.iter().flat_map(Split::backends))
    }

    /// Its HTTP policy, if it is carried as HTTP.
    pub fn http(&self) -> Option<&Arc<HttpPort>> {
        match &self.traffic {
            PortTraffic::Http(http) => Some(http),
            PortTraffic::Tcp | PortTraffic::Udp => None,
        }
    }
}

/// All ports, and who may send to those that are restricted.
#[derive(Debug)]
pub struct Tables {
    slots: Box<[ArcSwapOption<PortEntry>]>,
    /// Who runs where, and what may be sent to them.
    pub accounts: Accounts,
}

impl Default for Tables {
    fn default() -> Self {
        let slots = (0..=u16::MAX).map(|_| ArcSwapOption::empty()).collect();
        Self { slots, accounts: Accounts::default() }
    }
}

impl Tables {
    /// What a connection to the local port `listen_port` is for.
    pub fn port(&self, listen_port: u16) -> Guard<Option<Arc<PortEntry>>> {
        self.slots[usize::from(listen_port)].load()
    }

    fn set(&self, listen_port: u16, entry: Option<Arc<PortEntry>>) {
        self.slots[usize::from(listen_port)].store(entry);
    }
}
