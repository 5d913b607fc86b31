//! The CA of the config stream: made once by the leader, kept in a Secret; every replica issues its own certificate from it.
//!
//! The CA's own certificate does not run out: nothing replaces it, and a date on it would only be the day on which every mesh
//! stops to take changes. Empty the Secret's data to have a new one made; the proxies hold on to what they have meanwhile. A
//! Secret that is deleted or damaged comes back as it was, see docs/decisions/0021-what-comes-back.md.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use weft_config::contract::OPERATOR_SERVICE;
use x509_parser::parse_x509_certificate;

use crate::apply::{WriteError, Writer};
use crate::context::Context;
use crate::index::ca::Ca;

/// Name of the Secret and of the `ConfigMap` with the certificate alone. The chart makes both, empty.
pub const CA_NAME: &str = "weft-ca";
/// For how long a serving certificate is good.
pub const LIFE_DAYS: i64 = 90;
const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

/// Why there is no CA, or no certificate from it.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The Secret or the `ConfigMap` could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The `ConfigMap` could not be read.
    #[error("ConfigMap {0}/{CA_NAME}: {1}")]
    Read(String, kube::Error),
    /// What is in the Secret is no CA, or a key could not be made.
    #[error("the CA in Secret {CA_NAME}: {0}; delete its data to have a new one made")]
    Certificate(#[from] rcgen::Error),
    /// An object could not be put together.
    #[error("{0} {CA_NAME} cannot be put together: {1}")]
    Object(&'static str, serde_json::Error),
}

/// Certificate and key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Pair {
    /// Whether certificates can be issued with it: the key can be read and is that of the certificate.
    fn is_whole(&self) -> bool {
        let (Ok(key), Ok(certificate)) =
            (KeyPair::from_pem(&self.key), CertificateDer::from_pem_slice(self.certificate.as_bytes()))
        else {
            return false;
        };
        parse_x509_certificate(&certificate)
            .is_ok_and(|(_, parsed)| *parsed.public_key().subject_public_key.data == *key.public_key_raw())
    }
}

/// What is in the Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Stored {
    /// It was not read yet.
    #[default]
    Unread,
    /// There is no Secret.
    Absent,
    /// There is nothing in it, as the chart makes it, or as somebody left it who wants a new CA.
    Empty {
        /// The object's resourceVersion.
        version: Option<String>,
    },
    /// There is something in it by which no certificates can be issued.
    Damaged {
        /// The object's resourceVersion.
        version: Option<String>,
    },
    /// A CA.
    Whole(Pair),
}

impl Stored {
    /// Reads the Secret.
    pub fn of(secret: Option<&Secret>) -> Self {
        let Some(secret) = secret else { return Self::Absent };
        let version = secret.metadata.resource_version.clone();
        let nothing = [CERTIFICATE, KEY].iter().all(|key| {
            secret.data.as_ref().and_then(|data| data.get(*key)).is_none_or(|value| value.0.is_empty())
        });
        match pair(secret).filter(Pair::is_whole) {
            Some(pair) => Self::Whole(pair),
            None if nothing => Self::Empty { version },
            None => Self::Damaged { version },
        }
    }
}

/// A new CA.
pub fn make() -> Result<Pair, CaError> {
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: ca_params().self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// The same for each replica and version: what is issued must name the CA as it named itself.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "weft config CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A serving certificate for the operator's Service in `namespace`, good from yesterday (clocks differ) for [`LIFE_DAYS`].
pub fn issue(ca: &Pair, namespace: &str) -> Result<Pair, CaError> {
    let issuer = Issuer::new(ca_params(), KeyPair::from_pem(&ca.key)?);
    let key = KeyPair::generate()?;
    let name = format!("{OPERATOR_SERVICE}.{namespace}.svc");
    let mut params = CertificateParams::new(vec![name.clone(), format!("{OPERATOR_SERVICE}.{namespace}")])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let day = |(year, month, day)| rcgen::date_time_ymd(year, month, day);
    (params.not_before, params.not_after) = (day(in_days(-1)), day(in_days(LIFE_DAYS)));
    Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

/// Year, month and day (UTC) that many days from today.
fn in_days(days: i64) -> (i32, u8, u8) {
    let then = Timestamp::now() + SignedDuration::from_hours(24 * days);
    let date = then.to_zoned(TimeZone::UTC).date();
    (date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
}

fn pair(secret: &Secret) -> Option<Pair> {
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    Some(Pair { certificate: text(CERTIFICATE)?, key: text(KEY)? })
}

/// The pair as a Secret holds it.
pub fn data(ca: &Pair) -> BTreeMap<String, ByteString> {
    let entry = |key: &str, text: &str| (key.to_owned(), ByteString(text.as_bytes().to_vec()));
    BTreeMap::from([entry(CERTIFICATE, &ca.certificate), entry(KEY, &ca.key)])
}

/// The leader's part: makes the CA when there is none, has it come back when somebody deleted or damaged it, and publishes its
/// certificate for the proxies. `None`: it is not known yet what there is.
pub async fn keep(ctx: &Context, known: &Ca) -> Result<Option<Pair>, CaError> {
    let (writer, namespace) = (&ctx.writer, &*ctx.namespace);
    let again = || known.last.clone().map_or_else(make, Ok);
    let ca = match &known.now {
        Stored::Unread => return Ok(None),
        Stored::Whole(ca) => ca.clone(),
        Stored::Absent => {
            let ca = again()?;
            let secret = object("Secret", namespace, &json!({"type": "Opaque", "data": data(&ca)}))?;
            writer.apply_new::<Secret>(&secret).await?;
            ca
        }
        Stored::Damaged { version } => {
            let ca = again()?;
            writer.merge::<Secret>(namespace, CA_NAME, &filled(version.as_deref(), &ca)).await?;
            ca
        }
        Stored::Empty { version } => {
            let ca = make()?;
            writer.merge::<Secret>(namespace, CA_NAME, &filled(version.as_deref(), &ca)).await?;
            ca
        }
    };
    if !matches!(known.now, Stored::Whole(_)) {
        tracing::info!(as_it_was = known.last.as_ref() == Some(&ca), "made the CA of the config stream");
        // Before the watch tells: what is made now must not be made a second time.
        ctx.index.note_ca(Stored::Whole(ca.clone()));
    }
    publish(writer, namespace, &ca).await?;
    Ok(Some(ca))
}

/// What is put into the Secret, provided that nobody has touched it since it was read.
fn filled(version: Option<&str>, ca: &Pair) -> Value {
    json!({"metadata": {"resourceVersion": version}, "data": data(ca)})
}

/// An object of the chart's that somebody deleted. It goes with the release all the same: Helm deletes by name.
fn object<K: serde::de::DeserializeOwned>(
    kind: &'static str,
    namespace: &str,
    fields: &Value,
) -> Result<K, CaError> {
    let mut object = fields.clone();
    object["apiVersion"] = json!("v1");
    object["kind"] = json!(kind);
    object["metadata"] = json!({"name": CA_NAME, "namespace": namespace, "labels": {
        "app.kubernetes.io/name": "weft",
        "app.kubernetes.io/component": "operator",
        "app.kubernetes.io/part-of": "weft",
    }});
    serde_json::from_value(object).map_err(|error| CaError::Object(kind, error))
}

async fn publish(writer: &Writer, namespace: &str, ca: &Pair) -> Result<(), CaError> {
    let public = writer.read::<ConfigMap>(namespace, CA_NAME).await;
    let public = public.map_err(|error| CaError::Read(namespace.to_owned(), error))?;
    let data = json!({"data": {CERTIFICATE: ca.certificate}});
    let Some(public) = public else {
        let map: ConfigMap = object("ConfigMap", namespace, &data)?;
        writer.apply_new(&map).await?;
        return Ok(());
    };
    let published = public.data.as_ref().and_then(|data| data.get(CERTIFICATE));
    if published.map(String::as_str) != Some(ca.certificate.as_str()) {
        writer.merge::<ConfigMap>(namespace, CA_NAME, &data).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_issues_from_what_the_leader_stored() {
        let ca = make().unwrap();
        let pair = issue(&ca, "weft-system").unwrap();
        assert!(pair.certificate.contains("BEGIN CERTIFICATE") && pair.key.contains("PRIVATE KEY"));
        assert_ne!(pair, issue(&ca, "weft-system").unwrap(), "each replica has a key of its own");
        let broken = Pair { key: "nonsense".into(), ..ca };
        let error = issue(&broken, "weft-system").unwrap_err().to_string();
        assert!(error.contains("weft-ca") && error.contains("delete"), "{error}");
    }

    #[test]
    fn a_secret_is_empty_damaged_or_whole() {
        let ca = make().unwrap();
        let of = |data: Value| {
            let secret = json!({"metadata": {"resourceVersion": "7"}, "data": data});
            Stored::of(Some(&serde_json::from_value(secret).unwrap()))
        };
        let version = || Some("7".to_owned());
        assert_eq!(Stored::of(None), Stored::Absent);
        assert_eq!(of(Value::Null), Stored::Empty { version: version() }, "as the chart makes it");
        assert_eq!(of(json!({CERTIFICATE: "", KEY: ""})), Stored::Empty { version: version() });
        let whole = json!(data(&ca));
        assert_eq!(of(whole.clone()), Stored::Whole(ca.clone()));
        let with = |key: &str, value: Value| {
            let mut changed = whole.clone();
            changed[key] = value;
            of(changed)
        };
        let other = json!(data(&make().unwrap()));
        for (key, value) in [
            (KEY, Value::Null),
            (CERTIFICATE, Value::Null),
            (KEY, json!("bm9uc2Vuc2U=")),
            (CERTIFICATE, json!("bm9uc2Vuc2U=")),
            (KEY, other[KEY].clone()),
            (CERTIFICATE, other[CERTIFICATE].clone()),
        ] {
            assert_eq!(with(key, value), Stored::Damaged { version: version() }, "half a pair is none");
        }
        assert_eq!(filled(Some("7"), &ca)["metadata"]["resourceVersion"], "7", "of two that try one fails");
    }
}
