//! How the API server proves itself to an aggregated API, and how it says who asks. Pure.

use std::collections::BTreeMap;

use hyper::HeaderMap;
use hyper::header::HeaderName;
use k8s_openapi::api::core::v1::ConfigMap;
use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

const CA: &str = "requestheader-client-ca-file";
const USER: &str = "requestheader-username-headers";

/// What `extension-apiserver-authentication` says of the front proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FrontProxy {
    /// Who issues its certificate, PEM.
    pub(super) ca: String,
    /// Common names it may have; any when empty.
    names: Vec<String>,
    user: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    /// What the names of headers with more about the user begin with.
    extra: Vec<String>,
}

/// What is missing there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error(
        "there is no {0}: the API server has no front proxy certificate (--requestheader-client-ca-file) and cannot aggregate"
    )]
    Missing(&'static str),
    #[error("{0} is no JSON list of names")]
    Unreadable(&'static str),
}

/// Who asks, as the API server says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Caller {
    pub(super) user: String,
    pub(super) uid: Option<String>,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

impl FrontProxy {
    pub(super) fn read(map: &ConfigMap) -> Result<Self, Unusable> {
        let text =
            |key| map.data.as_ref().and_then(|data| data.get(key)).filter(|text| !text.trim().is_empty());
        let list = |key| match text(key) {
            Some(text) => serde_json::from_str::<Vec<String>>(text).map_err(|_| Unusable::Unreadable(key)),
            None => Ok(Vec::new()),
        };
        let headers = |key| {
            let names =
                list(key)?.into_iter().map(|name| name.parse().map_err(|_| Unusable::Unreadable(key)));
            names.collect::<Result<Vec<HeaderName>, _>>()
        };
        let user = headers(USER)?;
        if user.is_empty() {
            return Err(Unusable::Missing(USER));
        }
        Ok(Self {
            ca: text(CA).ok_or(Unusable::Missing(CA))?.clone(),
            names: list("requestheader-allowed-names")?,
            user,
            uid: headers("requestheader-uid-headers")?,
            groups: headers("requestheader-group-headers")?,
            extra: list("requestheader-extra-headers-prefix")?
                .iter()
                .map(|prefix| prefix.to_lowercase())
                .collect(),
        })
    }

    /// Whether a certificate that its CA issued is the front proxy's.
    pub(super) fn trusts(&self, certificate: &CertificateDer<'_>) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let Ok((_, certificate)) = parse_x509_certificate(certificate) else { return false };
        let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        name.is_some_and(|name| self.names.iter().any(|allowed| allowed == name))
    }

    /// Who asks. `None`: the headers name nobody. Only to be believed of one that [`Self::trusts`] holds for.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let values = |names: &[HeaderName]| -> Vec<String> {
            let values = names.iter().flat_map(|name| headers.get_all(name));
            values
                .filter_map(|value| value.to_str().ok())
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let key = self.extra.iter().find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()));
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
                extra.entry(key).or_default().push(value.to_owned());
            }
        }
        let user = values(&self.user).into_iter().next()?;
        Some(Caller { user, uid: values(&self.uid).into_iter().next(), groups: values(&self.groups), extra })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    pub(super) fn map(data: &serde_json::Value) -> ConfigMap {
        serde_json::from_value(json!({"data": data})).unwrap()
    }

    #[test]
    fn what_the_api_server_publishes_is_read() {
        let data = json!({
            "client-ca-file": "not this one",
            "requestheader-client-ca-file": "PEM",
            "requestheader-allowed-names": r#"["front-proxy-client"]"#,
            "requestheader-username-headers": r#"["X-Remote-User"]"#,
            "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
            "requestheader-group-headers": r#"["X-Remote-Group"]"#,
            "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
        });
        let front = FrontProxy::read(&map(&data)).unwrap();
        assert_eq!(front.ca, "PEM");
        let mut headers = HeaderMap::new();
        assert_eq!(front.caller(&headers), None);
        headers.append("x-remote-user", "jane".parse().unwrap());
        headers.append("x-remote-group", "devs".parse().unwrap());
        headers.append("x-remote-group", "system:authenticated".parse().unwrap());
        headers.append("x-remote-extra-example.com%2fscopes", "a".parse().unwrap());
        headers.append("x-other", "b".parse().unwrap());
        let caller = Caller {
            user: "jane".into(),
            uid: None,
            groups: vec!["devs".into(), "system:authenticated".into()],
            extra: [("example.com/scopes".to_owned(), vec!["a".to_owned()])].into(),
        };
        assert_eq!(front.caller(&headers), Some(caller));
    }

    #[test]
    fn without_a_front_proxy_people_are_told_what_is_missing() {
        let error = FrontProxy::read(&map(&json!({}))).unwrap_err().to_string();
        assert!(error.contains("requestheader-username-headers"), "{error}");
        let data = json!({"requestheader-username-headers": r#"["X-Remote-User"]"#});
        let error = FrontProxy::read(&map(&data)).unwrap_err().to_string();
        assert!(error.contains("requestheader-client-ca-file"), "{error}");
        let data = json!({"requestheader-username-headers": "X-Remote-User"});
        assert!(FrontProxy::read(&map(&data)).is_err());
    }

    #[test]
    fn only_the_names_that_are_allowed_are_trusted() {
        let certificate = |name: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let key = rcgen::KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().der().clone()
        };
        let with = |names: &str| {
            let data = json!({"requestheader-client-ca-file": "PEM", "requestheader-allowed-names": names,
                "requestheader-username-headers": r#"["X-Remote-User"]"#});
            FrontProxy::read(&map(&data)).unwrap()
        };
        let front = with(r#"["front-proxy-client"]"#);
        assert!(front.trusts(&certificate("front-proxy-client")));
        assert!(!front.trusts(&certificate("somebody")));
        assert!(with("[]").trusts(&certificate("somebody")), "no list: anybody whom the CA knows");
    }
}
