//! A MeshConfig that is not served: nothing is made for it, what it has in DNS is taken out, and its status says why.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use weft_crds::meshconfig::DnsFound;
use weft_crds::{MeshConfig, MeshConfigStatus};

use super::wait::AT_REST;
use super::{ReconcileError, Reconciler};
use crate::index::claims::Rival;
use crate::reconcile::status;

/// Why one is not served where no operator is.
const WRONG_NAMESPACE: &str = "WrongNamespace";

impl Reconciler {
    /// `served` is `mesh` with the domains that it has; `has_lines`: in DNS may be what makes them resolve.
    pub(super) async fn refuse(
        &self,
        mesh: &MeshConfig,
        served: &MeshConfig,
        has_lines: bool,
        active: Option<&MeshConfig>,
        rival: Option<&Rival>,
    ) -> Result<Action, ReconcileError> {
        let ours = mesh.namespace().as_deref() == Some(&*self.ctx.namespace);
        let Some((reason, message)) = self.why_not(mesh, ours, active, rival) else {
            return Ok(Action::requeue(AT_REST));
        };
        let before = self.status_of(mesh);
        let dns = if has_lines {
            self.dns.withdraw(&self.ctx, &self.with_dns(served)).await
        } else if ours {
            Ok(DnsFound::default())
        } else {
            // Whoever served it, or is to clean up behind it, needs to know.
            Ok(before.dns.clone())
        };
        let (dns, message, again) = match dns {
            Ok(dns) => (dns, message, AT_REST),
            Err(error) => {
                tracing::warn!(name = mesh.name_any(), %error, "MeshConfig");
                let message = format!("{message}. Its lines are still in DNS: {error}");
                (self.dns_of(mesh), message, self.failed())
            }
        };
        let is_said = |status: &MeshConfigStatus| status::says(status, mesh.metadata.generation, reason);
        if reason == WRONG_NAMESPACE
            && (is_said(&before) || self.last_said(mesh).as_ref().is_some_and(is_said))
        {
            // Maybe another operator's word, which names its own namespace, or that of its own, whose Service somebody has deleted:
            // the two would write over each other for ever.
            return Ok(Action::requeue(AT_REST));
        }
        let now = Time(self.ctx.outside.time());
        let status = status::not_served(mesh.metadata.generation, reason, &message, dns, &before, &now);
        self.write_status(mesh, status).await?;
        Ok(Action::requeue(again))
    }

    /// The reason and the message for its status. None: it has an operator of its own, which says how it is.
    fn why_not(
        &self,
        mesh: &MeshConfig,
        ours: bool,
        active: Option<&MeshConfig>,
        rival: Option<&Rival>,
    ) -> Option<(&'static str, String)> {
        match (active, rival) {
            (Some(active), _) if ours => Some(("Conflict", older(&active.name_any(), "is served"))),
            (_, Some(rival)) if ours && rival.asked_by() == mesh.name_any() => {
                Some((rival.reason(), rival.to_string()))
            }
            (_, Some(rival)) if ours => Some(("Conflict", older(rival.asked_by(), "comes first"))),
            _ if self.ctx.index.is_operated(&mesh.namespace().unwrap_or_default()) => None,
            _ => Some((
                WRONG_NAMESPACE,
                format!(
                    "this operator serves the MeshConfig of namespace {0}: create it there",
                    self.ctx.namespace
                ),
            )),
        }
    }
}

fn older(name: &str, why: &str) -> String {
    format!("MeshConfig {name} is older and {why}; one namespace has one mesh: delete one of them")
}
