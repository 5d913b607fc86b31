//! What a user may do, as the API server itself tells.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use kube::api::{Api, PostParams};

use crate::Result;
use crate::cluster::Cluster;

/// The rules that hold for `user` in `namespace`, a line each.
pub async fn of(cluster: &Cluster, user: &str, namespace: &str) -> Result<BTreeSet<String>> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) },
        ..SelfSubjectRulesReview::default()
    };
    let api: Api<SelfSubjectRulesReview> = Api::all(cluster.client_as(user).await?);
    let status = api.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
    let mut lines = BTreeSet::new();
    for rule in status.resource_rules {
        let mut verbs = rule.verbs;
        verbs.sort();
        let names = rule.resource_names.unwrap_or_default();
        let named = if names.is_empty() { String::new() } else { format!(" named {}", names.join(", ")) };
        for group in rule.api_groups.unwrap_or_default() {
            for resource in rule.resources.iter().flatten() {
                let group = if group.is_empty() { "core" } else { &group };
                lines.insert(format!("{group} {resource}{named}: {}", verbs.join(", ")));
            }
        }
    }
    for rule in status.non_resource_rules {
        for url in rule.non_resource_urls.unwrap_or_default() {
            lines.insert(format!("url {url}: {}", rule.verbs.join(", ")));
        }
    }
    Ok(lines)
}

/// Name of a `ServiceAccount` as a user.
pub fn service_account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}
