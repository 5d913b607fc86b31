//! What the owner of a Service asks for with annotations. Pure.
//!
//! Each file is one subject: the annotations it reads, what they mean and what is allowed. [`ROWS`] lists them. A value that
//! cannot be used is a [`Problem`] of that one annotation: the rest of the Service works, this part with its default.

mod circuit_breaker;
mod mesh;
mod number;
mod rate_limit;
mod retry;
mod scheme;
mod timeouts;
mod traffic_type;
mod upstream_tls;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use weft_config::expression::Expression;
use weft_config::{HttpPolicy, RateLimit, Scheme, Timeouts, Traffic, UpstreamTls};

use crate::index::facts::{ServiceFacts, ServicePort};

pub use traffic_type::TrafficType;

/// Where annotations are looked for, the first that has one wins: ours, then those of Services written for Traefik Mesh.
pub const PREFIXES: [&str; 3] = ["weft.mesh/", "mesh.traefik.io/", "maesh.containo.us/"];

/// One subject: the annotations it is made of and how they are read.
struct Row {
    annotations: &'static [Annotation],
    read: fn(&Values<'_>, &mut Settings, &mut Vec<Problem>),
}

/// One annotation, for people.
struct Annotation {
    /// Its key, without the prefix.
    key: &'static str,
    /// What may stand there.
    allowed: &'static str,
    /// What holds without it.
    default: &'static str,
    /// What it does.
    meaning: &'static str,
}

/// Every annotation there is.
const ROWS: [Row; 7] = [
    traffic_type::ROW,
    scheme::ROW,
    upstream_tls::ROW,
    retry::ROW,
    circuit_breaker::ROW,
    rate_limit::ROW,
    timeouts::ROW,
];

/// What is asked for a Service: the mesh's defaults and what its annotations change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    traffic_type: TrafficType,
    scheme: scheme::Name,
    upstream_tls: upstream_tls::Wanted,
    retry_attempts: Option<u8>,
    circuit_breaker: Option<Expression>,
    rate_limit: Option<RateLimit>,
    timeouts: Timeouts,
}

impl Settings {
    /// What is asked for `service` where the mesh asks for `defaults`, and what could not be understood.
    pub fn of(service: &ServiceFacts, defaults: &Self) -> (Self, Vec<Problem>) {
        let values = Values(&service.annotations);
        let (mut settings, mut problems) = (defaults.clone(), Vec::new());
        settings.traffic_type = traffic_type::without_annotation(service, defaults);
        for row in &ROWS {
            (row.read)(&values, &mut settings, &mut problems);
        }
        values.report_unknown(&mut problems);
        (settings, problems)
    }

    /// How the ports of `service` are carried.
    pub fn traffic(&self, service: &ServiceFacts) -> Traffic {
        match self.traffic_type {
            TrafficType::Tcp => Traffic::Tcp,
            TrafficType::Udp => Traffic::Udp,
            TrafficType::Http => Traffic::Http(HttpPolicy {
                scheme: match self.scheme {
                    scheme::Name::Http => Scheme::Http,
                    scheme::Name::H2c => Scheme::H2c,
                    scheme::Name::Https => Scheme::Https(self.upstream_tls(service)),
                },
                retry_attempts: self.retry_attempts,
                circuit_breaker: self.circuit_breaker.clone(),
                rate_limit: self.rate_limit,
            }),
        }
    }

    fn upstream_tls(&self, service: &ServiceFacts) -> UpstreamTls {
        let wanted = &self.upstream_tls;
        let by_name = || format!("{}.{}.svc", service.id.name, service.id.namespace);
        UpstreamTls {
            authorities: wanted.authorities.clone(),
            server_name: wanted.server_name.clone().unwrap_or_else(by_name),
            unverified: wanted.unverified,
        }
    }

    /// How long things may take.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }
}

/// The ports of `service` that the mesh carries: those whose protocol fits its traffic type.
pub fn carried<'a>(service: &'a ServiceFacts, defaults: &Settings) -> impl Iterator<Item = &'a ServicePort> {
    let udp = traffic_type::of(service, defaults) == TrafficType::Udp;
    service.ports.iter().filter(move |port| port.udp == udp)
}

/// Whether the ports of `service` are carried as HTTP.
pub fn is_http(service: &ServiceFacts, defaults: &Settings) -> bool {
    traffic_type::of(service, defaults) == TrafficType::Http
}

/// An annotation that cannot be used, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The annotation's whole key.
    pub annotation: String,
    /// Its value; a long one is cut.
    pub value: String,
    /// What is wrong, what is allowed, and what happens instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "annotation {} with the value {:?}: {}", self.annotation, self.value, self.message)
    }
}

/// The annotations of one Service.
struct Values<'a>(&'a BTreeMap<Arc<str>, Arc<str>>);

/// One annotation as it was found.
#[derive(Clone, Copy)]
struct Value<'a> {
    key: &'a str,
    text: &'a str,
}

/// Values are shown to people; some are whole certificates.
const SHOWN: usize = 100;

impl Value<'_> {
    fn problem(self, message: impl Into<String>) -> Problem {
        let mut value: String = self.text.chars().take(SHOWN).collect();
        if value.len() < self.text.len() {
            value.push('…');
        }
        Problem { annotation: self.key.to_owned(), value, message: message.into() }
    }
}

impl<'a> Values<'a> {
    fn get(&self, name: &str) -> Option<Value<'a>> {
        PREFIXES.iter().find_map(|prefix| {
            let (key, text) = self.0.get_key_value(format!("{prefix}{name}").as_str())?;
            Some(Value { key, text })
        })
    }

    /// Reads `name` with `read`, whose error says what is allowed. `None`: it is not there or no good.
    fn read<T>(
        &self,
        name: &str,
        problems: &mut Vec<Problem>,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.get(name)?;
        read(value.text).map_err(|message| problems.push(value.problem(message))).ok()
    }

    /// A key of ours that nobody reads is a slip of the pen. Under the other prefixes others may have theirs.
    fn report_unknown(&self, problems: &mut Vec<Problem>) {
        let known = || ROWS.iter().flat_map(|row| row.annotations).map(|annotation| annotation.key);
        for (key, text) in self.0 {
            let Some(name) = key.strip_prefix(PREFIXES[0]) else { continue };
            if !known().any(|known| known == name) {
                let all = known().collect::<Vec<_>>().join(", ");
                problems.push(
                    Value { key, text }.problem(format!("there is no such annotation; there are {all}")),
                );
            }
        }
    }
}

/// The table of all annotations, in Markdown, as `docs/annotations.md` has it.
pub fn table() -> String {
    let mut text = String::from("| annotation | allowed | without it | meaning |\n|---|---|---|---|\n");
    for annotation in ROWS.iter().flat_map(|row| row.annotations) {
        let Annotation { key, allowed, default, meaning } = annotation;
        text.push_str(&format!("| `weft.mesh/{key}` | {allowed} | {default} | {meaning} |\n"));
    }
    text
}

#[cfg(test)]
mod tests;
