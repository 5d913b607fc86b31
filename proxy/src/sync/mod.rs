//! The configuration: from the operator's stream, or at first from the last-known-good snapshot, into the tables.
//!
//! One task does it all, so there is nothing to lock. Losing the operator changes nothing but a gauge: what is in force
//! stays in force.

mod address;
mod client;
mod saver;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;
use tokio::time::Instant;
use weft_config::show::hexadecimal;
use weft_config::status::{ProxyStatus, Rejection};
use weft_config::wire::{DecodeError, v1};
use weft_config::{Entry, ResourceKey, Update, snapshot};

use crate::drain::Offered;
use crate::metrics::Metrics;
use crate::tables::apply::Applier;
use crate::tables::held;
use saver::Saver;

/// Where the operator is and how to prove ourselves to it.
#[derive(Debug, Clone)]
pub struct Operator {
    /// `https://...`; the host is also the name its certificate must carry.
    pub url: String,
    /// File with our token.
    pub token_path: PathBuf,
    /// File with its CA's certificate.
    pub ca_path: PathBuf,
    /// Our node.
    pub node: String,
    /// Our pod.
    pub pod: String,
}

/// Waits between attempts to connect: doubled each time, with jitter.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Keeps the tables in step with the operator.
pub struct Sync {
    applier: Applier,
    metrics: Arc<Metrics>,
    saver: Saver,
    status: Arc<ArcSwap<ProxyStatus>>,
    complete: watch::Sender<bool>,
    /// Set on drift: the next Hello must claim nothing, so that everything is sent.
    forget_held: bool,
    /// The last Hello claimed nothing: the next Update is all there is.
    whole: bool,
    /// Resources of kinds this version does not know, by kind and name, and what was said of them. They are part of the
    /// operator's digest, so without them every later Update would look like drift.
    not_understood: BTreeMap<(i32, String), String>,
    reader_key: Arc<ArcSwapOption<String>>,
    offered: watch::Sender<Option<Offered>>,
    connector: address::Connector,
    /// The operator's pod at the other end of the stream.
    operator: String,
    /// When the configuration last changed, in seconds since the epoch.
    changed: u64,
}

/// What others may see of it.
#[derive(Clone)]
pub struct SyncView {
    /// For the admin port; listen ports are added there, since they change without an update.
    pub status: Arc<ArcSwap<ProxyStatus>>,
    /// Becomes `true` when a full configuration is in force, and stays so.
    pub complete: watch::Receiver<bool>,
    /// What is held.
    pub held: held::Shared,
    /// What those must show who want to read what is held; nobody may before an operator has told it.
    pub reader_key: Arc<ArcSwapOption<String>>,
    /// What an operator said last of whether shadow Services still offer this proxy; nothing before it is told to end.
    pub offered: watch::Receiver<Option<Offered>>,
}

impl Sync {
    /// Starts from the snapshot below `directory`, if there is a good one.
    pub fn new(applier: Applier, metrics: Arc<Metrics>, directory: &Path) -> (Self, SyncView) {
        let path = directory.join("config");
        let (complete, complete_view) = watch::channel(false);
        let status = Arc::new(ArcSwap::default());
        let (held, reader_key) = (Arc::clone(applier.held()), Arc::<ArcSwapOption<String>>::default());
        let (offered, offered_view) = watch::channel(None);
        let view = SyncView {
            status: Arc::clone(&status),
            complete: complete_view,
            held: Arc::clone(&held),
            reader_key: Arc::clone(&reader_key),
            offered: offered_view,
        };
        let saver = Saver::start(path.clone(), held, metrics.snapshot_failures.clone());
        // Where nobody knows how old it is, nobody in it is believed.
        let mut age = Duration::MAX;
        let (forget_held, whole, not_understood) = Default::default();
        let (connector, operator, changed) = Default::default();
        let mut sync = Self {
            applier,
            metrics,
            saver,
            status,
            complete,
            forget_held,
            whole,
            not_understood,
            reader_key,
            offered,
            connector,
            operator,
            changed,
        };
        match snapshot::read(&path) {
            Ok(Some(set)) => {
                let known = snapshot::age(&path);
                age = known.unwrap_or(Duration::MAX);
                sync.applier.apply(&Update { upserts: set.iter().cloned().collect(), removals: Vec::new() });
                tracing::info!(
                    resources = set.len(),
                    age_s = known.map(|age| age.as_secs()),
                    "serving from the last-known-good configuration"
                );
                sync.complete.send_replace(true);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "starting without the last-known-good configuration"),
        }
        sync.applier.accounts().doubt_since(age);
        sync.publish_status(false);
        (sync, view)
    }

    /// Follows the operator for ever, reconnecting as often as it takes.
    pub async fn run(mut self, operator: Operator) {
        let mut wait = FIRST_WAIT;
        loop {
            let before = self.metrics.updates.get();
            if let Err(error) = client::follow(&mut self, &operator).await {
                tracing::warn!(error = %error, url = operator.url, "no configuration stream; what is in force stays");
            }
            self.metrics.connected.set(0);
            self.applier.accounts().doubt();
            self.saver.operator_gone();
            self.publish_status(false);
            if self.metrics.updates.get() != before {
                wait = FIRST_WAIT;
            }
            // Half of it at random: after an operator's restart not all proxies come back in the same instant.
            let jitter = wait.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::time::sleep(jitter).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// The first message of a stream.
    fn hello(&mut self, operator: &Operator) -> v1::Hello {
        let forget = std::mem::take(&mut self.forget_held);
        let held: Vec<_> = {
            let held = self.applier.held().lock();
            let held = held.hashes().filter(|_| !forget);
            held.map(|(key, hash)| v1::Held { key: Some(key.into()), hash }).collect()
        };
        self.whole = held.is_empty();
        // Nor are they held, or not in this form.
        self.applier.forget_refused();
        // They are not held, so whoever knows them sends them again.
        self.not_understood.clear();
        v1::Hello {
            node: operator.node.clone(),
            pod: operator.pod.clone(),
            proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
            held,
        }
    }

    /// Applies an update and answers it. `Err`: what we hold is not what the operator thinks, the stream must end.
    fn take(&mut self, message: &v1::Update) -> Result<v1::Ack, Drift> {
        if message.offered() != v1::Offered::Unspecified {
            let now = Offered { still: message.offered() == v1::Offered::Yes, said: Instant::now() };
            self.offered.send_if_modified(|offered| {
                // From when on none did counts; that it is so may be said again.
                let news = now.still || offered.is_none_or(|before| before.still);
                if news {
                    *offered = Some(now);
                }
                news
            });
            let digest = self.applier.held().lock().digest();
            return Ok(v1::Ack { version: message.version, rejections: Vec::new(), digest });
        }
        let mut update = Update::default();
        let mut undecodable = Vec::new();
        for resource in &message.upserts {
            match Entry::try_from(resource) {
                Ok(entry) => update.upserts.push(entry),
                Err(error) => undecodable.push((resource, error)),
            }
        }
        update.removals = self.removals(message);
        self.applier.apply(&update);
        self.note_undecodable(undecodable);
        // From the first full answer on, and not before it is taken: until then what is held may be from long ago.
        self.applier.accounts().believe();
        let refused =
            self.applier.rejections().iter().map(|(key, reason)| (v1::ResourceKey::from(key), reason));
        let unknown = self
            .not_understood
            .iter()
            .map(|((kind, name), reason)| (v1::ResourceKey { kind: *kind, name: name.clone() }, reason));
        let rejections: Vec<_> = refused
            .chain(unknown)
            .map(|(key, reason)| v1::Rejection { key: Some(key), reason: reason.clone() })
            .collect();

        let digest = self.applier.held().lock().digest();
        if rejections.is_empty() && digest != message.digest {
            self.forget_held = true;
            return Err(Drift);
        }
        self.metrics.updates.inc();
        if let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            self.metrics.last_update.set(now.as_secs_f64());
            self.changed = now.as_secs();
        }
        if !message.reader_key.is_empty() {
            self.reader_key.store(Some(Arc::new(message.reader_key.clone())));
        }
        self.saver.save();
        self.publish_status(true);
        self.complete.send_replace(true);
        Ok(v1::Ack { version: message.version, rejections, digest })
    }

    /// What is gone. A newer proxy's snapshot, or an older operator, may leave us with what the operator has no word for: it
    /// is gone when it is not in an Update that is all there is.
    fn removals(&mut self, message: &v1::Update) -> Vec<ResourceKey> {
        let mut removals = Vec::new();
        for key in &message.removals {
            match ResourceKey::try_from(key) {
                Ok(key) => removals.push(key),
                // An operator that does not say kinds may have sent it.
                Err(_) => self
                    .not_understood
                    .retain(|(kind, name), _| *name != key.name || (*kind != key.kind && *kind != 0)),
            }
        }
        if std::mem::take(&mut self.whole) {
            let named: BTreeSet<_> = message.upserts.iter().filter_map(named).collect();
            let held = self.applier.held().lock();
            removals.extend(held.hashes().map(|(key, _)| key).filter(|key| !named.contains(key)).cloned());
        }
        removals
    }

    /// Resources of a newer operator that this version does not understand keep their old form, too.
    fn note_undecodable(&mut self, list: Vec<(&v1::Resource, DecodeError)>) {
        for (resource, error) in list {
            if let Some(v1::resource::Body::Service(service)) = &resource.body {
                self.applier.restrict(&resource.name, service);
            }
            if let Some(key) = named(resource) {
                self.applier.reject(key, error.to_string());
            } else {
                let key = (resource.kind, resource.name.clone());
                self.not_understood.insert(key, error.to_string());
            }
        }
    }

    fn publish_status(&self, connected: bool) {
        let refused = self.applier.rejections().iter().map(|(key, reason)| (key.to_string(), reason));
        let unknown = self.not_understood.iter().map(|((_, name), reason)| (name.clone(), reason));
        let (digest, resources) = {
            let held = self.applier.held().lock();
            (hexadecimal(held.digest()), held.len())
        };
        self.status.store(Arc::new(ProxyStatus {
            digest,
            rejections: refused
                .chain(unknown)
                .map(|(resource, reason)| Rejection { resource, reason: reason.clone() })
                .collect(),
            connected,
            operator: if connected { self.operator.clone() } else { String::new() },
            changed: self.changed,
            resources,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            // The rest is added when somebody asks: it may change without an update, and listen ports can be many.
            ..ProxyStatus::default()
        }));
    }
}

/// The key of a resource of a kind this version knows, whether or not it understands the rest.
fn named(resource: &v1::Resource) -> Option<ResourceKey> {
    let kind = match resource.body.as_ref()? {
        v1::resource::Body::Service(_) => v1::ResourceKind::Service,
        v1::resource::Body::Endpoints(_) => v1::ResourceKind::Endpoints,
        v1::resource::Body::Identity(_) => v1::ResourceKind::Identity,
        v1::resource::Body::Access(_) => v1::ResourceKind::Access,
    };
    ResourceKey::try_from(&v1::ResourceKey { kind: kind.into(), name: resource.name.clone() }).ok()
}

/// What we hold is not what the operator thinks we hold.
#[derive(Debug, thiserror::Error)]
#[error("the configuration held does not match the operator's digest; asking for all of it")]
struct Drift;
