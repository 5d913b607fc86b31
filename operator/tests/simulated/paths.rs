//! The paths of requests, and of the objects that the tests are about.

/// A collection (`/api/v1 services`), a namespace (empty: none) and a name.
pub(crate) type Key = (String, String, String);

pub(crate) const OURS: &str = "weft-system";
pub(crate) const MESH: &str = "/apis/weft.mesh/v1alpha1/namespaces/weft-system/meshconfigs/weft";
pub(crate) const DAEMONSET: &str = "/apis/apps/v1/namespaces/weft-system/daemonsets/weft-proxy";
pub(crate) const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/weft-system/leases/weft-operator";
pub(crate) const COREDNS: &str = "/api/v1/namespaces/kube-system/configmaps/coredns";
pub(crate) const CA_SECRET: &str = "/api/v1/namespaces/weft-system/secrets/weft-ca";
pub(crate) const CA_MAP: &str = "/api/v1/namespaces/weft-system/configmaps/weft-ca";

/// The path of a Service.
pub(crate) fn service(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/services/{name}")
}

/// The path of an EndpointSlice.
pub(crate) fn slice(namespace: &str, name: &str) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}")
}

/// A request's path, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) collection: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) status: bool,
}

impl Target {
    pub(crate) fn of(path: &str) -> Self {
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let (group, rest) = parts.split_at(if parts[0] == "api" { 2 } else { 3 });
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        Self {
            collection: format!("/{} {}", group.join("/"), rest[0]),
            namespace,
            name: rest.get(1).map(|name| (*name).to_owned()),
            status: rest.get(2) == Some(&"status"),
        }
    }

    pub(crate) fn key(&self) -> Key {
        (
            self.collection.clone(),
            self.namespace.clone().unwrap_or_default(),
            self.name.clone().unwrap_or_default(),
        )
    }

    /// Whether `key` is in the collection that is meant.
    pub(crate) fn matches(&self, key: &Key) -> bool {
        key.0 == self.collection && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.1)
    }
}

/// The key of the object at `path`.
pub(crate) fn key(path: &str) -> Key {
    Target::of(path).key()
}

/// The value of a parameter of a query.
pub(crate) fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The selectors of a query: a name, and `key=value` or `!key` of labels.
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    name: Option<String>,
    label: Option<Label>,
}

#[derive(Debug, Clone)]
enum Label {
    Is(String, String),
    IsNot(String),
}

impl Selector {
    pub(crate) fn of(query: &str) -> Self {
        let text = |name| {
            let text = parameter(query, name)?;
            Some(text.replace("%3D", "=").replace("%2F", "/").replace("%21", "!"))
        };
        let name =
            text("fieldSelector").and_then(|text| Some(text.strip_prefix("metadata.name=")?.to_owned()));
        let label = text("labelSelector").map(|text| match (text.strip_prefix('!'), text.split_once('=')) {
            (Some(key), _) => Label::IsNot(key.to_owned()),
            (None, Some((key, value))) => Label::Is(key.to_owned(), value.to_owned()),
            (None, None) => panic!("this API server does not know the selector {text}"),
        });
        Self { name, label }
    }

    /// Whether `object` is what is asked for.
    pub(crate) fn selects(&self, object: &serde_json::Value) -> bool {
        let metadata = &object["metadata"];
        self.name.as_ref().is_none_or(|name| metadata["name"] == **name)
            && match &self.label {
                None => true,
                Some(Label::Is(key, value)) => metadata["labels"][key] == **value,
                Some(Label::IsNot(key)) => metadata["labels"][key].is_null(),
            }
    }
}
