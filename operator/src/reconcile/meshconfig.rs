//! The controller of `MeshConfigs`: proxies, DNS, finalizer, status. One reconciliation does all of it, in this order; each part
//! is a file of its own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use weft_crds::meshconfig::DnsProvider;
use weft_crds::{MeshConfig, MeshConfigStatus};

use super::findings::Findings;
use super::rollout::memory::Memory;
use super::rollout::{self, Decision};
use super::shadow::Shadows;
use super::tell::shortened;
use super::{daemonset, dns, proxies, status};
use crate::annotations::Settings;
use crate::apply::{FIELD_MANAGER, WriteError};
use crate::context::Context;
use crate::index::changes::About;

/// Keeps a MeshConfig until what lies outside of its namespace's garbage collection is gone.
const FINALIZER: &str = "weft.mesh/cleanup";
/// How long mesh names may go on to resolve after the block is out, before the shadows go all the same.
const DNS_LEAVES: Duration = Duration::from_secs(45);
/// How long a Corefile that cannot be edited holds up a removal.
const GIVE_UP: Duration = Duration::from_secs(60);
/// How often everything is looked at although nothing seemed to happen; nothing is written then.
const AT_REST: Duration = Duration::from_secs(20);
/// The same while something is on its way.
const UNDER_WAY: Duration = Duration::from_millis(500);
/// Longest wait before what failed is tried again; the waits are doubled from a second on.
const LONGEST_WAIT: Duration = Duration::from_secs(32);
/// Changes of the index within this time are looked at once.
const GATHER: Duration = Duration::from_millis(500);
/// A proxy that is behind is asked a second time after this: a change may have been on its way.
const SECOND_LOOK: Duration = Duration::from_millis(300);

/// Why a reconciliation failed. The text names the object.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{0} cannot be put together: {1}")]
    Object(&'static str, serde_json::Error),
}

#[derive(Clone)]
struct Reconciler {
    ctx: Context,
    shadows: Shadows,
    findings: Findings,
    recorder: Recorder,
    /// Reconciliations that failed, one after the other.
    failures: Arc<AtomicU32>,
    /// Which MeshConfig, by its uid, this leader is removing, and since when by its own clock. The time in the object is
    /// another machine's, and the operator may have been away for long.
    removal: Arc<Mutex<Option<(String, Instant)>>>,
    /// What this leader has seen of the proxies.
    rollout: Arc<Mutex<Memory>>,
}

/// Reconciles until dropped.
pub async fn run(ctx: Context, shadows: Shadows, findings: Findings) {
    let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: Some(ctx.pod.to_string()) };
    let recorder = Recorder::new(ctx.client.clone(), reporter);
    let client = ctx.client.clone();
    let in_ours = watcher::Config::default().labels("app.kubernetes.io/managed-by=weft-operator");
    let index = ctx.index.clone();
    let to_active = move |_: ConfigMap| index.mesh().borrow().as_deref().map(ObjectRef::from_obj);
    let noticed = (ctx.index.changes(About::Services), shadows.watch_counts(), findings.watch_counts());
    let changes = stream::unfold(noticed, |(changes, mut counts, mut found)| async move {
        tokio::select! {
            _ = changes.next() => {}
            changed = counts.changed() => changed.ok()?,
            changed = found.changed() => changed.ok()?,
        }
        tokio::time::sleep(GATHER).await;
        Some(((), (changes, counts, found)))
    });
    let namespace = ctx.namespace.to_string();
    let mut controller = Controller::new(Api::<MeshConfig>::all(client.clone()), watcher::Config::default())
        .owns(Api::<DaemonSet>::namespaced(client.clone(), &namespace), in_ours)
        .reconcile_all_on(changes);
    if let Some((namespace, config_map)) = dns_config_map(&ctx) {
        controller =
            controller.watches(Api::<ConfigMap>::namespaced(client, &namespace), config_map, to_active);
    }
    controller
        .run(
            reconcile,
            on_error,
            Arc::new(Reconciler {
                ctx,
                shadows,
                findings,
                recorder,
                failures: Arc::default(),
                removal: Arc::default(),
                rollout: Arc::default(),
            }),
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

/// CoreDNS's `ConfigMap`, as the active MeshConfig names it now; by default the usual one. Another name takes effect as a watch
/// with the next leader; until then the look at rest serves.
fn dns_config_map(ctx: &Context) -> Option<(String, watcher::Config)> {
    let mesh = ctx.index.mesh();
    let dns = mesh.borrow().as_ref().map(|mesh| mesh.spec.dns.clone()).unwrap_or_default();
    let named = watcher::Config::default().fields(&format!("metadata.name={}", dns.config_map));
    (dns.provider == DnsProvider::CoreDNS).then_some((dns.namespace, named))
}

// The signature is the controller's.
#[allow(clippy::needless_pass_by_value)]
fn on_error(mesh: Arc<MeshConfig>, error: &ReconcileError, reconciler: Arc<Reconciler>) -> Action {
    tracing::warn!(name = mesh.name_any(), %error, "MeshConfig");
    Action::requeue(reconciler.failed())
}

async fn reconcile(mesh: Arc<MeshConfig>, reconciler: Arc<Reconciler>) -> Result<Action, ReconcileError> {
    let this = &*reconciler;
    let namespace = mesh.namespace().unwrap_or_default();
    let active = this.ctx.index.mesh().borrow().clone();
    let ours = namespace == *this.ctx.namespace;
    let is_active = active.as_ref().is_some_and(|active| active.uid() == mesh.uid());
    if ours && active.is_none() {
        // The controller's watch is ahead of the index's.
        return Ok(Action::requeue(UNDER_WAY));
    }
    if mesh.metadata.deletion_timestamp.is_some() {
        return if is_active { this.remove(&mesh).await } else { this.let_go(&mesh).await };
    }
    if is_active {
        // As large as all that it awaits.
        return Box::pin(this.keep(&mesh)).await;
    }
    let (reason, message) = match active {
        Some(active) if ours => (
            "Conflict",
            format!(
                "MeshConfig {} is older and is served; one namespace has one mesh: delete one of them",
                active.name_any()
            ),
        ),
        _ => (
            "WrongNamespace",
            format!(
                "this operator serves the MeshConfig of namespace {0}: create it there",
                this.ctx.namespace
            ),
        ),
    };
    let now = Time(Timestamp::now());
    let before = mesh.status.clone().unwrap_or_default();
    let status = status::not_served(mesh.metadata.generation, reason, &message, &before, &now);
    this.write_status(&mesh, &status).await?;
    // The one that is served may go without a change of this one.
    Ok(Action::requeue(AT_REST))
}

/// The ownerReference by which objects go with their MeshConfig.
pub fn owner(mesh: &MeshConfig) -> Value {
    json!(mesh.controller_owner_ref(&()))
}

impl Reconciler {
    async fn keep(&self, mesh: &MeshConfig) -> Result<Action, ReconcileError> {
        self.shadows.remove_all(false);
        if !mesh.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            let finalizers: Vec<_> =
                mesh.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
            self.set_finalizers(mesh, &finalizers).await?;
        }
        let kept = self.keep_proxies(mesh).await.map_err(|error| error.to_string());
        let (daemonset, rollout) = match kept {
            Ok((daemonset, rollout)) => (Ok(daemonset), Some(rollout)),
            Err(error) => (Err(error), None),
        };
        let dns = dns::keep(&self.ctx, mesh).await.map_err(|error| error.to_string());
        let digest = self.ctx.publisher.digest();
        let told = self.ask_proxies(&digest).await;
        self.memory().note_told(&told);
        let counts = self.shadows.counts();
        let observed = status::Observed {
            generation: mesh.metadata.generation,
            daemonset: &daemonset,
            rollout: rollout.as_ref(),
            namespace: &self.ctx.namespace,
            dns: &dns,
            told: &told,
            digest: &self.ctx.publisher.digest(),
            counts: &counts,
            problems: &Settings::of_mesh(&mesh.spec).1,
            services: self.ctx.index.count_meshed(),
            shadows: self.ctx.index.shadows().len(),
            smi: self.findings.counts(),
        };
        let before = mesh.status.clone().unwrap_or_default();
        let status = status::of(&observed, &before, &Time(Timestamp::now()));
        let rolling = rollout.is_some_and(|rollout| rollout.is_under_way());
        let settled = !rolling && status.conditions.iter().all(status::is_well);
        self.write_status(mesh, &status).await?;
        if let Some(error) = daemonset.err().or_else(|| dns.err()) {
            tracing::warn!(name = mesh.name_any(), error, "MeshConfig");
            return Ok(Action::requeue(self.failed()));
        }
        self.failures.store(0, Ordering::Relaxed);
        Ok(Action::requeue(if settled { AT_REST } else { UNDER_WAY }))
    }

    async fn keep_proxies(&self, mesh: &MeshConfig) -> Result<(DaemonSet, Decision), ReconcileError> {
        let (namespace, owner) = (&*self.ctx.namespace, owner(mesh));
        let service: Service = serde_json::from_value(daemonset::service(namespace, &owner))
            .map_err(|error| ReconcileError::Object("the proxies' Service", error))?;
        self.ctx.writer.apply(&service).await?;
        let live = self.ctx.writer.read::<DaemonSet>(namespace, daemonset::NAME).await?;
        let template = daemonset::template(mesh, namespace, &self.ctx.proxy_image);
        let rollout = self.decide(mesh, live.as_ref(), &daemonset::wanted(&template, live.as_ref()));
        let daemonset = daemonset::daemonset(mesh, namespace, &template, &rollout, &owner);
        let daemonset: DaemonSet = serde_json::from_value(daemonset)
            .map_err(|error| ReconcileError::Object("the proxies' DaemonSet", error))?;
        Ok((self.ctx.writer.apply_over(live, &daemonset).await?, rollout))
    }

    /// How the proxies come to be of the template that is wanted.
    fn decide(&self, mesh: &MeshConfig, live: Option<&DaemonSet>, wanted: &str) -> Decision {
        let (now, live) = (Instant::now(), live.map(daemonset::live));
        let holds = live.as_ref().is_some_and(|live| live.holds);
        let mut memory = self.memory();
        let pods = memory.look(now, wanted, holds, &self.ctx.index.proxy_pods());
        let pace = (&mesh.spec.proxy.rollout).into();
        rollout::decide(live.as_ref(), wanted, &pods, pace, memory.held_for(now))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.rollout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_proxies(&self, digest: &str) -> Vec<proxies::Told> {
        let told = proxies::ask_all(self.ctx.index.proxies()).await;
        if told.iter().all(|(_, status)| status.as_ref().is_some_and(|status| status.digest == digest)) {
            return told;
        }
        tokio::time::sleep(SECOND_LOOK).await;
        proxies::ask_all(self.ctx.index.proxies()).await
    }

    /// DNS first, so that nobody is sent to what is about to go; then the shadows. The rest goes by ownerReference.
    async fn remove(&self, mesh: &MeshConfig) -> Result<Action, ReconcileError> {
        let since = self.removing_for(mesh);
        match dns::remove(&self.ctx, mesh).await {
            Ok(true) => {}
            Ok(false) if since < DNS_LEAVES => return Ok(Action::requeue(UNDER_WAY)),
            Ok(false) => {
                tracing::warn!("DNS pods still answer for the mesh domains; going on with the removal");
            }
            Err(error) if since < GIVE_UP => {
                tracing::warn!(%error, "the DNS block cannot be taken out yet");
                return Ok(Action::requeue(Duration::from_secs(1)));
            }
            Err(error) => {
                let note = format!(
                    "{error}. Remove the block between the weft.mesh marks from the Corefile by hand"
                );
                self.event(mesh, EventType::Warning, "DNSNotRemoved", note).await;
            }
        }
        self.shadows.remove_all(true);
        if !self.ctx.index.shadows().is_empty() {
            return Ok(Action::requeue(Duration::from_millis(200)));
        }
        self.let_go(mesh).await
    }

    fn removing_for(&self, mesh: &MeshConfig) -> Duration {
        let uid = mesh.uid().unwrap_or_default();
        let mut removal = self.removal.lock().unwrap_or_else(PoisonError::into_inner);
        match &*removal {
            Some((known, since)) if *known == uid => since.elapsed(),
            _ => {
                *removal = Some((uid, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Notes a failure; returns how long to wait.
    fn failed(&self) -> Duration {
        self.ctx.metrics.reconcile_failures.inc();
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        Duration::from_secs(1).saturating_mul(2_u32.saturating_pow(before)).min(LONGEST_WAIT)
    }

    async fn let_go(&self, mesh: &MeshConfig) -> Result<Action, ReconcileError> {
        let others: Vec<_> =
            mesh.finalizers().iter().map(String::as_str).filter(|name| *name != FINALIZER).collect();
        if others.len() != mesh.finalizers().len() {
            self.set_finalizers(mesh, &others).await?;
            tracing::info!(name = mesh.name_any(), "MeshConfig removed");
        }
        Ok(Action::await_change())
    }

    async fn set_finalizers(&self, mesh: &MeshConfig, finalizers: &[&str]) -> Result<(), ReconcileError> {
        let version = mesh.resource_version();
        let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
        let namespace = mesh.namespace().unwrap_or_default();
        self.ctx.writer.merge::<MeshConfig>(&namespace, &mesh.name_any(), &patch).await?;
        Ok(())
    }

    /// Writes what differs, and tells of each condition that changed in an Event.
    async fn write_status(&self, mesh: &MeshConfig, status: &MeshConfigStatus) -> Result<(), ReconcileError> {
        let before = mesh.status.clone().unwrap_or_default();
        if before == *status {
            return Ok(());
        }
        let namespace = mesh.namespace().unwrap_or_default();
        self.ctx.writer.status::<MeshConfig>(&namespace, &mesh.name_any(), &json!(status)).await?;
        for condition in status.conditions.iter().filter(|now| changed(now, &before.conditions)) {
            let kind = if status::is_well(condition) { EventType::Normal } else { EventType::Warning };
            self.event(mesh, kind, &condition.reason, format!("{}: {}", condition.type_, condition.message))
                .await;
        }
        Ok(())
    }

    /// Only in our namespace: elsewhere we may write nothing but a status.
    async fn event(&self, mesh: &MeshConfig, type_: EventType, reason: &str, note: String) {
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
        if let Err(error) = self.recorder.publish(&event, &mesh.object_ref(&())).await {
            tracing::debug!(%error, "an Event could not be written");
        }
    }
}

fn changed(now: &Condition, before: &[Condition]) -> bool {
    !before.iter().any(|b| b.type_ == now.type_ && b.status == now.status && b.reason == now.reason)
}
