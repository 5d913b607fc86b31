//! How a MeshConfig goes: what is undone by hand, and in which order.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use tokio::time::Instant;
use weft_crds::MeshConfig;

use super::{ReconcileError, Reconciler, UNDER_WAY};
use crate::index::claims::FINALIZER;
use crate::reconcile::shadow;

/// How long mesh names may go on to resolve after the block is out, before the shadows go all the same.
const DNS_LEAVES: Duration = Duration::from_secs(45);
/// How long a Corefile that cannot be edited holds up a removal.
const GIVE_UP: Duration = Duration::from_secs(60);
/// The same where the namespace is being deleted, after which nothing is left to try with.
const LAST_TRIES: Duration = Duration::from_secs(4);

/// A removal that is under way.
pub(super) struct Removal {
    /// Of which MeshConfig, by its uid.
    mesh: String,
    /// Since when, by this leader's own clock. The time in the object is another machine's, and the operator may have been away
    /// for long.
    since: Instant,
    /// It was given up to take the lines out of DNS, and told.
    is_past_dns: bool,
}

impl Reconciler {
    /// DNS first, so that nobody is sent to what is about to go; then the shadows. The rest goes by ownerReference.
    pub(super) async fn remove(&self, mesh: &MeshConfig) -> Result<Action, ReconcileError> {
        if let Some(again) = self.dns_out(mesh).await {
            return Ok(again);
        }
        self.shadows.remove_all_of(mesh.uid());
        let index = &self.ctx.index;
        let gone = self.shadows.are_gone(mesh.uid().as_deref());
        if !gone || index.count_shadows() > 0 || !index.strays().is_empty() {
            return Ok(Action::requeue(Duration::from_millis(200)));
        }
        self.let_go(mesh).await
    }

    /// One that was served and is no longer: nothing is made for it any more, but its lines may still be in DNS, and its shadows are
    /// there, of which somebody may have taken the ownerReference.
    pub(super) async fn leave(&self, mesh: &MeshConfig) -> Result<Action, ReconcileError> {
        if let Some(again) = self.dns_out(mesh).await {
            return Ok(again);
        }
        shadow::delete_all(&self.ctx).await?;
        self.let_go(mesh).await
    }

    /// Takes the lines out of DNS. `Some`: they are still there, and something may come of waiting.
    async fn dns_out(&self, mesh: &MeshConfig) -> Option<Action> {
        let since = self.removing_for(mesh);
        if self.removal().as_ref().is_some_and(|removal| removal.is_past_dns) {
            return None;
        }
        match self.dns.remove(&self.ctx, &self.with_dns(mesh)).await {
            Ok(true) => {}
            Ok(false) if since < DNS_LEAVES => return Some(Action::requeue(UNDER_WAY)),
            Ok(false) => {
                tracing::warn!("DNS pods still answer for the mesh domains; going on with the removal");
            }
            Err(error) if since < GIVE_UP => {
                tracing::warn!(%error, "the DNS block cannot be taken out yet");
                return Some(Action::requeue(Duration::from_secs(1)));
            }
            Err(error) => {
                let note = format!(
                    "{error}. Remove Weft's lines from the cluster's DNS by hand: what is between weft.mesh marks in a Corefile (of two meshes' blocks the one whose second line names this namespace), a key that begins with weft.mesh in coredns-custom, the mesh domains in kube-dns's stubDomains"
                );
                self.event(mesh, EventType::Warning, "DNSNotRemoved", note).await;
                if let Some(removal) = &mut *self.removal() {
                    removal.is_past_dns = true;
                }
            }
        }
        None
    }

    /// Our namespace is being deleted: in seconds our rights go, and all that lies in it. What lies elsewhere is put right
    /// without waiting for anybody.
    pub(super) async fn end(&self, mesh: &MeshConfig) -> Result<Action, ReconcileError> {
        let since = self.removing_for(mesh);
        match self.dns.remove(&self.ctx, &self.with_dns(mesh)).await {
            Ok(_) => {}
            Err(error) if since < LAST_TRIES => {
                tracing::warn!(%error, "the DNS block cannot be taken out yet");
                return Ok(Action::requeue(Duration::from_millis(200)));
            }
            Err(error) => tracing::error!(%error, "the DNS block could not be taken out"),
        }
        self.let_go(mesh).await
    }

    fn removing_for(&self, mesh: &MeshConfig) -> Duration {
        let uid = mesh.uid().unwrap_or_default();
        let mut removal = self.removal();
        match &*removal {
            Some(known) if known.mesh == uid => known.since.elapsed(),
            _ => {
                *removal = Some(Removal { mesh: uid, since: Instant::now(), is_past_dns: false });
                Duration::ZERO
            }
        }
    }

    fn removal(&self) -> MutexGuard<'_, Option<Removal>> {
        self.removal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn let_go(&self, mesh: &MeshConfig) -> Result<Action, ReconcileError> {
        let others: Vec<_> =
            mesh.finalizers().iter().map(String::as_str).filter(|name| *name != FINALIZER).collect();
        if others.len() != mesh.finalizers().len() {
            self.set_finalizers(mesh, &others).await?;
            tracing::info!(name = mesh.name_any(), "MeshConfig removed");
        }
        Ok(Action::await_change())
    }
}
