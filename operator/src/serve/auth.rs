//! Who may open a config stream: a proxy of ours, proven by its projected `ServiceAccount` token.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use tonic::{Request, Status};
use weft_config::contract::{PROXY_SERVICE_ACCOUNT, TOKEN_AUDIENCE};

use crate::apply::in_time;

/// In a bound token's extra fields: the node of the pod it was made for (KEP-4193).
const NODE_EXTRA: &str = "authentication.kubernetes.io/node-name";

/// A caller that may have the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The node its token is bound to, where the API server says so.
    pub node: Option<String>,
}

/// Asks the API server who the caller is.
pub async fn authenticate<T>(
    client: &Client,
    namespace: &str,
    request: &Request<T>,
) -> Result<Proxy, Status> {
    let token = bearer(request)?;
    let review = TokenReview {
        spec: TokenReviewSpec { audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]), token: token.to_owned() },
        ..TokenReview::default()
    };
    let reviewed = in_time(Api::all(client.clone()).create(&PostParams::default(), &review)).await;
    // Not "permission denied": the proxy should come again when the API server is back. Why it is away is not for callers that
    // nobody knows yet.
    let reviewed = reviewed.map_err(|error| {
        tracing::warn!(%error, "TokenReview");
        Status::unavailable("the token cannot be checked now")
    })?;
    judge(&reviewed.status.unwrap_or_default(), namespace)
}

fn bearer<T>(request: &Request<T>) -> Result<&str, Status> {
    let header =
        request.metadata().get("authorization").ok_or_else(|| Status::unauthenticated("no token"))?;
    let header = header.to_str().map_err(|_| Status::unauthenticated("the token is not text"))?;
    let token =
        header.strip_prefix("Bearer ").ok_or_else(|| Status::unauthenticated("not a bearer token"))?;
    // The API server refuses to review nothing, which would look like an API server that is away.
    if token.is_empty() { Err(Status::unauthenticated("the token is empty")) } else { Ok(token) }
}

/// What the review's answer means. Pure.
fn judge(status: &TokenReviewStatus, namespace: &str) -> Result<Proxy, Status> {
    if status.authenticated != Some(true) {
        return Err(Status::unauthenticated("the token is not valid"));
    }
    // An API server that knows no audiences would answer without ours: that is a token for somebody else.
    if !status.audiences.iter().flatten().any(|audience| audience == TOKEN_AUDIENCE) {
        return Err(Status::unauthenticated("the token is for another audience"));
    }
    let user = status.user.as_ref();
    let name = user.and_then(|user| user.username.as_deref()).unwrap_or_default();
    if name != format!("system:serviceaccount:{namespace}:{PROXY_SERVICE_ACCOUNT}") {
        return Err(Status::permission_denied(format!("{name} is not the ServiceAccount of the proxies")));
    }
    let node = user.and_then(|user| user.extra.as_ref()?.get(NODE_EXTRA)?.first().cloned());
    Ok(Proxy { node })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::authentication::v1::UserInfo;
    use tonic::Code;

    use super::*;

    fn status(user: &str, audience: &str) -> TokenReviewStatus {
        let extra = BTreeMap::from([(NODE_EXTRA.to_owned(), vec!["node1".to_owned()])]);
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![audience.to_owned()]),
            user: Some(UserInfo { username: Some(user.into()), extra: Some(extra), ..UserInfo::default() }),
            error: None,
        }
    }

    const PROXY: &str = "system:serviceaccount:weft-system:weft-proxy";

    #[test]
    fn a_proxy_of_ours_is_let_in() {
        let proxy = judge(&status(PROXY, TOKEN_AUDIENCE), "weft-system").unwrap();
        assert_eq!(proxy.node.as_deref(), Some("node1"));
    }

    #[test]
    fn everybody_else_is_not() {
        let code = |status| judge(&status, "weft-system").unwrap_err().code();
        assert_eq!(code(TokenReviewStatus::default()), Code::Unauthenticated);
        assert_eq!(code(status(PROXY, "https://kubernetes.default.svc")), Code::Unauthenticated);
        assert_eq!(code(TokenReviewStatus { audiences: None, ..status(PROXY, "") }), Code::Unauthenticated);
        assert_eq!(
            code(status("system:serviceaccount:weft-system:default", TOKEN_AUDIENCE)),
            Code::PermissionDenied
        );
        assert_eq!(
            code(status("system:serviceaccount:evil:weft-proxy", TOKEN_AUDIENCE)),
            Code::PermissionDenied
        );
        assert_eq!(
            code(TokenReviewStatus { user: None, ..status(PROXY, TOKEN_AUDIENCE) }),
            Code::PermissionDenied
        );
    }

    #[test]
    fn only_bearer_tokens_are_looked_at() {
        let mut request = Request::new(());
        assert!(bearer(&request).is_err());
        request.metadata_mut().insert("authorization", "Basic eDp5".parse().unwrap());
        assert!(bearer(&request).is_err());
        request.metadata_mut().insert("authorization", "Bearer ".parse().unwrap());
        assert_eq!(bearer(&request).unwrap_err().code(), Code::Unauthenticated);
        request.metadata_mut().insert("authorization", "Bearer abc".parse().unwrap());
        assert_eq!(bearer(&request).unwrap(), "abc");
    }
}
