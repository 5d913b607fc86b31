//! The Service Mesh Interface: its kinds in every released version, read into one form.
//!
//! The versions differ in layout, not in meaning: the first ones have their fields at the top level, later ones under `spec`,
//! and a name or two changed. So an object is read by the layout it has, not by the version it came in: with other tools'
//! definitions one cluster serves any of them, and with ours (no conversion) an object keeps the layout it was written in.
//! What the objects mean together is the operator's business. Spec: <https://github.com/servicemeshinterface/smi-spec>,
//! release 0.6.0 and all before.

mod access;
mod crd;
mod specs;
mod split;

pub use access::{RouteKind, Rule, ServiceAccount, TrafficTarget};
pub use crd::crds_yaml;
pub use specs::{HttpMatch, HttpRouteGroup, PortRoute};
pub use split::{SplitBackend, TrafficSplit};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// A kind of the Service Mesh Interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its API group.
    pub group: &'static str,
    /// Its name.
    pub kind: &'static str,
    /// Its name in paths.
    pub plural: &'static str,
    /// Its short name for `kubectl`.
    pub short: &'static str,
    /// Its released versions, newest first.
    pub versions: &'static [&'static str],
}

/// Who may talk to whom.
pub const TRAFFIC_TARGET: Kind = Kind {
    group: "access.smi-spec.io",
    kind: "TrafficTarget",
    plural: "traffictargets",
    short: "tt",
    versions: &["v1alpha3", "v1alpha2", "v1alpha1"],
};
/// HTTP requests, described.
pub const HTTP_ROUTE_GROUP: Kind = Kind {
    group: "specs.smi-spec.io",
    kind: "HTTPRouteGroup",
    plural: "httproutegroups",
    short: "htr",
    versions: &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"],
};
/// TCP ports.
pub const TCP_ROUTE: Kind = Kind {
    group: "specs.smi-spec.io",
    kind: "TCPRoute",
    plural: "tcproutes",
    short: "tr",
    versions: &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"],
};
/// UDP ports.
pub const UDP_ROUTE: Kind = Kind {
    group: "specs.smi-spec.io",
    kind: "UDPRoute",
    plural: "udproutes",
    short: "ur",
    versions: &["v1alpha4"],
};
/// How the traffic of a Service is divided.
pub const TRAFFIC_SPLIT: Kind = Kind {
    group: "split.smi-spec.io",
    kind: "TrafficSplit",
    plural: "trafficsplits",
    short: "ts",
    versions: &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"],
};
/// All of them.
pub const KINDS: [Kind; 5] = [TRAFFIC_TARGET, HTTP_ROUTE_GROUP, TCP_ROUTE, UDP_ROUTE, TRAFFIC_SPLIT];

impl Kind {
    /// The name of its definition.
    pub fn crd_name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }
}

/// An object cannot be read. The text says what is wrong in it, for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

impl Unreadable {
    fn because(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Reads the fields of `object`: those under `spec` when there are any, else those at the top level.
fn fields<T: DeserializeOwned>(object: &Value) -> Result<T, Unreadable> {
    let fields = match object.get("spec") {
        None | Some(Value::Null) => object,
        Some(Value::Object(fields)) if fields.is_empty() => object,
        Some(spec @ Value::Object(_)) => spec,
        // Not as if it said nothing: a route that says nothing is for any port.
        Some(spec) => return Err(Unreadable(format!("spec: {spec} has no fields"))),
    };
    T::deserialize(fields).map_err(|error| Unreadable(error.to_string()))
}
