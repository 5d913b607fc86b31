//! What people are told of a MeshConfig: its status, and an Event for each condition that changed.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use serde_json::json;
use weft_crds::meshconfig::DnsFound;
use weft_crds::{MeshConfig, MeshConfigStatus};

use super::{ReconcileError, Reconciler};
use crate::reconcile::status;
use crate::reconcile::tell::shortened;

/// A status that was written.
#[derive(Debug)]
pub(super) struct Said {
    /// Which version of the MeshConfig was seen then.
    upon: Option<String>,
    status: MeshConfigStatus,
}

impl Reconciler {
    /// The status that `mesh` has. While the watch does not tell of what was written it is what was written: or else the same
    /// would be written, and told in Events, with every look.
    pub(super) fn status_of(&self, mesh: &MeshConfig) -> MeshConfigStatus {
        let all = self.said();
        let said = all.get(&mesh.uid().unwrap_or_default());
        let ours = said.filter(|said| said.upon == mesh.resource_version()).map(|said| &said.status);
        ours.or(mesh.status.as_ref()).cloned().unwrap_or_default()
    }

    /// What this leader said last, whatever others have made of it.
    pub(super) fn last_said(&self, mesh: &MeshConfig) -> Option<MeshConfigStatus> {
        self.said().get(&mesh.uid().unwrap_or_default()).map(|said| said.status.clone())
    }

    /// What the status of our own MeshConfig says of DNS. The lines are this leader's alone, so what it said last counts, however
    /// far behind the watch is.
    pub(super) fn dns_of(&self, mesh: &MeshConfig) -> DnsFound {
        self.last_said(mesh).unwrap_or_else(|| self.status_of(mesh)).dns
    }

    /// `mesh` as if its status said that.
    pub(super) fn with_dns(&self, mesh: &MeshConfig) -> MeshConfig {
        let mut mesh = mesh.clone();
        mesh.status = Some(MeshConfigStatus { dns: self.dns_of(&mesh), ..self.status_of(&mesh) });
        mesh
    }

    /// Writes what differs, and tells of each condition that changed in an Event.
    pub(super) async fn write_status(
        &self,
        mesh: &MeshConfig,
        status: MeshConfigStatus,
    ) -> Result<(), ReconcileError> {
        let before = self.status_of(mesh);
        if before == status {
            return Ok(());
        }
        let uid = mesh.uid().unwrap_or_default();
        // Should this write get no answer, nobody knows what the status is.
        self.said().remove(&uid);
        let namespace = mesh.namespace().unwrap_or_default();
        self.ctx.writer.status::<MeshConfig>(&namespace, &mesh.name_any(), &json!(status)).await?;
        for condition in status.conditions.iter().filter(|now| changed(now, &before.conditions)) {
            let passes = || status::is_passing(condition, &status.conditions, &before.conditions);
            let kind =
                if status::is_well(condition) || passes() { EventType::Normal } else { EventType::Warning };
            self.event(mesh, kind, &condition.reason, format!("{}: {}", condition.type_, condition.message))
                .await;
        }
        self.said().insert(uid, Said { upon: mesh.resource_version(), status });
        Ok(())
    }

    fn said(&self) -> MutexGuard<'_, BTreeMap<String, Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only in our namespace: elsewhere we may write nothing but a status.
    pub(super) async fn event(&self, mesh: &MeshConfig, type_: EventType, reason: &str, note: String) {
        if mesh.namespace().as_deref() != Some(&*self.ctx.namespace) {
            return;
        }
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(shortened(&note)),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = self.ctx.writer.tell(&self.recorder, event, mesh.object_ref(&())).await {
            tracing::debug!(%error, "an Event could not be written");
        }
    }
}

fn changed(now: &Condition, before: &[Condition]) -> bool {
    !before.iter().any(|b| b.type_ == now.type_ && b.status == now.status && b.reason == now.reason)
}
