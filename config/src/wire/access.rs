//! Conversions of [`crate::access`].

use super::{DecodeError, account_id, decode_address, encode_address, port_number, routes, v1};
use crate::access::{Access, Grant, Identity, Restriction};

/// What is answered unless another status is asked for.
const FORBIDDEN: u16 = 403;

pub(super) fn encode_restriction(restriction: Restriction) -> v1::Restriction {
    v1::Restriction { denied_status: restriction.denied_status.into() }
}

impl Restriction {
    /// Of a port that cannot be read as a whole.
    pub fn of_wire(restriction: v1::Restriction) -> Self {
        decode_restriction(restriction)
    }
}

/// What is no status of a refusal is read as the usual one: the port stays restricted.
pub(super) fn decode_restriction(restriction: v1::Restriction) -> Restriction {
    let asked = u16::try_from(restriction.denied_status).ok().filter(|status| (400..500).contains(status));
    Restriction { denied_status: asked.unwrap_or(FORBIDDEN) }
}

pub(super) fn encode_identity(identity: &Identity) -> v1::Identity {
    v1::Identity { addresses: identity.addresses.iter().map(|address| encode_address(*address)).collect() }
}

pub(super) fn decode_identity(resource: &str, identity: &v1::Identity) -> Result<Identity, DecodeError> {
    let addresses = identity.addresses.iter().map(|bytes| decode_address(resource, bytes));
    Ok(Identity { addresses: addresses.collect::<Result<_, _>>()? })
}

pub(super) fn encode(access: &Access) -> v1::Access {
    let ports = |ports: &Option<Vec<u16>>| {
        let ports = ports.as_ref()?;
        Some(v1::Ports { ports: ports.iter().map(|port| (*port).into()).collect() })
    };
    let grant = |grant: &Grant| v1::Grant {
        name: grant.name.clone(),
        sources: grant.sources.iter().map(ToString::to_string).collect(),
        http: grant.http.as_ref().map(|any_of| v1::HttpMatches { any_of: routes::encode_matches(any_of) }),
        tcp: ports(&grant.tcp),
        udp: ports(&grant.udp),
    };
    v1::Access { grants: access.grants.iter().map(grant).collect() }
}

/// All of it or nothing: half a grant might allow more than was meant.
pub(super) fn decode(resource: &str, access: &v1::Access) -> Result<Access, DecodeError> {
    let ports = |ports: &Option<v1::Ports>| {
        let ports = ports.as_ref().map(|ports| ports.ports.iter().map(|port| port_number(resource, *port)));
        ports.map(Iterator::collect::<Result<Vec<_>, _>>).transpose()
    };
    let grant = |grant: &v1::Grant| {
        let http = grant.http.as_ref().map(|http| routes::decode_matches(resource, &http.any_of));
        Ok(Grant {
            name: grant.name.clone(),
            sources: grant.sources.iter().map(|name| account_id(name)).collect::<Result<_, _>>()?,
            http: http.transpose()?,
            tcp: ports(&grant.tcp)?,
            udp: ports(&grant.udp)?,
        })
    };
    Ok(Access { grants: access.grants.iter().map(grant).collect::<Result<_, DecodeError>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::AccountId;
    use crate::model::Resource;
    use crate::routes::{HttpMatch, Pattern};
    use crate::set::Entry;

    fn account(name: &str) -> AccountId {
        AccountId { namespace: "shop".into(), name: name.into() }
    }

    fn arrives(resource: Resource) {
        let entry = Entry::new(resource);
        let back = Entry::try_from(&v1::Resource::from(&entry)).unwrap();
        assert_eq!(back, entry);
        let key = entry.resource.key();
        assert_eq!(crate::ResourceKey::try_from(&v1::ResourceKey::from(&key)).as_ref(), Ok(&key));
    }

    #[test]
    fn access_and_identities_arrive_as_they_were_sent() {
        let addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        arrives(Resource::Identity(account("web"), Identity { addresses }));
        let http = HttpMatch {
            methods: vec!["GET".into()],
            path: Some(Pattern::at_start("/a").unwrap()),
            headers: vec![("x".into(), Pattern::anywhere("y").unwrap())],
        };
        let some = Grant {
            name: "shop/target".into(),
            sources: vec![account("web")],
            http: Some(vec![http]),
            tcp: Some(vec![80]),
            udp: Some(vec![]),
        };
        let any = Grant { http: None, tcp: None, udp: None, ..some.clone() };
        let nothing = Grant { http: Some(vec![]), ..some.clone() };
        arrives(Resource::Access(account("api"), Access { grants: vec![some, any, nothing] }));
    }

    #[test]
    fn a_grant_that_cannot_be_understood_is_no_grant() {
        let wrong = [
            v1::Grant { sources: vec!["nobody".into()], ..v1::Grant::default() },
            v1::Grant { tcp: Some(v1::Ports { ports: vec![0] }), ..v1::Grant::default() },
            v1::Grant {
                http: Some(v1::HttpMatches {
                    any_of: vec![v1::HttpMatch { path: Some("(".into()), ..v1::HttpMatch::default() }],
                }),
                ..v1::Grant::default()
            },
        ];
        for grant in wrong {
            assert!(decode("shop/api", &v1::Access { grants: vec![grant] }).is_err());
        }
    }

    #[test]
    fn a_restriction_stays_one_whatever_its_status() {
        for (sent, status) in [(0, 403), (404, 404), (200, 403), (99_999, 403)] {
            let restriction = decode_restriction(v1::Restriction { denied_status: sent });
            assert_eq!(restriction.denied_status, status);
        }
    }
}
