//! `HTTPRouteGroup`, `TCPRoute` and `UDPRoute`: traffic, described. What happens to it is said by those who refer to them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Unreadable, fields};

/// Matches of one group. Each may have patterns, which take memory in the operator and in every proxy.
pub(super) const MOST_MATCHES: usize = 128;

/// HTTP requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpRouteGroup {
    /// Each describes some of them.
    pub matches: Vec<HttpMatch>,
}

/// A request matches when all of this holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpMatch {
    /// By which it is referred to.
    pub name: String,
    /// Its method is one of these. Any when empty.
    pub methods: Vec<String>,
    /// Its path begins with what this regular expression matches. Any when `None`.
    pub path_regex: Option<String>,
    /// It has each of these headers with a value that the regular expression matches. Names are in lower case.
    pub headers: Vec<(String, String)>,
}

impl HttpRouteGroup {
    /// Reads a group.
    pub fn read(object: &Value) -> Result<Self, Unreadable> {
        let group: GroupFields = fields(object)?;
        if group.matches.len() > MOST_MATCHES {
            let count = group.matches.len();
            return Err(Unreadable::because(format!(
                "matches: there are {count}; {MOST_MATCHES} at most are read"
            )));
        }
        Ok(Self { matches: group.matches.into_iter().map(MatchFields::read).collect() })
    }
}

#[derive(Deserialize)]
struct GroupFields {
    #[serde(default)]
    matches: Vec<MatchFields>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MatchFields {
    #[serde(default)]
    name: String,
    #[serde(default)]
    methods: Vec<String>,
    path_regex: Option<String>,
    #[serde(default)]
    headers: HeaderFields,
}

/// The definitions say a list of maps, the text of the specification shows a map.
#[derive(Deserialize)]
#[serde(untagged)]
enum HeaderFields {
    Map(BTreeMap<String, String>),
    List(Vec<BTreeMap<String, String>>),
}

impl Default for HeaderFields {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl MatchFields {
    fn read(self) -> HttpMatch {
        let maps = match self.headers {
            HeaderFields::Map(map) => vec![map],
            HeaderFields::List(maps) => maps,
        };
        let headers = maps.into_iter().flatten();
        let any = self.methods.iter().any(|method| method == "*");
        HttpMatch {
            name: self.name,
            methods: if any { Vec::new() } else { self.methods },
            path_regex: self.path_regex.filter(|regex| !regex.is_empty()),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect(),
        }
    }
}

/// TCP or UDP ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortRoute {
    /// Any when empty.
    pub ports: Vec<u16>,
}

impl PortRoute {
    /// Reads a `TCPRoute` or `UDPRoute`. The first versions of `TCPRoute` have no fields: any port.
    pub fn read(object: &Value) -> Result<Self, Unreadable> {
        let route: RouteFields = fields(object)?;
        let port = |number: &i64| {
            let port = u16::try_from(*number).ok().filter(|port| *port != 0);
            port.ok_or_else(|| Unreadable::because(format!("matches.ports: {number} is no port")))
        };
        let ports = route.matches.ports.iter().map(port).collect::<Result<_, _>>()?;
        Ok(Self { ports })
    }
}

#[derive(Deserialize)]
struct RouteFields {
    #[serde(default)]
    matches: PortFields,
}

#[derive(Deserialize, Default)]
struct PortFields {
    #[serde(default)]
    ports: Vec<i64>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_group_may_have_so_many_matches() {
        let group = |count| {
            let matches: Vec<_> =
                (0..count).map(|n| json!({"name": n.to_string(), "pathRegex": "/a"})).collect();
            HttpRouteGroup::read(&json!({"spec": {"matches": matches}}))
        };
        assert_eq!(group(MOST_MATCHES).unwrap().matches.len(), MOST_MATCHES);
        assert!(group(MOST_MATCHES + 1).unwrap_err().to_string().contains("128 at most"));
    }

    #[test]
    fn every_layout_says_the_same() {
        let headers = [json!([{"X-Debug": "1"}, {"cookie": "^a"}]), json!({"X-Debug": "1", "cookie": "^a"})];
        for headers in headers {
            let matches = json!([
                {"name": "read", "methods": ["GET", "HEAD"], "pathRegex": "/books", "headers": headers},
                {"name": "all", "methods": ["*"], "pathRegex": ""}]);
            for object in [json!({"matches": matches}), json!({"spec": {"matches": matches}})] {
                let group = HttpRouteGroup::read(&object).unwrap();
                let mut headers = group.matches[0].headers.clone();
                headers.sort();
                assert_eq!(headers, [("cookie".into(), "^a".into()), ("x-debug".into(), "1".into())]);
                assert_eq!(group.matches[0].methods, ["GET", "HEAD"]);
                assert_eq!(group.matches[0].path_regex.as_deref(), Some("/books"));
                assert_eq!(group.matches[1], HttpMatch { name: "all".into(), ..HttpMatch::default() });
            }
        }
    }

    #[test]
    fn a_route_without_ports_is_for_any() {
        for any in [
            json!({}),
            json!({"spec": {}}),
            json!({"spec": {"matches": {}}}),
            json!({"matches": {"ports": []}}),
        ] {
            assert_eq!(PortRoute::read(&any), Ok(PortRoute::default()), "{any}");
        }
        let some = json!({"spec": {"matches": {"ports": [8301, 8302]}}});
        assert_eq!(PortRoute::read(&some).unwrap().ports, [8301, 8302]);
        // Left out it would be any port.
        assert!(PortRoute::read(&json!({"spec": {"matches": {"ports": [0]}}})).is_err());
        assert!(PortRoute::read(&json!({"spec": {"matches": {"ports": ["http"]}}})).is_err());
        assert!(PortRoute::read(&json!({"spec": {"matches": null}})).is_err());
        assert!(PortRoute::read(&json!({"spec": [80]})).is_err());
    }
}
