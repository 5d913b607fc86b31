//! Follows the single objects that the leader keeps: a change that somebody makes to one of them is noticed at once, and to see
//! that all is as it should be takes no question to the API server.

use std::sync::Arc;

use futures::future::{join, join_all};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use weft_crds::MeshConfig;
use weft_crds::meshconfig::{Dns, DnsProvider};

use super::{apiservice, daemonset};
use crate::context::Context;
use crate::dns::facts;
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
    tokio::join!(proxies, certificate, registration, follow_dns(ctx));
}

/// The `ConfigMaps` in which lines of ours may stand, whichever the MeshConfig says these are.
async fn follow_dns(ctx: &Context) {
    let mut mesh = ctx.index.mesh();
    loop {
        let named = dns(mesh.borrow_and_update().as_ref());
        let follow = async {
            let Some(dns) = &named else { return std::future::pending().await };
            let follow = |name| {
                let api = Api::<ConfigMap>::namespaced(ctx.client.clone(), &dns.namespace);
                ctx.writer.seen().follow(api, &dns.namespace, name)
            };
            join_all(facts::config_maps(dns).into_iter().map(follow)).await;
        };
        tokio::select! {
            biased;
            _ = mesh.wait_for(|mesh| dns(mesh.as_ref()) != named) => {}
            () = follow => {}
        }
    }
}

/// What the MeshConfig says of DNS, unless that is to be left alone.
fn dns(mesh: Option<&Arc<MeshConfig>>) -> Option<Dns> {
    let dns = &mesh?.spec.dns;
    (dns.provider != DnsProvider::None).then(|| dns.clone())
}
