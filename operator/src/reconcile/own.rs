//! Follows the single objects that the leader keeps: a change that somebody makes to one of them is noticed at once, and to see
//! that all is as it should be takes no question to the API server.

use std::sync::Arc;

use futures::future::join;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use weft_crds::MeshConfig;
use weft_crds::meshconfig::DnsProvider;

use super::{apiservice, daemonset};
use crate::context::Context;
use crate::serve::ca::CA_NAME;

/// Follows them until dropped.
pub async fn follow(ctx: &Context) {
    let (client, namespace, seen) = (&ctx.client, &*ctx.namespace, ctx.writer.seen());
    let proxies = join(
        seen.follow::<DaemonSet>(Api::namespaced(client.clone(), namespace), namespace, daemonset::NAME),
        seen.follow::<Service>(Api::namespaced(client.clone(), namespace), namespace, daemonset::NAME),
    );
    let certificate =
        seen.follow::<ConfigMap>(Api::namespaced(client.clone(), namespace), namespace, CA_NAME);
    let registration = async {
        if ctx.smi_metrics {
            seen.follow::<APIService>(Api::all(client.clone()), "", apiservice::NAME).await;
        }
    };
    tokio::join!(proxies, certificate, registration, follow_corefile(ctx));
}

/// `CoreDNS`'s `ConfigMap`, whichever the MeshConfig names.
async fn follow_corefile(ctx: &Context) {
    let mut mesh = ctx.index.mesh();
    loop {
        let named = corefile(mesh.borrow_and_update().as_ref());
        let follow = async {
            match &named {
                Some((namespace, name)) => {
                    let api = Api::<ConfigMap>::namespaced(ctx.client.clone(), namespace);
                    ctx.writer.seen().follow(api, namespace, name).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = follow => {}
            _ = mesh.wait_for(|mesh| corefile(mesh.as_ref()) != named) => {}
        }
    }
}

/// Namespace and name of the `ConfigMap` with the Corefile.
fn corefile(mesh: Option<&Arc<MeshConfig>>) -> Option<(String, String)> {
    let dns = &mesh?.spec.dns;
    (dns.provider == DnsProvider::CoreDNS).then(|| (dns.namespace.clone(), dns.config_map.clone()))
}
