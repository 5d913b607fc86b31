//! The CA of the config stream: made once by the leader, kept in a Secret; every replica issues its own certificate from it.
//!
//! The CA's own certificate does not run out: nothing replaces it, and a date on it would only be the day on which every mesh
//! stops to take changes. Delete the Secret's data to have a new one made; the proxies hold on to what they have meanwhile.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use weft_config::contract::OPERATOR_SERVICE;

use crate::apply::{WriteError, Writer};

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
    /// The Secret or the `ConfigMap` could not be read.
    #[error("{0} {1}/{CA_NAME}: {2}")]
    Read(&'static str, String, kube::Error),
    /// What is in the Secret is no CA, or a key could not be made.
    #[error("the CA in Secret {CA_NAME}: {0}; delete its data to have a new one made")]
    Certificate(#[from] rcgen::Error),
}

/// Certificate and key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
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

/// The CA, if the Secret has one.
pub async fn read(client: &Client, namespace: &str) -> Result<Option<Pair>, CaError> {
    Ok(secret(client, namespace).await?.as_ref().and_then(pair))
}

async fn secret(client: &Client, namespace: &str) -> Result<Option<Secret>, CaError> {
    let secret = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(CA_NAME).await;
    secret.map_err(|error| CaError::Read("Secret", namespace.to_owned(), error))
}

fn pair(secret: &Secret) -> Option<Pair> {
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    Some(Pair { certificate: text(CERTIFICATE)?, key: text(KEY)? })
}

/// What is put into `secret`: the pair, provided that nobody has touched it since it was read.
fn filled(secret: Option<&Secret>, ca: &Pair) -> serde_json::Value {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let version = secret.and_then(|secret| secret.metadata.resource_version.as_deref());
    json!({
        "metadata": {"resourceVersion": version},
        "data": {CERTIFICATE: bytes(&ca.certificate), KEY: bytes(&ca.key)},
    })
}

/// The leader's part: makes the CA when there is none, and publishes its certificate for the proxies.
pub async fn ensure(client: &Client, writer: &Writer, namespace: &str) -> Result<Pair, CaError> {
    let secret = secret(client, namespace).await?;
    let ca = if let Some(ca) = secret.as_ref().and_then(pair) {
        ca
    } else {
        let ca = make()?;
        writer.merge::<Secret>(namespace, CA_NAME, &filled(secret.as_ref(), &ca)).await?;
        tracing::info!("made the CA of the config stream");
        ca
    };
    let public = Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(CA_NAME).await;
    let public = public.map_err(|error| CaError::Read("ConfigMap", namespace.to_owned(), error))?;
    let published = public.and_then(|map| map.data?.remove(CERTIFICATE));
    if published.as_deref() != Some(ca.certificate.as_str()) {
        let data = json!({"data": {CERTIFICATE: ca.certificate}});
        writer.merge::<ConfigMap>(namespace, CA_NAME, &data).await?;
    }
    Ok(ca)
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
    fn a_secret_is_filled_once() {
        let mut secret: Secret =
            serde_json::from_value(json!({"metadata": {"resourceVersion": "7"}})).unwrap();
        assert!(pair(&secret).is_none(), "as the chart makes it");
        let ca = make().unwrap();
        let patch = filled(Some(&secret), &ca);
        assert_eq!(patch["metadata"]["resourceVersion"], "7", "of two that try one fails");
        secret.data = serde_json::from_value(patch["data"].clone()).unwrap();
        assert_eq!(pair(&secret), Some(ca));
        secret.data.as_mut().unwrap().remove(KEY);
        assert!(pair(&secret).is_none(), "half a pair is none");
    }
}
