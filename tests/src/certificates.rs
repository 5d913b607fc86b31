//! Certificates of a user's servers: an authority of the test's own, and TLS Secrets signed by it.

use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::Result;
use crate::cluster::Cluster;

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Makes the TLS Secret `secret` with a certificate for `names`.
    pub async fn issue(&self, cluster: &Cluster, namespace: &str, secret: &str, names: &[String]) -> Result {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        let object = json!({
            "metadata": { "name": secret },
            "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": certificate.pem(), "tls.key": key.serialize_pem() },
        });
        let api = cluster.api::<Secret>(namespace);
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    }
}
