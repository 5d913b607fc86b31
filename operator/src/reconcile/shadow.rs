//! One shadow Service for each Service in the mesh. The allocator behind it lives as long as this replica leads.
//!
//! What is to be done for a Service is decided for one after the other; the writes that follow are on their way several at a
//! time, never two for one Service, and a round ends when all of its writes have.

mod affected;
mod allocate;
mod decide;
mod desired;
mod leave;
mod pace;
mod record;
mod same_node;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::ResourceExt;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use weft_config::ServiceId;
use weft_crds::MeshConfig;

use crate::apply::WriteError;
use crate::client::UNACKNOWLEDGED;
use crate::context::Context;
use crate::index::changes::About;
use crate::index::claims::is_kept;
use crate::ports::{Allocator, NoPort, Record};
use affected::affected;
use allocate::Answers;
pub use leave::delete_all;
use pace::Pace;
use record::record;
use same_node::prefers_same_node;
use step::{Decided, Step, Written, write};

/// Waits before a Service is tried again: doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long the watch may take to tell of a shadow that was made, before it is looked at.
const UNHEARD: Duration = Duration::from_secs(2);

/// What others may see and say.
#[derive(Clone, Default)]
pub struct Shadows {
    counts: watch::Sender<Counts>,
    /// The MeshConfig, by its uid, that is being removed: every shadow goes. Of another one that comes meanwhile none does.
    removing: watch::Sender<Option<String>>,
    /// The one, by its uid, of which none is left: neither as the index has it nor in the record.
    gone: watch::Sender<Option<String>>,
}

/// For the status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Listen ports in use, those outside of the range included.
    pub used: usize,
    /// Listen ports left.
    pub free: usize,
    /// What could not be done, by Service.
    pub failures: BTreeMap<ServiceId, String>,
}

impl Shadows {
    /// How it stands.
    pub fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }

    /// The same, as it changes.
    pub fn watch_counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    /// Whether no shadow is left of the MeshConfig that is being removed.
    pub fn are_gone(&self, mesh: Option<&str>) -> bool {
        self.gone.borrow().as_deref().is_some_and(|gone| Some(gone) == mesh)
    }

    /// From now on every shadow is removed, while the MeshConfig with this uid is served; or no longer.
    pub fn remove_all_of(&self, mesh: Option<String>) {
        self.removing.send_if_modified(|removing| {
            let changed = *removing != mesh;
            *removing = mesh;
            changed
        });
    }
}

/// Why a shadow is not as it should be.
#[derive(Debug, thiserror::Error)]
enum ShadowError {
    #[error(transparent)]
    Port(#[from] NoPort),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the shadow of Service {0} cannot be put together: {1}")]
    Object(ServiceId, serde_json::Error),
}

/// Works until dropped.
pub async fn run(ctx: &Context, shadows: &Shadows) {
    let prefer_same_node = prefers_same_node(ctx).await;
    let mut mesh = ctx.index.mesh();
    let mut removing = shadows.removing.subscribe();
    let mut pace = Pace::default();
    loop {
        // Without a MeshConfig there is nothing to do: its shadows go with it, by their ownerReference.
        let Some(active) = mesh.borrow_and_update().clone() else {
            if mesh.changed().await.is_err() {
                return;
            }
            continue;
        };
        // A write that was given up may still land, and be missing from the record.
        ctx.writer.settled().await;
        let record = match record(ctx).await {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(%error, "the shadow Services cannot be listed");
                tokio::time::sleep(FIRST_WAIT).await;
                mesh.mark_changed();
                continue;
            }
        };
        let mut worker = Worker::new(ctx, shadows, &active, prefer_same_node, record, pace);
        // Another spec, or another MeshConfig: begin anew, from the record.
        worker.run(&mut removing, &mut mesh).await;
        pace = std::mem::take(&mut worker.pace);
    }
}

struct Worker<'a> {
    ctx: &'a Context,
    shadows: &'a Shadows,
    /// The MeshConfig stays until its shadows are gone. One that may go at any moment gets none: a shadow whose ownerReference
    /// somebody takes off would be left.
    kept: bool,
    /// Its uid.
    mesh: Option<String>,
    owner: Value,
    prefer_same_node: bool,
    allocator: Allocator,
    /// Services whose shadows are there, by the record and by what was written since: whatever the index has heard of them, and
    /// whether or not they have listen ports that count.
    there: BTreeSet<ServiceId>,
    /// Services of whose shadows the record has something else than the index.
    behind: BTreeSet<ServiceId>,
    /// Services whose shadows were written, or may have been, and with which ports, when the index had not heard of it.
    unheard: BTreeMap<ServiceId, Vec<(u16, u16)>>,
    /// Services for which a write was given up, and until when it may still land.
    in_doubt: BTreeMap<ServiceId, Instant>,
    pace: Pace,
    /// What the proxies have said in this round that they hold.
    asked: Option<Answers>,
    /// Services to try again, when, and after which wait.
    again: BTreeMap<ServiceId, (Instant, Duration)>,
    failures: BTreeMap<ServiceId, String>,
    /// Those of them that have no listen port, or no good one.
    refused: BTreeSet<ServiceId>,
}

impl<'a> Worker<'a> {
    fn new(
        ctx: &'a Context,
        shadows: &'a Shadows,
        mesh: &MeshConfig,
        same_node: bool,
        record: Vec<Record>,
        pace: Pace,
    ) -> Self {
        let range = mesh.spec.proxy.listen_ports;
        // Of these nobody may tell any more: what became of them was seen before the record was here.
        let forgotten = record.iter().map(|one| &one.service).filter(|id| ctx.index.meshed(id).is_none());
        let again = forgotten.map(|id| (id.clone(), (Instant::now(), FIRST_WAIT))).collect();
        let known =
            |one: &Record| ctx.index.shadow(&one.service).is_some_and(|shadow| shadow.ports == one.ports);
        let behind = record.iter().filter(|one| !known(one)).map(|one| one.service.clone()).collect();
        let there = record.iter().map(|one| one.service.clone()).collect();
        let allocator = Allocator::new(range.from, range.to, record);
        let owner = super::meshconfig::owner(mesh);
        let failures = BTreeMap::new();
        let (kept, mesh) = (is_kept(mesh), mesh.uid());
        Self {
            ctx,
            shadows,
            kept,
            mesh,
            owner,
            prefer_same_node: same_node,
            allocator,
            there,
            behind,
            unheard: BTreeMap::new(),
            in_doubt: BTreeMap::new(),
            pace,
            asked: None,
            again,
            failures,
            refused: BTreeSet::new(),
        }
    }

    /// Returns when the MeshConfig has changed, but never amid a write: what is not in the record yet is about to be.
    async fn run(
        &mut self,
        removing: &mut watch::Receiver<Option<String>>,
        mesh: &mut watch::Receiver<Option<Arc<MeshConfig>>>,
    ) {
        let changes = self.ctx.index.changes(About::Services);
        loop {
            let next = self.again.values().map(|(at, _)| *at).min();
            let ids = tokio::select! {
                // What there may be no end of comes last.
                biased;
                _ = mesh.changed() => return,
                _ = removing.changed() => self.everything(),
                () = sleep_until(next) => self.due(),
                changed = changes.next() => affected(&self.ctx.index, self.failures.keys(), changed.services),
            };
            // Whoever comes after begins with all there is.
            if !self.round(ids, removing, mesh).await {
                return;
            }
            self.publish(removing);
        }
    }

    fn is_removing(&self, removing: &watch::Receiver<Option<String>>) -> bool {
        self.mesh.is_some() && *removing.borrow() == self.mesh
    }

    /// Works through `ids`. False: the MeshConfig has changed, and what was begun has ended.
    async fn round(
        &mut self,
        ids: BTreeSet<ServiceId>,
        removing: &watch::Receiver<Option<String>>,
        mesh: &watch::Receiver<Option<Arc<MeshConfig>>>,
    ) -> bool {
        let ctx = self.ctx;
        let changed = || mesh.has_changed().unwrap_or(true);
        let mut writes = FuturesUnordered::new();
        self.asked = None;
        for id in ids {
            while !self.pace.allows(writes.len())
                && let Some(written) = writes.next().await
            {
                self.written(written);
            }
            if changed() {
                break;
            }
            if let Some(until) = self.in_doubt_until(&id) {
                self.again.insert(id, (until, FIRST_WAIT));
                continue;
            }
            let removing = self.is_removing(removing);
            // When all go it does not matter what there was.
            if !removing && self.is_behind(&id).await {
                self.later(id);
                continue;
            }
            match self.decide(&id, removing).await {
                Ok(Decided { step: Step::Nothing, ports, refused }) => self.settle(&id, &ports, refused),
                Ok(decided) => writes.push(write(ctx, id, decided)),
                Err(error) => self.failed(id, &error),
            }
        }
        while let Some(written) = writes.next().await {
            self.written(written);
        }
        !changed()
    }

    fn due(&mut self) -> BTreeSet<ServiceId> {
        let now = Instant::now();
        self.again.iter().filter(|(_, (at, _))| *at <= now).map(|(id, _)| id.clone()).collect()
    }

    fn everything(&self) -> BTreeSet<ServiceId> {
        let index = &self.ctx.index;
        let shadowed = index.shadows().into_iter().map(|shadow| shadow.service.clone());
        let strays = index.strays().into_iter().map(|name| ServiceId::new(&*self.ctx.namespace, name));
        shadowed.chain(strays).chain(index.all_meshed()).chain(self.there.iter().cloned()).collect()
    }

    fn publish(&self, removing: &watch::Receiver<Option<String>>) {
        let none = self.again.is_empty() && self.there.is_empty() && self.allocator.used() == 0;
        let gone = self.is_removing(removing) && none;
        self.shadows.gone.send_replace(self.mesh.clone().filter(|_| gone));
        let (used, free) = (self.allocator.used(), self.allocator.free());
        let now = Counts { used, free, failures: self.failures.clone() };
        self.shadows.counts.send_if_modified(|counts| {
            let changed = *counts != now;
            *counts = now;
            changed
        });
        // Not only when they have changed: the worker before took its own away.
        self.ctx.publisher.set_failures(self.failures.clone());
    }

    fn written(&mut self, written: Written) {
        let overload = matches!(&written.done, Err(ShadowError::Write(error)) if error.is_overload());
        self.pace.ended(written.began, overload);
        match written.done {
            Ok(()) => {
                self.settle(&written.id, &written.ports, written.refused);
                if !written.ports.is_empty() {
                    self.there.insert(written.id.clone());
                    self.is_written(written.id, written.ports);
                }
            }
            Err(error) => {
                // It may have happened all the same, so its ports stay its own until it is tried again, and that begins with a look.
                match &error {
                    // Where somebody else has its name nothing has those that it no longer wants.
                    ShadowError::Write(WriteError::Foreign(_)) => self.release(&written.id, &written.ports),
                    ShadowError::Write(WriteError::Unanswered(_)) => {
                        self.in_doubt.insert(written.id.clone(), Instant::now() + UNACKNOWLEDGED);
                    }
                    _ => {}
                }
                self.failed(written.id.clone(), &error);
                if !written.ports.is_empty() {
                    self.unheard.insert(written.id, written.ports);
                }
            }
        }
    }

    /// The shadow of `id` was written with these ports.
    fn is_written(&mut self, id: ServiceId, ports: Vec<(u16, u16)>) {
        let told = self.ctx.index.shadow(&id);
        if told.is_none() {
            // Should it go before the index hears of it, it would hear of neither.
            self.again.entry(id.clone()).or_insert((Instant::now() + UNHEARD, UNHEARD));
        }
        if told.is_none_or(|told| told.ports != ports) {
            self.unheard.insert(id, ports);
        }
    }

    /// What there was to do for a Service is done. Only then are the ports free that it no longer has.
    fn settle(&mut self, id: &ServiceId, ports: &[(u16, u16)], refused: Option<NoPort>) {
        if ports.is_empty() {
            self.there.remove(id);
        }
        if let Some(no_port) = refused {
            self.failed(id.clone(), &no_port.into());
        } else {
            self.again.remove(id);
            self.failures.remove(id);
            self.refused.remove(id);
        }
        self.release(id, ports);
    }

    /// All listen ports of `id` but those for `ports` are free, and who waits for one is tried again.
    fn release(&mut self, id: &ServiceId, ports: &[(u16, u16)]) {
        let keep: Vec<_> = ports.iter().map(|(port, _)| *port).collect();
        if self.allocator.release_except(id, &keep) {
            let soon = (Instant::now() + FIRST_WAIT, FIRST_WAIT);
            self.again.extend(self.refused.iter().map(|id| (id.clone(), soon)));
        }
    }

    fn failed(&mut self, id: ServiceId, error: &ShadowError) {
        self.ctx.metrics.reconcile_failures.inc();
        tracing::warn!(%error, "shadow Service");
        self.later(id.clone());
        if matches!(error, ShadowError::Port(_)) {
            self.refused.insert(id.clone());
        } else {
            self.refused.remove(&id);
        }
        self.failures.insert(id, error.to_string());
    }

    /// `id` is looked at again, after a wait that is longer each time.
    fn later(&mut self, id: ServiceId) {
        let now = Instant::now();
        let wait = match self.again.get(&id) {
            // Something else than the time has led here.
            Some((at, _)) if *at > now => return,
            Some((_, wait)) => (*wait * 2).min(LONGEST_WAIT),
            None => FIRST_WAIT,
        };
        self.again.insert(id, (now + wait, wait));
    }
}

impl Drop for Worker<'_> {
    /// Whoever leads from now on knows better.
    fn drop(&mut self) {
        self.ctx.publisher.set_failures(BTreeMap::new());
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
