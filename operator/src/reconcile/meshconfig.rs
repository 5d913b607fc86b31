//! The controller of `MeshConfigs`: proxies, DNS, finalizer, status. One reconciliation does all of it, in this order; each part
//! is a file of its own.

mod removal;
mod say;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;
use weft_config::ServiceId;
use weft_crds::MeshConfig;
use weft_crds::meshconfig::DnsFound;

use super::findings::Findings;
use super::proxies::Told;
use super::rollout::memory::Memory;
use super::rollout::{self, Decision};
use super::shadow::Shadows;
use super::{daemonset, dns, status};
use crate::annotations::Settings;
use crate::apply::{FIELD_MANAGER, WriteError};
use crate::context::Context;
use crate::dns::facts::services;
use crate::index::changes::About;
use crate::index::claims::{FINALIZER, Rival, is_kept};
use crate::index::proxy_pods::ProxyFacts;
use crate::listed;
use crate::watches::Soon;
use say::Said;
use wait::{AT_REST, UNDER_WAY, wait};

/// Longest wait before what failed is tried again; the waits are doubled from a second on.
const LONGEST_WAIT: Duration = Duration::from_secs(32);
/// Changes of the index within this time are looked at once.
const GATHER: Duration = Duration::from_millis(500);
/// A proxy that answers and is behind is asked a second time after this: a change may have been on its way.
const SECOND_LOOK: Duration = Duration::from_millis(300);
/// A proxy that holds what was current so long ago, or later, keeps up with changes that come all the time.
const KEEPS_UP: Duration = Duration::from_secs(5);

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

/// So many failures in a row are told, whatever they are.
const TOLD_AFTER: u32 = 3;

#[derive(Clone)]
struct Reconciler {
    ctx: Context,
    shadows: Shadows,
    findings: Findings,
    recorder: Recorder,
    dns: dns::Keeper,
    /// Reconciliations that failed, one after the other.
    failures: Arc<AtomicU32>,
    /// Which MeshConfig, by its uid, this leader is removing, and since when by its own clock. The time in the object is
    /// another machine's, and the operator may have been away for long.
    removal: Arc<Mutex<Option<(String, Instant)>>>,
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
        return if is_active {
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
    let dns = if has_lines {
        this.dns.withdraw(&this.ctx, &this.with_dns(&served)).await
    } else if ours {
        Ok(DnsFound::default())
    } else {
        // Whoever served it, or is to clean up behind it, needs to know.
        Ok(this.status_of(&mesh).dns)
    };
    let (reason, message) = match (active, rival) {
        (Some(active), _) if ours => (
            "Conflict",
            format!(
                "MeshConfig {} is older and is served; one namespace has one mesh: delete one of them",
                active.name_any()
            ),
        ),
        (_, Some(rival)) if ours => (rival.reason(), rival.to_string()),
        // It has an operator of its own, which says how it is.
        _ if this.ctx.index.is_operated(&namespace) => return Ok(Action::requeue(AT_REST)),
        _ => (
            WRONG_NAMESPACE,
            format!(
                "this operator serves the MeshConfig of namespace {0}: create it there",
                this.ctx.namespace
            ),
        ),
    };
    let (dns, message, again) = match dns {
        Ok(dns) => (dns, message, AT_REST),
        Err(error) => {
            tracing::warn!(name = mesh.name_any(), %error, "MeshConfig");
            let message = format!("{message}. Its lines are still in DNS: {error}");
            (this.dns_of(&mesh), message, this.failed())
        }
    };
    let now = Time(this.ctx.outside.time());
    let before = this.status_of(&mesh);
    if reason == WRONG_NAMESPACE && status::says(&before, mesh.metadata.generation, reason) {
        // Maybe another operator's word, which names its own namespace: the two would write over each other for ever.
        return Ok(Action::requeue(AT_REST));
    }
    let status = status::not_served(mesh.metadata.generation, reason, &message, dns, &before, &now);
    this.write_status(&mesh, status).await?;
    Ok(Action::requeue(again))
}

/// Why a MeshConfig is not served where no operator is.
const WRONG_NAMESPACE: &str = "WrongNamespace";

/// The ownerReference by which objects go with their MeshConfig.
pub fn owner(mesh: &MeshConfig) -> Value {
    json!(mesh.controller_owner_ref(&()))
}

impl Reconciler {
    async fn keep(&self, mesh: &MeshConfig, rival: Option<&Rival>) -> Result<Action, ReconcileError> {
        self.shadows.remove_all_of(None);
        if !is_kept(mesh) {
            let finalizers: Vec<_> =
                mesh.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
            self.set_finalizers(mesh, &finalizers).await?;
        }
        // First: a rollout is decided by what the proxies say now.
        let (told, digest, all_current) = self.ask_proxies().await;
        let (daemonset, rollout) = match Box::pin(self.keep_proxies(mesh, &told)).await {
            Ok((daemonset, rollout)) => (Ok(daemonset), Some(rollout)),
            // What may have passed with the next look is not told yet.
            Err(error) if error.may_pass() && self.failures.load(Ordering::Relaxed) < TOLD_AFTER => {
                return Err(error);
            }
            Err(error) => (Err(error.to_string()), None),
        };
        let dns = self.dns.keep(&self.ctx, &self.with_dns(mesh)).await;
        let counts = self.shadows.counts();
        let observed = status::Observed {
            generation: mesh.metadata.generation,
            daemonset: &daemonset,
            rollout: rollout.as_ref(),
            namespace: &self.ctx.namespace,
            dns: &dns,
            told: &told,
            digest: &digest,
            counts: &counts,
            problems: &Settings::of_mesh(&mesh.spec).1,
            rival,
            services: self.ctx.index.count_meshed(),
            shadows: self.ctx.index.shadows().len(),
            smi: self.findings.counts(),
        };
        let before = self.status_of(mesh);
        let now = self.ctx.outside.time();
        let status = status::of(&observed, &before, &Time(now));
        let conditions = status.conditions.clone();
        self.write_status(mesh, status).await?;
        let failure = daemonset.err().or_else(|| dns.state.failure().map(ToOwned::to_owned));
        let again = failure.map(|error| {
            tracing::warn!(name = mesh.name_any(), error, "MeshConfig");
            self.failed()
        });
        if again.is_none() {
            self.failures.store(0, Ordering::Relaxed);
        }
        let hurries = self.memory().hurries;
        Ok(Action::requeue(wait(again, hurries, &conditions, all_current, now)))
    }

    async fn keep_proxies(
        &self,
        mesh: &MeshConfig,
        told: &[Told],
    ) -> Result<(DaemonSet, Decision), ReconcileError> {
        let (namespace, owner) = (&*self.ctx.namespace, owner(mesh));
        let service: Service = serde_json::from_value(daemonset::service(namespace, &owner))
            .map_err(|error| ReconcileError::Object("the proxies' Service", error))?;
        self.ctx.writer.apply(&service).await?;
        let live = self.ctx.writer.look::<DaemonSet>(namespace, daemonset::NAME).await?;
        let template = daemonset::template(mesh, namespace, &self.ctx.proxy_image);
        let wanted = daemonset::wanted(&template, live.as_ref());
        let rollout = self.decide(mesh, live.as_ref(), &wanted, told).await;
        let daemonset = daemonset::daemonset(mesh, namespace, &template, &rollout, &owner);
        let daemonset: DaemonSet = serde_json::from_value(daemonset)
            .map_err(|error| ReconcileError::Object("the proxies' DaemonSet", error))?;
        Ok((Box::pin(self.ctx.writer.apply_over(live, &daemonset)).await?, rollout))
    }

    /// How the proxies come to be of the template that is wanted. No rollout is stopped for a person to look at on the word of
    /// a watch alone: one that is behind shows a proxy that went long ago as ready, and as silent.
    async fn decide(
        &self,
        mesh: &MeshConfig,
        live: Option<&DaemonSet>,
        wanted: &str,
        told: &[Told],
    ) -> Decision {
        let (live, pace) = (live.map(daemonset::live), (&mesh.spec.proxy.rollout).into());
        let decide = |pods: &[Arc<ProxyFacts>]| {
            let (now, mut memory) = (Instant::now(), self.memory());
            let holds = live.as_ref().is_some_and(|live| live.holds);
            let pods = memory.look(now, wanted, holds, pods, told);
            let decision = rollout::decide(live.as_ref(), wanted, &pods, pace, memory.held_for(now));
            (decision, pods)
        };
        let (mut decision, pods) = decide(&self.ctx.index.proxy_pods());
        let known = live.as_ref().and_then(|live| live.failed.as_ref());
        let is_news = |decision: &Decision| decision.failed().is_some_and(|failed| Some(failed) != known);
        if is_news(&decision) {
            decision = match listed::proxies(&self.ctx).await {
                Ok(pods) => decide(&pods.into_iter().map(Arc::new).collect::<Vec<_>>()).0,
                Err(error) => {
                    tracing::warn!(%error, "the pods of the proxies cannot be listed");
                    rollout::hold(&pods, pace)
                }
            };
        }
        self.memory().hurries = decision.is_under_way() || is_news(&decision);
        decision
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.rollout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the proxies hold, what they should, and whether all do. The digest of one that keeps up is given as the current one;
    /// one that refuses something does not keep up.
    async fn ask_proxies(&self) -> (Vec<Told>, String, bool) {
        let ask = |pods| self.ctx.outside.ask_proxies(pods, Vec::new());
        let recent = |digest: &str| self.ctx.publisher.is_recent(digest, KEEPS_UP);
        let mut told = ask(self.ctx.index.proxies()).await;
        // One that does not answer takes its time, and is not asked again before the next look.
        let is_behind = |(_, status): &Told| status.as_ref().is_some_and(|status| !recent(&status.digest));
        let behind: Vec<_> = told.extract_if(.., |told| is_behind(told)).map(|(pod, _)| pod).collect();
        if !behind.is_empty() {
            tokio::time::sleep(SECOND_LOOK).await;
            told.extend(ask(behind).await);
        }
        let current = self.ctx.publisher.digest();
        let mut all_current = true;
        for status in told.iter_mut().filter_map(|(_, status)| status.as_mut()) {
            all_current &= status.digest == current;
            if status.rejections.is_empty() && recent(&status.digest) {
                status.digest.clone_from(&current);
            }
        }
        (told, current, all_current)
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
