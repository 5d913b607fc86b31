//! `traffic-type`: what is spoken on the ports of a Service.

use weft_crds::meshconfig::TrafficType as Asked;

use super::{Annotation, Row, Settings, Values};
use crate::index::facts::ServiceFacts;

/// What is spoken on the ports of a Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrafficType {
    /// HTTP over its TCP ports.
    #[default]
    Http,
    /// Anything over its TCP ports.
    Tcp,
    /// Datagrams over its UDP ports.
    Udp,
}

impl From<Asked> for TrafficType {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Http => Self::Http,
            Asked::Tcp => Self::Tcp,
            Asked::Udp => Self::Udp,
        }
    }
}

const KEY: &str = "traffic-type";

pub(super) const ROW: Row = Row {
    annotations: &[Annotation {
        key: KEY,
        allowed: "`http`, `tcp`, `udp`",
        default: "`spec.defaultTrafficType` of the MeshConfig; `udp` when all ports are UDP",
        meaning: "What is spoken on the Service's ports. `http` and `tcp` carry its TCP ports, `udp` its UDP ports.",
    }],
    read: |values, settings, problems| {
        if let Some(traffic_type) = values.read(KEY, problems, parse) {
            settings.traffic_type = traffic_type;
        }
    },
};

fn parse(text: &str) -> Result<TrafficType, String> {
    match text {
        "http" => Ok(TrafficType::Http),
        "tcp" => Ok(TrafficType::Tcp),
        "udp" => Ok(TrafficType::Udp),
        _ => Err("allowed are http, tcp and udp; the mesh's default is used".to_owned()),
    }
}

/// The type of a Service that says nothing: the mesh's, except that datagrams are datagrams.
pub(super) fn without_annotation(service: &ServiceFacts, defaults: &Settings) -> TrafficType {
    let only_udp = service.ports.iter().all(|port| port.udp) && !service.ports.is_empty();
    if only_udp { TrafficType::Udp } else { defaults.traffic_type }
}

/// The type of `service`, without looking at anything else.
pub(super) fn of(service: &ServiceFacts, defaults: &Settings) -> TrafficType {
    let asked = Values(&service.annotations).get(KEY).and_then(|value| parse(value.text).ok());
    asked.unwrap_or_else(|| without_annotation(service, defaults))
}
