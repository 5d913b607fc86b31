//! Whether a caller may have what it asks for: the API server's word, kept for a moment.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::front_proxy::Caller;
use crate::apply::in_time;
use crate::traffic::{GROUP, VERSION};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(10);
/// How many are kept.
const MOST: usize = 1024;

/// What is asked for, as authorisers know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Attributes {
    pub(super) verb: &'static str,
    pub(super) resource: String,
    pub(super) subresource: Option<&'static str>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

/// Shown as `list resource "pods/edges" in API group ... in the namespace "shop"`.
impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, resource, subresource, namespace, .. } = self;
        write!(f, "{verb} resource \"{resource}")?;
        if let Some(subresource) = subresource {
            write!(f, "/{subresource}")?;
        }
        write!(f, "\" in API group \"{GROUP}\"")?;
        match namespace {
            Some(namespace) => write!(f, " in the namespace \"{namespace}\""),
            None => f.write_str(" at the cluster scope"),
        }
    }
}

type Kept = HashMap<(Caller, Attributes), (Instant, bool)>;

/// Asks the API server.
pub(super) struct Reviews {
    client: Client,
    kept: Mutex<Kept>,
}

impl Reviews {
    pub(super) fn new(client: Client) -> Self {
        Self { client, kept: Mutex::default() }
    }

    pub(super) async fn may(&self, caller: &Caller, attributes: &Attributes) -> Result<bool, kube::Error> {
        let asked = (caller.clone(), attributes.clone());
        if let Some((_, allowed)) = self.lock().get(&asked).filter(|(when, _)| when.elapsed() < KEPT) {
            return Ok(*allowed);
        }
        let review = Api::<SubjectAccessReview>::all(self.client.clone());
        let reviewed = in_time(review.create(&PostParams::default(), &question(caller, attributes))).await?;
        let allowed = reviewed.status.is_some_and(|status| status.allowed);
        let mut kept = self.lock();
        if kept.len() >= MOST {
            kept.retain(|_, (when, _)| when.elapsed() < KEPT);
        }
        if kept.len() < MOST {
            kept.insert(asked, (Instant::now(), allowed));
        }
        Ok(allowed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn question(caller: &Caller, attributes: &Attributes) -> SubjectAccessReview {
    let resource = ResourceAttributes {
        group: Some(GROUP.to_owned()),
        version: Some(VERSION.to_owned()),
        verb: Some(attributes.verb.to_owned()),
        resource: Some(attributes.resource.clone()),
        subresource: attributes.subresource.map(str::to_owned),
        namespace: attributes.namespace.clone(),
        name: attributes.name.clone(),
        ..ResourceAttributes::default()
    };
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(caller.user.clone()),
            uid: caller.uid.clone(),
            groups: Some(caller.groups.clone()),
            extra: Some(caller.extra.clone()),
            resource_attributes: Some(resource),
            non_resource_attributes: None,
        },
        ..SubjectAccessReview::default()
    }
}
