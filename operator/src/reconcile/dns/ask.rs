//! Whether the cluster's DNS servers have taken our lines up: they are asked.

use std::net::{IpAddr, SocketAddr};

use futures::future::join_all;
use weft_config::ServiceId;
use weft_crds::MeshConfig;

use super::DnsState;
use crate::context::Context;
use crate::dns::check::Answer;
use crate::dns::detect::{Found, Server};

/// Asks every DNS server whether it answers for the mesh domains.
pub(super) async fn taken_up(ctx: &Context, mesh: &MeshConfig, found: &Found) -> DnsState {
    let service = ServiceId::new(found.service.0.as_str(), found.service.1.as_str());
    let places = found.places(&ctx.namespace);
    let answers = ask(ctx, mesh, &service).await;
    if let Server::OpenShift { resolver } = found.server {
        if !answers.is_empty() && answers.iter().all(|(_, _, answer)| *answer == Answer::Configured) {
            return DnsState::Configured(
                "OpenShift",
                "every DNS pod answers for the mesh domains".to_owned(),
            );
        }
        let knows_none = answers.iter().any(|(_, _, answer)| *answer == Answer::NotConfigured);
        if !knows_none && let Some((pod, domain, _)) = answers.first() {
            return DnsState::Propagating(format!(
                "a DNS pod does not answer: {pod}, or another, for {domain}"
            ));
        }
        return DnsState::ByHand(super::openshift(&mesh.spec.domains, resolver));
    }
    if answers.is_empty() {
        return DnsState::Propagating(format!(
            "Service {service} has no ready DNS pod to ask; the lines stand {places}"
        ));
    }
    let behind = answers.into_iter().find(|(_, _, answer)| *answer != Answer::Configured);
    let behind = match behind {
        Some((pod, domain, answer)) => Some((format!("DNS pod {pod}"), domain, answer)),
        None => ask_cache(ctx, mesh, found).await,
    };
    let name = if matches!(found.server, Server::KubeDns { .. }) { "KubeDNS" } else { "CoreDNS" };
    match behind {
        None => DnsState::Configured(
            name,
            format!("every DNS pod answers for the mesh domains; the lines stand {places}"),
        ),
        Some((who, domain, Answer::Silent(why))) => DnsState::Propagating(format!(
            "{who} does not answer for {domain}: {why}; the lines stand {places}"
        )),
        Some((who, domain, _)) => DnsState::Propagating(format!(
            "{who} does not know {domain} yet, which takes a minute or so; the lines stand {places}"
        )),
    }
}

/// The NodeLocal DNSCache of our own node: the others cannot be asked from here. `None`: it answers, or there is none.
async fn ask_cache(ctx: &Context, mesh: &MeshConfig, found: &Found) -> Option<(String, String, Answer)> {
    found.cache.as_ref()?;
    let server = ctx.outside.own_dns()?;
    for domain in &mesh.spec.domains {
        let answer = ctx.outside.ask_dns(server, domain).await;
        if answer != Answer::Configured {
            return Some((format!("the DNS server of this node, {},", server.ip()), domain.clone(), answer));
        }
    }
    None
}

/// Every ready DNS pod, for every mesh domain.
pub(super) async fn ask(
    ctx: &Context,
    mesh: &MeshConfig,
    service: &ServiceId,
) -> Vec<(IpAddr, String, Answer)> {
    let mut questions = Vec::new();
    for slice in ctx.index.slices(service) {
        let port = slice.ports.iter().find(|port| port.udp).map_or(53, |port| port.port);
        for pod in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
            let of_pod = mesh.spec.domains.iter();
            questions.extend(of_pod.map(|domain| (SocketAddr::new(pod.address, port), domain.clone())));
        }
    }
    let ask = |(pod, domain): (SocketAddr, String)| async move {
        let answer = ctx.outside.ask_dns(pod, &domain).await;
        (pod.ip(), domain, answer)
    };
    join_all(questions.into_iter().map(ask)).await
}
