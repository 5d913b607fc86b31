//! The operator's config stream as anybody in the cluster could call it: through a port-forward, with any token or none.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::ResourceExt;
use kube::api::PostParams;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use weft_config::contract::{CONFIG_PORT, OPERATOR_SERVICE};
use weft_config::wire::v1::config_discovery_client::ConfigDiscoveryClient;
use weft_config::wire::v1::{Hello, ProxyMessage, Update, proxy_message};

use crate::Result;
use crate::cluster::Cluster;
use crate::mesh::{self, NAMESPACE};

/// Says Hello as the proxy of `node` with `token`; the first Update, or why not.
pub async fn hello(
    cluster: &Cluster,
    token: Option<&str>,
    node: &str,
) -> Result<std::result::Result<Update, Status>> {
    let operator = mesh::operators(cluster).await?.into_iter().find(crate::workloads::is_ready);
    let operator = operator.ok_or("no operator is ready")?.name_any();
    hello_to(cluster, &operator, token, node).await
}

/// The same to the operator's pod `operator`.
pub async fn hello_to(
    cluster: &Cluster,
    operator: &str,
    token: Option<&str>,
    node: &str,
) -> Result<std::result::Result<Update, Status>> {
    let mut client = ConfigDiscoveryClient::new(connect(cluster, operator).await?);
    let hello = Hello { node: node.to_owned(), pod: "a-test".to_owned(), ..Hello::default() };
    let message = ProxyMessage { message: Some(proxy_message::Message::Hello(hello)) };
    // The stream stays open on our side, as a proxy's does.
    let messages = tokio_stream::StreamExt::chain(tokio_stream::iter([message]), futures::stream::pending());
    let mut request = Request::new(messages);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    }
    let answered = tokio::time::timeout(Duration::from_secs(10), async {
        let mut updates = client.stream(request).await?.into_inner();
        updates.message().await?.ok_or_else(|| Status::cancelled("the stream ended without an Update"))
    });
    Ok(answered.await.map_err(|_| "the config stream did not answer within 10 s")?)
}

async fn connect(cluster: &Cluster, operator: &str) -> Result<Channel> {
    let published = cluster.api::<ConfigMap>(NAMESPACE).get("weft-ca").await?;
    let ca = published.data.and_then(|mut data| data.remove("ca.crt")).ok_or("weft-ca has no ca.crt")?;
    let operator = operator.to_owned();
    let name = format!("{OPERATOR_SERVICE}.{NAMESPACE}.svc");
    let endpoint = Endpoint::from_shared(format!("https://{name}:{CONFIG_PORT}"))?
        .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(name))?;
    let pods = cluster.api::<Pod>(NAMESPACE);
    let connector = tower::service_fn(move |_| {
        let (pods, operator) = (pods.clone(), operator.clone());
        async move {
            let mut forward =
                pods.portforward(&operator, &[CONFIG_PORT]).await.map_err(std::io::Error::other)?;
            let stream =
                forward.take_stream(CONFIG_PORT).ok_or_else(|| std::io::Error::other("no stream"))?;
            // The forward lives as long as its stream.
            tokio::spawn(forward.join());
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// A token of a `ServiceAccount` for `audience` (empty: the API server's own), bound to `pod` if given.
pub async fn token(
    cluster: &Cluster,
    namespace: &str,
    account: &str,
    audience: &str,
    pod: Option<&Pod>,
) -> Result<String> {
    let bound = pod.map(|pod| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    });
    let audiences = if audience.is_empty() { Vec::new() } else { vec![audience.to_owned()] };
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audiences),
            bound_object_ref: bound,
            expiration_seconds: Some(600),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let accounts = cluster.api::<ServiceAccount>(namespace);
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(made.status.and_then(|status| status.token).ok_or("the TokenRequest has no token")?)
}
