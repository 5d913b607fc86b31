//! What may be sent to those who run as an account: the grants of its targets, compiled. They only allow; what none of them
//! does is denied.

use weft_config::{Access, AccountId, HttpMatch};

use crate::http::matching::{self, Form, Reading};

/// What somebody wants to send.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The port number of the Service.
    pub port: u16,
    /// How.
    pub what: What<'a>,
}

/// How something is sent.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// As an HTTP request.
    Http {
        /// As it was sent.
        form: Form<'a>,
        /// How servers may read its path.
        reading: &'a Reading,
    },
    /// As a connection.
    Tcp,
    /// As datagrams.
    Udp,
}

impl<'a> What<'a> {
    /// The form of an HTTP request.
    pub fn form(self) -> Option<Form<'a>> {
        match self {
            Self::Http { form, .. } => Some(form),
            Self::Tcp | Self::Udp => None,
        }
    }
}

/// What is allowed.
#[derive(Debug, Default)]
pub struct Rules {
    grants: Vec<Grant>,
}

#[derive(Debug)]
struct Grant {
    /// Accounts by their numbers, ascending.
    sources: Vec<u32>,
    http: Option<Vec<HttpMatch>>,
    tcp: Option<Vec<u16>>,
    udp: Option<Vec<u16>>,
}

impl Rules {
    /// Compiles `access`; `number` tells what an account is called.
    pub(super) fn new(access: &Access, mut number: impl FnMut(&AccountId) -> u32) -> Self {
        let grant = |grant: &weft_config::Grant| {
            let mut sources: Vec<_> = grant.sources.iter().map(&mut number).collect();
            sources.sort_unstable();
            let (http, tcp, udp) = (grant.http.clone(), grant.tcp.clone(), grant.udp.clone());
            Grant { sources, http, tcp, udp }
        };
        Self { grants: access.grants.iter().map(grant).collect() }
    }

    /// Whether the account `source` may send what `ask` describes.
    ///
    /// A path must be allowed however it may be read.
    pub(super) fn allow(&self, source: u32, ask: &Ask<'_>) -> bool {
        let of_source = || self.grants.iter().filter(|grant| grant.sources.binary_search(&source).is_ok());
        match ask.what {
            What::Http { form, reading } => {
                let allowed = |form, clear| of_source().any(|grant| grant.allows_http(ask.port, form, clear));
                match reading {
                    Reading::Plain => allowed(form, true),
                    Reading::Resolved(path) => allowed(form, true) && allowed(Form { path, ..form }, true),
                    Reading::Unclear => allowed(form, false),
                }
            }
            // Of a connection or a datagram nobody can say whether it is one of some HTTP requests.
            What::Tcp => of_source().any(|grant| grant.http.is_none() && on(grant.tcp.as_ref(), ask.port)),
            What::Udp => of_source().any(|grant| on(grant.udp.as_ref(), ask.port)),
        }
    }
}

impl Grant {
    /// With `clear` unset the path is not known: no match that asks for one holds.
    fn allows_http(&self, port: u16, form: Form<'_>, clear: bool) -> bool {
        let holds = |one: &HttpMatch| (clear || one.path.is_none()) && matching::describes(one, form);
        on(self.tcp.as_ref(), port) && self.http.as_ref().is_none_or(|matches| matches.iter().any(holds))
    }
}

fn on(ports: Option<&Vec<u16>>, port: u16) -> bool {
    ports.is_none_or(|ports| ports.contains(&port))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use weft_config::Pattern;

    use super::*;

    const HER: u32 = 3;

    fn rules(http: Option<&[&str]>, tcp: Option<&[u16]>, udp: Option<&[u16]>) -> Rules {
        let path =
            |text: &&str| HttpMatch { path: Some(Pattern::at_start(text).unwrap()), ..HttpMatch::default() };
        let grant = weft_config::Grant {
            name: "shop/target".into(),
            sources: ["b", "a"].map(|name| AccountId { namespace: "shop".into(), name: name.into() }).into(),
            http: http.map(|paths| paths.iter().map(path).collect()),
            tcp: tcp.map(<[u16]>::to_vec),
            udp: udp.map(<[u16]>::to_vec),
        };
        Rules::new(&Access { grants: vec![grant] }, |id| if &*id.name == "a" { HER } else { 9 })
    }

    fn http(rules: &Rules, source: u32, port: u16, path: &str) -> bool {
        let headers = HeaderMap::new();
        let reading = matching::reading(path);
        let form = Form { method: "GET", path, headers: &headers };
        rules.allow(source, &Ask { port, what: What::Http { form, reading: &reading } })
    }

    fn other(rules: &Rules, port: u16, what: What<'_>) -> bool {
        rules.allow(HER, &Ask { port, what })
    }

    #[test]
    fn without_a_grant_nothing_is_allowed() {
        let none = Rules::default();
        assert!(!http(&none, HER, 80, "/") && !other(&none, 80, What::Tcp) && !other(&none, 80, What::Udp));
        assert!(http(&rules(None, None, None), HER, 80, "/"));
        assert!(http(&rules(None, None, None), 9, 80, "/"));
        assert!(!http(&rules(None, None, None), 4, 80, "/"), "it is for others");
    }

    #[test]
    fn ports_and_requests_must_both_be_allowed() {
        let both = rules(Some(&["/api"]), Some(&[80]), Some(&[]));
        assert!(http(&both, HER, 80, "/api/1"));
        assert!(!http(&both, HER, 81, "/api/1") && !http(&both, HER, 80, "/"));
        assert!(!other(&both, 80, What::Tcp), "what is in the connection is not known");
        assert!(!other(&both, 80, What::Udp));
        assert!(!http(&rules(Some(&[]), None, None), HER, 80, "/"), "of no requests, none");
    }

    #[test]
    fn connections_and_datagrams_have_ports_of_their_own() {
        let some = rules(None, Some(&[5432]), Some(&[53]));
        assert!(other(&some, 5432, What::Tcp) && !other(&some, 53, What::Tcp));
        assert!(other(&some, 53, What::Udp) && !other(&some, 5432, What::Udp));
    }

    #[test]
    fn a_path_must_be_allowed_however_it_is_read() {
        let public = rules(Some(&["/public"]), None, None);
        assert!(http(&public, HER, 80, "/public/a%20b"));
        for tricky in [
            "/public/../admin",
            "/public/%2e%2e/admin",
            "/public/..;/admin",
            "//public/../admin",
            "/public\\..\\x",
            "/public/../admin/..;/public",
            "/public/../admin/%252e%252e/public",
            "/public/../admin%5c..%5cpublic",
        ] {
            assert!(!http(&public, HER, 80, tricky), "{tricky}");
        }
        assert!(!http(&public, HER, 80, "/%70ublic"), "not as it was sent");
        assert!(http(&rules(None, None, None), HER, 80, "/public/../admin"), "any path is any path");
    }
}
