//! What every task of the operator is given.

use std::sync::Arc;

use kube::Client;

use crate::apply::Writer;
use crate::index::Index;
use crate::lease::Contact;
use crate::outside::Outside;
use crate::publish::Publisher;
use crate::serve::metrics::Metrics;

/// Shared by all tasks; cloning is cheap.
#[derive(Clone)]
pub struct Context {
    /// For reading.
    pub client: Client,
    /// For writing, while this replica leads.
    pub writer: Writer,
    /// What is known of the cluster.
    pub index: Index,
    /// The configuration.
    pub publisher: Publisher,
    /// Whom to ask besides the API server.
    pub outside: Arc<dyn Outside>,
    /// Our namespace.
    pub namespace: Arc<str>,
    /// Our pod.
    pub pod: Arc<str>,
    /// Image of the proxies, unless the MeshConfig names another.
    pub proxy_image: Arc<str>,
    /// Whether the traffic metrics API is served.
    pub smi_metrics: bool,
    /// Whether the API server is heard of.
    pub contact: Contact,
    /// The series.
    pub metrics: Arc<Metrics>,
}
