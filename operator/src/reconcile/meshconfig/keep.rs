//! The MeshConfig that is served: its proxies, the lines in DNS, and what is said of both.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use tokio::time::Instant;
use weft_crds::MeshConfig;

use super::wait::wait;
use super::{ReconcileError, Reconciler, owner};
use crate::annotations::Settings;
use crate::index::claims::{FINALIZER, Rival, is_kept};
use crate::index::proxy_pods::ProxyFacts;
use crate::listed;
use crate::reconcile::proxies::Told;
use crate::reconcile::rollout::{self, Decision};
use crate::reconcile::{daemonset, status};

/// A proxy that answers and is behind is asked a second time after this: a change may have been on its way.
const SECOND_LOOK: Duration = Duration::from_millis(300);
/// A proxy that holds what was current so long ago, or later, keeps up with changes that come all the time.
const KEEPS_UP: Duration = Duration::from_secs(5);
/// So many failures in a row are told, whatever they are.
const TOLD_AFTER: u32 = 3;

impl Reconciler {
    pub(super) async fn keep(
        &self,
        mesh: &MeshConfig,
        rival: Option<&Rival>,
    ) -> Result<Action, ReconcileError> {
        self.shadows.remove_all_of(None);
        if !is_kept(mesh) {
            self.dns.begin(mesh).await;
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
            shadows: self.ctx.index.count_shadows(),
            smi: self.findings.counts(),
        };
        let before = self.status_of(mesh);
        let now = self.ctx.outside.time();
        let status = status::of(&observed, &before, &Time(now));
        let conditions = status.conditions.clone();
        self.ctx.metrics.note_conditions(&conditions);
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
            let pods = memory.look(now, wanted, live.as_ref(), pods, told);
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
}
