//! Asks all proxies for their edges, when somebody asks us.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Mutex;
use weft_config::contract::EDGES_PATH;
use weft_config::edges::{EdgeFigures, ProxyEdges};

use crate::index::Index;
use crate::reconcile::proxies::ask_each;

/// The longest answer that is read: as many edges as a proxy counts, with long names.
const LONGEST: usize = 16 << 20;
/// How old an answer may be that is given again. Proxies close a period every five seconds only.
const FRESH: Duration = Duration::from_secs(1);

/// What the proxies told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gathered {
    /// All edges, those of one pair from several proxies among them.
    pub edges: Vec<EdgeFigures>,
    /// When the window ended.
    pub end: Timestamp,
    /// How many proxies answered.
    pub told: usize,
    /// How many did not.
    pub silent: usize,
}

/// What was gathered, and when.
type Kept = (Instant, Arc<Gathered>);

/// Gathers, and shares what was gathered among those who ask at the same time.
#[derive(Default)]
pub struct Gatherer {
    last: Arc<Mutex<Option<Kept>>>,
}

impl Gatherer {
    /// What the proxies that `index` knows tell now. Callers wait for each other: however many ask, proxies are asked once.
    pub async fn gather(&self, index: &Index) -> Arc<Gathered> {
        let mut last = self.last.lock().await;
        if let Some((when, gathered)) = &*last
            && when.elapsed() < FRESH
        {
            return Arc::clone(gathered);
        }
        // Also those that are not ready: one that drains still carries traffic.
        let told = ask_each::<ProxyEdges>(index.proxies(), EDGES_PATH, LONGEST);
        let gathered = told.fold(Gathered::default(), |sum, (_, told)| async { sum.with(told) }).await;
        let gathered = Arc::new(gathered);
        *last = Some((Instant::now(), Arc::clone(&gathered)));
        // At rest nothing is kept: it can be large.
        let kept = Arc::clone(&self.last);
        tokio::spawn(async move {
            tokio::time::sleep(FRESH).await;
            kept.lock().await.take_if(|(when, _)| when.elapsed() >= FRESH);
        });
        gathered
    }
}

impl Gathered {
    /// With what one more proxy told.
    #[must_use]
    pub fn with(mut self, told: Option<ProxyEdges>) -> Self {
        let Some(told) = told else {
            self.silent += 1;
            return self;
        };
        self.told += 1;
        self.edges.extend(told.edges);
        let end = i64::try_from(told.end).ok().and_then(|end| Timestamp::from_second(end).ok());
        self.end = self.end.max(end.unwrap_or_default());
        self
    }
}
