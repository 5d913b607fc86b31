//! The CA of the config stream: made once by the leader, kept in a Secret; every replica issues its own certificate from it.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use weft_config::contract::OPERATOR_SERVICE;

use crate::apply::{WriteError, Writer};

/// Name of the Secret and of the ConfigMap with the certificate alone. The chart makes both, empty.
pub const CA_NAME: &str = "weft-ca";
const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

/// Why there is no CA, or no certificate from it.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The Secret or the ConfigMap could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The Secret could not be read.
    #[error("Secret {0}/{CA_NAME}: {1}")]
    Read(String, kube::Error),
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

/// A new CA. Lives for as long as rcgen's default, decades: what it signs lives as long as a process.
fn make_ca() -> Result<Pair, rcgen::Error> {
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

/// A serving certificate for the operator's Service in `namespace`.
pub fn issue(ca: &Pair, namespace: &str) -> Result<Pair, CaError> {
    let issuer = Issuer::new(ca_params(), KeyPair::from_pem(&ca.key)?);
    let key = KeyPair::generate()?;
    let name = format!("{OPERATOR_SERVICE}.{namespace}.svc");
    let mut params = CertificateParams::new(vec![name.clone(), format!("{OPERATOR_SERVICE}.{namespace}")])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

/// The CA, if the Secret has one.
pub async fn read(client: &Client, namespace: &str) -> Result<Option<Pair>, CaError> {
    let secret = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(CA_NAME).await;
    let secret = secret.map_err(|error| CaError::Read(namespace.to_owned(), error))?;
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let text = |key: &str| data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
    Ok(text(CERTIFICATE).zip(text(KEY)).map(|(certificate, key)| Pair { certificate, key }))
}

/// The leader's part: makes the CA when there is none, and publishes its certificate for the proxies.
pub async fn ensure(client: &Client, writer: &Writer, namespace: &str) -> Result<Pair, CaError> {
    let ca = match read(client, namespace).await? {
        Some(ca) => ca,
        None => {
            let ca = make_ca()?;
            let data = json!({"data": {
                CERTIFICATE: ByteString(ca.certificate.clone().into_bytes()),
                KEY: ByteString(ca.key.clone().into_bytes()),
            }});
            writer.merge::<Secret>(namespace, CA_NAME, &data).await?;
            tracing::info!("made the CA of the config stream");
            ca
        }
    };
    let public = Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(CA_NAME).await;
    let public = public.map_err(|error| CaError::Read(namespace.to_owned(), error))?;
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
        let ca = make_ca().unwrap();
        let pair = issue(&ca, "weft-system").unwrap();
        assert!(pair.certificate.contains("BEGIN CERTIFICATE") && pair.key.contains("PRIVATE KEY"));
        assert_ne!(pair, issue(&ca, "weft-system").unwrap(), "each replica has a key of its own");
        let broken = Pair { key: "nonsense".into(), ..ca };
        let error = issue(&broken, "weft-system").unwrap_err().to_string();
        assert!(error.contains("weft-ca") && error.contains("delete"), "{error}");
    }
}
