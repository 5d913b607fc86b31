//! What a path asks for, and which right it takes: the same that the API server has asked its authorisers for, since it reads
//! the path in this way. Pure.

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::discovery;
use super::review::Attributes;
use crate::traffic::{Ask, GROUP, Kind, Subject, VERSION, selector};

/// Edges of an object.
const EDGES: &str = "edges";

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Route {
    /// What this API is.
    Document(Value),
    /// Metrics.
    Metrics(Box<Wanted>),
}

/// Metrics, and the right they take.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) ask: Ask,
    pub(super) attributes: Attributes,
}

/// Why it cannot be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    NotFound,
    Request(String),
}

/// Reads a path and its query.
pub(super) fn read(path: &str, query: &str) -> Result<Route, Bad> {
    let parts: Vec<String> =
        path.split('/').filter(|part| !part.is_empty()).map(decoded).collect::<Result<_, _>>()?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let document = match &*parts {
        ["livez" | "readyz" | "healthz"] => Value::from("ok"),
        ["apis"] => discovery::groups(),
        ["openapi", "v2"] => discovery::openapi_v2(),
        ["openapi", "v3"] => discovery::openapi_v3(),
        ["openapi", "v3", "apis", GROUP, VERSION] => discovery::openapi_v3_of_version(),
        ["apis", GROUP] => discovery::group(),
        ["apis", GROUP, VERSION] => discovery::resources(),
        ["apis", GROUP, VERSION, rest @ ..] => return metrics(rest, query),
        _ => return Err(Bad::NotFound),
    };
    Ok(Route::Document(document))
}

fn metrics(parts: &[&str], query: &str) -> Result<Route, Bad> {
    let (namespace, plural, name, edges) = match *parts {
        ["namespaces", name] => (Some(name), "namespaces", Some(name), false),
        ["namespaces", name, EDGES] => (Some(name), "namespaces", Some(name), true),
        ["namespaces", namespace, plural] => (Some(namespace), plural, None, false),
        ["namespaces", namespace, plural, name] => (Some(namespace), plural, Some(name), false),
        ["namespaces", namespace, plural, name, EDGES] => (Some(namespace), plural, Some(name), true),
        [plural] => (None, plural, None, false),
        [plural, name] => (None, plural, Some(name), false),
        [plural, name, EDGES] => (None, plural, Some(name), true),
        _ => return Err(Bad::NotFound),
    };
    let kind = Kind::of(plural).ok_or(Bad::NotFound)?;
    // Of the two forms, with and without a namespace, a kind's objects have one; their lists may have both.
    let placed = parts.len() > 3 || (parts.len() == 3 && parts[0] == "namespaces" && !edges);
    if (placed && !kind.namespaced) || (kind.namespaced && namespace.is_none() && name.is_some()) {
        return Err(Bad::NotFound);
    }
    let query = Query::read(query)?;
    let subject = match name {
        None => {
            Subject::All(selector::parse(&query.selector).map_err(|error| Bad::Request(error.to_string()))?)
        }
        Some(_) if !query.selector.is_empty() => {
            return Err(Bad::Request("labelSelector is for lists of objects".to_owned()));
        }
        Some(name) if edges => Subject::Edges(name.to_owned()),
        Some(name) => Subject::One(name.to_owned()),
    };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    // The API server takes the edges of a namespace for all objects of a kind "edges" in it.
    let attributes = if edges && !kind.namespaced && namespace.is_some() {
        Attributes {
            verb: "list",
            resource: EDGES.to_owned(),
            namespace: owned(namespace),
            ..Attributes::default()
        }
    } else {
        Attributes {
            verb: if name.is_some() { "get" } else { "list" },
            resource: plural.to_owned(),
            subresource: edges.then_some(EDGES),
            namespace: owned(namespace),
            name: owned(name),
        }
    };
    let namespace = owned(namespace.filter(|_| kind.namespaced));
    Ok(Route::Metrics(Box::new(Wanted { ask: Ask { kind, namespace, subject }, attributes })))
}

#[derive(Default)]
struct Query {
    selector: String,
}

impl Query {
    /// Parameters that change nothing here, as `limit`, are passed over.
    fn read(text: &str) -> Result<Self, Bad> {
        let mut query = Self::default();
        for pair in text.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(&value.replace('+', " "))?;
            match key {
                "labelSelector" => query.selector = value,
                "watch" if !matches!(&*value, "" | "0" | "false") => {
                    return Err(Bad::Request("metrics cannot be watched".to_owned()));
                }
                "fieldSelector" if !value.is_empty() => {
                    return Err(Bad::Request("fieldSelector is not supported".to_owned()));
                }
                _ => {}
            }
        }
        Ok(query)
    }
}

fn decoded(text: &str) -> Result<String, Bad> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(Into::into).map_err(|_| Bad::Request("the path or the query is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(path: &str) -> Result<(String, String), Bad> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match read(&format!("/apis/metrics.smi-spec.io/v1alpha1{path}"), query)? {
            Route::Metrics(wanted) => {
                let Wanted { ask: Ask { kind, namespace, subject }, attributes } = *wanted;
                let subject = match subject {
                    Subject::All(selector) => format!("all[{selector}]"),
                    Subject::One(name) => name,
                    Subject::Edges(name) => format!("{name} edges"),
                };
                let namespace = namespace.unwrap_or_default();
                Ok((format!("{} {namespace} {subject}", kind.kind), attributes.to_string()))
            }
            Route::Document(document) => panic!("{document}"),
        }
    }

    #[test]
    fn paths_and_the_rights_they_take() {
        let all = [
            "/pods",
            "/nodes",
            "/nodes/n1",
            "/nodes/n1/edges",
            "/namespaces",
            "/namespaces/shop",
            "/namespaces/shop/edges",
            "/namespaces/shop/deployments?labelSelector=app%3Dweb&limit=500",
            "/namespaces/shop/deployments/",
            "/namespaces/shop/deployments/web",
            "/namespaces/shop/trafficsplits/web/edges",
        ];
        let shown: String = all
            .iter()
            .map(|path| {
                let (ask, right) = wanted(path).unwrap();
                format!("{path}\n    {ask}\n    {right}\n")
            })
            .collect();
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for path in [
            "/elephants",
            "/namespaces/shop/elephants",
            "/pods/web-1",
            "/namespaces/shop/nodes",
            "/namespaces/shop/nodes/n1",
            "/namespaces/a/namespaces/b",
            "/namespaces/shop/pods/p/log",
            "/namespaces/shop/pods/p/edges/e",
        ] {
            assert_eq!(wanted(path), Err(Bad::NotFound), "{path}");
        }
        assert_eq!(read("/api", "").err(), Some(Bad::NotFound));
        assert_eq!(read("/apis/metrics.smi-spec.io/v1", "").err(), Some(Bad::NotFound));
        for path in [
            "/pods?watch=true",
            "/pods?labelSelector=a%3Db%3Dc",
            "/pods?fieldSelector=a%3Db",
            "/namespaces/shop?labelSelector=a",
        ] {
            assert!(matches!(wanted(path), Err(Bad::Request(_))), "{path}");
        }
    }
}
