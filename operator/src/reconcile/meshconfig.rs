//! The controller of `MeshConfigs`: proxies, DNS, finalizer, status. One reconciliation does all of it, in this order; each part
//! is a file of its own.

mod keep;
mod refuse;
mod removal;
mod say;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use weft_config::ServiceId;
use weft_crds::MeshConfig;
use weft_crds::meshconfig::DnsFound;

use super::findings::Findings;
use super::rollout::memory::Memory;
use super::shadow::Shadows;
use super::{daemonset, dns};
use crate::apply::{FIELD_MANAGER, WriteError};
use crate::context::Context;
use crate::dns::facts::services;
use crate::index::changes::About;
use crate::index::claims::is_kept;
use crate::watches::Soon;
use say::Said;
use wait::UNDER_WAY;

/// Longest wait before what failed is tried again; the waits are doubled from a second on.
const LONGEST_WAIT: Duration = Duration::from_secs(32);
/// Changes of the index within this time are looked at once.
const GATHER: Duration = Duration::from_millis(500);

/// Why a reconciliation failed. The text names the object.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{0} cannot be put together: {1}")]
    Object(&'static str, serde_json::Error),
}

impl ReconcileError {
    /// Whether the API server may well take it the next time.
    fn may_pass(&self) -> bool {
        match self {
            Self::Write(error) => error.is_overload() || error.is_conflict(),
            Self::Object(..) => false,
        }
    }
}

#[derive(Clone)]
struct Reconciler {
    ctx: Context,
    shadows: Shadows,
    findings: Findings,
    recorder: Recorder,
    dns: dns::Keeper,
    /// Reconciliations that failed, one after the other.
    failures: Arc<AtomicU32>,
    /// What this leader is removing.
    removal: Arc<Mutex<Option<removal::Removal>>>,
    /// What this leader has seen of the proxies.
    rollout: Arc<Mutex<Memory>>,
    /// What each MeshConfig's status was made to be last, by its uid.
    said: Arc<Mutex<BTreeMap<String, Said>>>,
}

/// Reconciles until dropped.
pub async fn run(ctx: Context, shadows: Shadows, findings: Findings) {
    let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: Some(ctx.pod.to_string()) };
    let recorder = Recorder::new(ctx.writer.client(), reporter);
    let services = ctx.index.changes(About::Services);
    // Of endpoints only those count that are asked: proxies and DNS pods.
    let asked = ctx.index.changes(About::EndpointsOf(asked(&ctx)));
    let noticed = ((services, asked), shadows.watch_counts(), findings.watch_counts());
    let changes = stream::unfold(noticed, |(changes, mut counts, mut found)| async move {
        tokio::select! {
            biased;
            _ = changes.0.next() => {}
            _ = changes.1.next() => {}
            changed = counts.changed() => changed.ok()?,
            changed = found.changed() => changed.ok()?,
        }
        tokio::time::sleep(GATHER).await;
        Some(((), (changes, counts, found)))
    });
    Controller::new(Api::<MeshConfig>::all(ctx.client.clone()), watcher::Config::default())
        // While it waits, nothing else triggers either.
        .trigger_backoff(Soon::default())
        .reconcile_all_on(changes)
        .reconcile_all_on(at_once(&ctx))
        .run(
            reconcile,
            on_error,
            Arc::new(Reconciler {
                ctx,
                shadows,
                findings,
                recorder,
                dns: dns::Keeper::default(),
                failures: Arc::default(),
                removal: Arc::default(),
                rollout: Arc::default(),
                said: Arc::default(),
            }),
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

/// What is acted upon without delay: somebody's change of what we keep, and whatever decides which MeshConfig is served.
fn at_once(ctx: &Context) -> impl Stream<Item = ()> + Send + use<> {
    let seen = ctx.writer.seen().changes();
    let noticed = (seen, ctx.index.mesh(), ctx.index.rival(), ctx.index.ending());
    stream::unfold(noticed, |(mut seen, mut mesh, mut rival, mut ending)| async move {
        tokio::select! {
            biased;
            changed = seen.changed() => changed.ok()?,
            changed = mesh.changed() => changed.ok()?,
            changed = rival.changed() => changed.ok()?,
            changed = ending.changed() => changed.ok()?,
        }
        Some(((), (seen, mesh, rival, ending)))
    })
}

/// The Services of the proxies and, as the active MeshConfig names them now, those that may be the cluster's DNS. Other names
/// count with the next leader; until then the look at rest serves.
fn asked(ctx: &Context) -> BTreeSet<ServiceId> {
    let mesh = ctx.index.mesh();
    let dns = mesh.borrow().as_ref().map(|mesh| mesh.spec.dns.clone()).unwrap_or_default();
    let of_dns = services(&dns).into_iter().map(|name| ServiceId::new(dns.namespace.as_str(), name));
    of_dns.chain([ServiceId::new(&*ctx.namespace, daemonset::NAME)]).collect()
}

// The signature is the controller's.
#[allow(clippy::needless_pass_by_value)]
fn on_error(mesh: Arc<MeshConfig>, error: &ReconcileError, reconciler: Arc<Reconciler>) -> Action {
    tracing::warn!(name = mesh.name_any(), %error, "MeshConfig");
    let again = reconciler.failed();
    Action::requeue(if reconciler.memory().hurries { UNDER_WAY } else { again })
}

async fn reconcile(mesh: Arc<MeshConfig>, reconciler: Arc<Reconciler>) -> Result<Action, ReconcileError> {
    let this = &*reconciler;
    this.ctx.metrics.reconciliations.inc();
    let namespace = mesh.namespace().unwrap_or_default();
    let (active, rival) = (this.ctx.index.mesh().borrow().clone(), this.ctx.index.rival().borrow().clone());
    let ours = namespace == *this.ctx.namespace;
    let is_active = active.as_ref().is_some_and(|active| active.uid() == mesh.uid());
    if ours && active.as_ref().is_none_or(|active| active.metadata.deletion_timestamp.is_some()) {
        // Of what goes nobody says how it is.
        this.ctx.metrics.conditions.clear();
    }
    let (known, is_ending) = (this.ctx.index.knows(&mesh), this.ctx.index.is_ending());
    if ours && !known && !is_ending {
        // The controller's watch is ahead of the index's, which may still show one that went as the active one.
        return Ok(Action::requeue(UNDER_WAY));
    }
    // The lines in DNS are those of the active MeshConfig, or else of one that was; the watch may not tell of its finalizer yet.
    let was_active = || is_kept(&mesh) || this.dns_of(&mesh) != DnsFound::default();
    let has_lines = is_active || (ours && (active.is_none() || !known) && was_active());
    let mut served = MeshConfig::clone(&mesh);
    // Of the domains that it asks for it may have those; what else answers for the others is another's.
    served.spec.domains =
        active.as_ref().filter(|_| is_active).map(|active| active.spec.domains.clone()).unwrap_or_default();
    if ours && is_ending {
        return if has_lines { this.end(&served).await } else { this.let_go(&mesh).await };
    }
    if mesh.metadata.deletion_timestamp.is_some() {
        return if !ours {
            // Another operator's, with its finalizer.
            Ok(Action::await_change())
        } else if is_active {
            this.remove(&served).await
        } else if has_lines {
            this.leave(&served).await
        } else {
            this.let_go(&mesh).await
        };
    }
    if is_active {
        if active.is_some_and(|active| active.metadata.generation != mesh.metadata.generation) {
            // The one watch is ahead of the other: which domains of this spec it has is not known yet.
            return Ok(Action::requeue(UNDER_WAY));
        }
        // As large as all that it awaits.
        return Box::pin(this.keep(&served, rival.as_ref())).await;
    }
    this.refuse(&mesh, &served, has_lines, active.as_deref(), rival.as_ref()).await
}

/// The ownerReference by which objects go with their MeshConfig.
pub fn owner(mesh: &MeshConfig) -> Value {
    json!(mesh.controller_owner_ref(&()))
}

impl Reconciler {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.rollout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a failure; returns how long to wait.
    fn failed(&self) -> Duration {
        self.ctx.metrics.reconcile_failures.inc();
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        Duration::from_secs(1).saturating_mul(2_u32.saturating_pow(before)).min(LONGEST_WAIT)
    }

    async fn set_finalizers(&self, mesh: &MeshConfig, finalizers: &[&str]) -> Result<(), ReconcileError> {
        let version = mesh.resource_version();
        let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
        let namespace = mesh.namespace().unwrap_or_default();
        self.ctx.writer.merge::<MeshConfig>(&namespace, &mesh.name_any(), &patch).await?;
        Ok(())
    }
}
