//! `TrafficTarget`: who may talk to whom.

use serde::Deserialize;
use serde_json::Value;

use super::{Unreadable, fields};

/// Requests that one of `rules` matches may go from any of `sources` to `destination`. What no target allows is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficTarget {
    /// Whom it lets be reached: pods that run as this.
    pub destination: ServiceAccount,
    /// On this port only; access v1alpha1 and v1alpha2.
    pub port: Option<u16>,
    /// Whom it lets in: pods that run as one of these. Nobody when empty.
    pub sources: Vec<ServiceAccount>,
    /// For what. Anything when empty and `port` is there or the version lets it be missing.
    pub rules: Vec<Rule>,
}

/// An identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Refers to a route of the target's own namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The kind of the route.
    pub kind: RouteKind,
    /// The route's name.
    pub name: String,
    /// The matches of it that count, by name; `None`: all.
    pub matches: Option<Vec<String>>,
}

/// Kinds of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// `HTTPRouteGroup`.
    Http,
    /// `TCPRoute`.
    Tcp,
    /// `UDPRoute`.
    Udp,
}

impl TrafficTarget {
    /// Reads a target of `namespace`. All of it or nothing: half a target might allow more than its author meant.
    pub fn read(object: &Value, namespace: &str) -> Result<Self, Unreadable> {
        let target: Fields = fields(object)?;
        let port = target.destination.port.as_ref().map(port).transpose()?;
        let account = |subject: Subject| subject.account(namespace);
        Ok(Self {
            port,
            destination: account(target.destination).map_err(|why| why.in_field("destination"))?,
            sources: target
                .sources
                .into_iter()
                .map(account)
                .collect::<Result<_, _>>()
                .map_err(|why: Unreadable| why.in_field("sources"))?,
            rules: target.rules.into_iter().map(Reference::rule).collect::<Result<_, _>>()?,
        })
    }
}

impl Unreadable {
    fn in_field(self, field: &str) -> Self {
        Self(format!("{field}: {}", self.0))
    }
}

/// Some wrote it as a text.
fn port(value: &Value) -> Result<u16, Unreadable> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let port = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0);
    port.ok_or_else(|| Unreadable::because(format!("destination.port: {value} is no port")))
}

#[derive(Deserialize)]
struct Fields {
    destination: Subject,
    #[serde(default)]
    sources: Vec<Subject>,
    /// `specs` until v1alpha1.
    #[serde(default, alias = "specs")]
    rules: Vec<Reference>,
}

#[derive(Deserialize)]
struct Subject {
    kind: String,
    name: String,
    namespace: Option<String>,
    port: Option<Value>,
}

impl Subject {
    fn account(self, namespace: &str) -> Result<ServiceAccount, Unreadable> {
        if self.kind != "ServiceAccount" {
            return Err(Unreadable(format!("kind {:?} is not known; it must be ServiceAccount", self.kind)));
        }
        let named = self.namespace.filter(|namespace| !namespace.is_empty());
        Ok(ServiceAccount { namespace: named.unwrap_or_else(|| namespace.to_owned()), name: self.name })
    }
}

#[derive(Deserialize)]
struct Reference {
    kind: String,
    name: String,
    matches: Option<Vec<String>>,
}

impl Reference {
    fn rule(self) -> Result<Rule, Unreadable> {
        let kind = match self.kind.as_str() {
            "HTTPRouteGroup" => RouteKind::Http,
            "TCPRoute" => RouteKind::Tcp,
            "UDPRoute" => RouteKind::Udp,
            other => {
                return Err(Unreadable(format!(
                    "rules: kind {other:?} is not known; it must be HTTPRouteGroup, TCPRoute or UDPRoute"
                )));
            }
        };
        // An empty list says the same as none: there would be no use for a rule that matches nothing.
        Ok(Rule { kind, name: self.name, matches: self.matches.filter(|matches| !matches.is_empty()) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account(namespace: &str, name: &str) -> ServiceAccount {
        ServiceAccount { namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn every_layout_says_the_same() {
        let subject = json!({"kind": "ServiceAccount", "name": "api", "namespace": "shop"});
        let sources = json!([{"kind": "ServiceAccount", "name": "web"}]);
        let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes", "matches": ["read"]}]);
        let first = json!({"destination": subject, "sources": sources, "specs": rules});
        let later = json!({"spec": {"destination": subject, "sources": sources, "rules": rules}});
        let expected = TrafficTarget {
            destination: account("shop", "api"),
            port: None,
            sources: vec![account("here", "web")],
            rules: vec![Rule {
                kind: RouteKind::Http,
                name: "routes".into(),
                matches: Some(vec!["read".into()]),
            }],
        };
        for layout in [first, later] {
            assert_eq!(TrafficTarget::read(&layout, "here").as_ref(), Ok(&expected), "{layout}");
        }
    }

    #[test]
    fn the_port_of_older_versions_is_kept() {
        let target = |port: Value| {
            let destination = json!({"kind": "ServiceAccount", "name": "api", "port": port});
            TrafficTarget::read(&json!({"spec": {"destination": destination}}), "here").map(|read| read.port)
        };
        assert_eq!(target(json!(8080)), Ok(Some(8080)));
        assert_eq!(target(json!("8080")), Ok(Some(8080)));
        assert_eq!(target(Value::Null), Ok(None));
        // Left out it would be every port.
        for wrong in [json!(0), json!(70000), json!("http"), json!(80.5)] {
            assert!(target(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_target_that_is_only_half_understood_is_refused_with_the_reason() {
        let account = json!({"kind": "ServiceAccount", "name": "api"});
        for (wrong, why) in [
            (json!({"spec": {"destination": {"kind": "IdentityBinding", "name": "x"}}}), "IdentityBinding"),
            (
                json!({"spec": {"destination": account, "sources": [{"kind": "Group", "name": "x"}]}}),
                "sources",
            ),
            (
                json!({"spec": {"destination": account, "rules": [{"kind": "Route", "name": "x"}]}}),
                "HTTPRouteGroup",
            ),
            (json!({"spec": {"sources": []}}), "destination"),
            (json!({"spec": {"destination": account, "sources": "web"}}), "sequence"),
            (json!({}), "destination"),
        ] {
            let error = TrafficTarget::read(&wrong, "here").unwrap_err().to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
