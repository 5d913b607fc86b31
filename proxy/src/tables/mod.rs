//! What a request needs to know, compiled from resources: the local port it arrived on leads straight to it.
//!
//! One slot per port number, each swapped whole; a change of endpoints swaps only the list behind its backend. Requests
//! take no lock and look nothing up by name. How resources become entries is in [`apply`].

pub mod apply;

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use weft_config::{ServiceId, Timeouts};

use crate::balance::EndpointList;
use crate::http::upstream::HttpPort;
use crate::metrics::PortMetrics;

/// The endpoints behind one port of a Service, swapped whole when they change.
#[derive(Debug, Default)]
pub struct Backend {
    /// The endpoints as they are now.
    pub endpoints: ArcSwap<EndpointList>,
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
    /// For error texts: `Service shop/cart port 80 (http)`.
    pub description: String,
    /// Where its requests go.
    pub backend: Arc<Backend>,
    /// How it is carried.
    pub traffic: PortTraffic,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Its series.
    pub metrics: Arc<PortMetrics>,
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

impl PortEntry {
    /// Its HTTP policy, if it is carried as HTTP.
    pub fn http(&self) -> Option<&Arc<HttpPort>> {
        match &self.traffic {
            PortTraffic::Http(http) => Some(http),
            PortTraffic::Tcp | PortTraffic::Udp => None,
        }
    }
}

/// All ports.
#[derive(Debug)]
pub struct Tables {
    slots: Box<[ArcSwapOption<PortEntry>]>,
}

impl Default for Tables {
    fn default() -> Self {
        Self { slots: (0..=u16::MAX).map(|_| ArcSwapOption::empty()).collect() }
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
