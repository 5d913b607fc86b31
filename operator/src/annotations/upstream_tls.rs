//! `upstream-*`: how the endpoints of a Service with `scheme: https` prove themselves.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::scheme::Name;
use super::{Annotation, Row, Value};

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// DER.
    pub(super) authorities: Vec<Vec<u8>>,
    pub(super) server_name: Option<String>,
    pub(super) unverified: bool,
}

const VERIFY: &str = "upstream-verify";
const CA: &str = "upstream-ca";
const NAME: &str = "upstream-server-name";

pub(super) const ROW: Row = Row {
    annotations: &[
        Annotation {
            key: VERIFY,
            allowed: "`full`, `none`",
            default: "`full`",
            meaning: "With `scheme: https`: whether the pods' certificate must be signed by `upstream-ca` and have the right name, \
                      or whether any will do.",
        },
        Annotation {
            key: CA,
            allowed: "certificates in PEM",
            default: "none: no connection is made while `upstream-verify` is `full`",
            meaning: "With `scheme: https`: the authorities that may have signed the pods' certificate.",
        },
        Annotation {
            key: NAME,
            allowed: "a DNS name",
            default: "`<service>.<namespace>.svc`",
            meaning: "With `scheme: https`: the name that must be in the pods' certificate, also sent as SNI.",
        },
    ],
    read: |values, settings, problems| {
        let tls = &mut settings.upstream_tls;
        if let Some(unverified) = values.read(VERIFY, problems, parse_verify) {
            tls.unverified = unverified;
        }
        if let Some(authorities) = values.read(CA, problems, parse_authorities) {
            tls.authorities = authorities;
        }
        if let Some(name) = values.read(NAME, problems, parse_name) {
            tls.server_name = Some(name);
        }
        if settings.scheme == Name::Https && tls.authorities.is_empty() && !tls.unverified {
            let value = values.get(CA).or(values.get("scheme"));
            let key = value.map_or("weft.mesh/scheme", |value| value.key);
            let value = Value { key, text: value.map_or("https", |value| value.text) };
            problems.push(value.problem(
                "the pods' certificate cannot be verified without an authority: put its certificate (PEM) into \
                 weft.mesh/upstream-ca, or set weft.mesh/upstream-verify to none; until then callers get 502",
            ));
        }
    },
};

fn parse_verify(text: &str) -> Result<bool, String> {
    match text {
        "full" => Ok(false),
        "none" => Ok(true),
        _ => Err("allowed are full and none; full is used".to_owned()),
    }
}

fn parse_authorities(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let refused = || "allowed are one or more certificates in PEM; none of it is used".to_owned();
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let certificates = certificates.map_err(|_| refused())?;
    if certificates.is_empty() {
        return Err(refused());
    }
    let mut store = rustls::RootCertStore::empty();
    certificates
        .into_iter()
        .map(|certificate| match store.add(certificate.clone()) {
            Ok(()) => Ok(certificate.to_vec()),
            Err(error) => Err(format!("a certificate in it cannot be used ({error}); none of it is used")),
        })
        .collect()
}

fn parse_name(text: &str) -> Result<String, String> {
    match ServerName::try_from(text) {
        Ok(ServerName::DnsName(_)) => Ok(text.to_owned()),
        _ => {
            Err("allowed is a DNS name such as cart.example.com; <service>.<namespace>.svc is used"
                .to_owned())
        }
    }
}
