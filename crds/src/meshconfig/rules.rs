//! What the API server refuses, and the sentence it refuses it with (CEL).
//!
//! Each message says what is wrong and what to write instead. Sizes and value ranges are ordinary schema keywords
//! beside their fields; here is what those cannot say.

use serde_json::{Value, json};

/// A DNS name of labels of at most 63 characters.
const DNS_NAME: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$";

/// Holds for a mesh domain `d` that lies within the cluster's domain or above it.
const OVERLAPS: &str = "d == self.clusterDomain || d.endsWith('.' + self.clusterDomain) || \
                        self.clusterDomain.endsWith('.' + d)";

/// Names without a dot that everybody uses: a mesh domain of such a name would hide a part of the Internet, of a local network
/// or of Kubernetes' own short names. Those of two letters are countries' and need no list.
const EVERYBODYS: [&str; 22] = [
    "app",
    "arpa",
    "biz",
    "cloud",
    "com",
    "dev",
    "edu",
    "gov",
    "info",
    "int",
    "internal",
    "invalid",
    "local",
    "localdomain",
    "localhost",
    "mil",
    "net",
    "onion",
    "org",
    "pod",
    "svc",
    "xyz",
];

/// Names of addresses, asked for by whoever wants to know who called.
const OF_ADDRESSES: &str = "(^|[.])(in-addr|ip6)[.]arpa$";

pub(super) fn domains_and_cluster_domain() -> Value {
    json!([{
        "rule": format!("self.domains.all(d, !({OVERLAPS}))"),
        "messageExpression": format!(
            "'the mesh domain ' + self.domains.filter(d, {OVERLAPS})[0] + ' overlaps the cluster domain ' + \
             self.clusterDomain + ', whose names must keep working: choose another in spec.domains, for example \
             weft.mesh'"
        ),
        "message": "a mesh domain overlaps the cluster's own DNS domain: choose another in spec.domains, for \
                    example weft.mesh",
    }])
}

pub(super) fn domains() -> Value {
    let everybodys = format!("['{}']", EVERYBODYS.join("', '"));
    json!([
        {
            "rule": format!("self.all(d, d.matches('{DNS_NAME}'))"),
            "message": "a mesh domain is letters in lower case, digits and '-', with single dots between and none \
                        at either end: write it like weft.mesh",
        },
        {
            "rule": "self.all(d, self.exists_one(other, d == other || d.endsWith('.' + other)))",
            "message": "one mesh domain lies within another, so that it could not be told which of them a name \
                        belongs to, or stands there twice: leave one of the two out of spec.domains",
        },
        {
            "rule": format!(
                "self.all(d, !(d in {everybodys}) && !d.matches('^[a-z][a-z]$') && !d.matches('{OF_ADDRESSES}'))"
            ),
            "message": "a mesh domain is one that everybody uses (such as com, a country's, local, svc or in-addr.arpa), \
                        and would hide what is there: choose one of your own in spec.domains, for example weft.mesh",
        },
    ])
}

pub(super) fn cluster_domain() -> Value {
    json!([{
        "rule": format!("self.matches('{DNS_NAME}')"),
        "message": "the cluster's domain is written in lower case and without a dot at either end: write it like \
                    cluster.local, as the kubelets' clusterDomain says",
    }])
}

/// Lines that were written in one place are taken out before they are written in another, where the operator may no longer
/// have any rights.
pub(super) fn dns() -> Value {
    json!([{
        "rule": "oldSelf.provider == 'None' || (self.__namespace__ == oldSelf.__namespace__ && self.configMap == oldSelf.configMap)",
        "message": "Weft's lines may stand where dns.namespace and dns.configMap say: set dns.provider to None first, which \
                    takes them out, and once the condition DNSConfigured has the reason Manual set the new place and the \
                    provider",
    }])
}

pub(super) fn namespaces() -> Value {
    json!([{
        "rule": "self.all(n, n.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))",
        "message": "namespaces are listed by their full names, patterns are not understood: write each like shop",
    }])
}

pub(super) fn duration() -> Value {
    json!([{
        "rule": "self.matches('^[1-9][0-9]{0,7}(ms|s|m|h)$')",
        "message": "a time is a whole number with its unit, ms, s, m or h: write it like 500ms or 5s",
    }])
}

pub(super) fn listen_ports() -> Value {
    json!([
        {
            "rule": "self.from <= self.to",
            "message": "listenPorts.from is above listenPorts.to: swap them (an end that is not given has its \
                        default, 10000 or 32767)",
        },
        {
            "rule": "self.from > self.to || self.to - self.from >= 15",
            "message": "a mesh needs at least 16 listen ports, one for each port of each Service: widen listenPorts",
        },
        {
            "rule": "self.to < 9901 || self.from > 9901",
            "message": "port 9901 is where a proxy answers its probes: choose listenPorts without it",
        },
    ])
}
