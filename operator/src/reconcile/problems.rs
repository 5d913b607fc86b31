//! Tells the owners of Services what they asked for and did not get: one Event on the Service for each annotation that cannot
//! be used. An Event is written once for each leader and again when the annotation changes.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use weft_config::ServiceId;

use crate::annotations::{Problem, Settings};
use crate::apply::FIELD_MANAGER;
use crate::context::Context;
use crate::index::facts::ServiceFacts;

/// The reason of these Events.
const REASON: &str = "InvalidAnnotation";
/// When an Event that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// The longest note an Event may have (events.k8s.io/v1).
const LONGEST_NOTE: usize = 1000;

struct Teller<'a> {
    ctx: &'a Context,
    reporter: Reporter,
    told: HashMap<ServiceId, BTreeSet<Problem>>,
    /// Services about which something could not be told yet.
    untold: BTreeSet<ServiceId>,
}

/// Works until dropped.
pub async fn run(ctx: &Context) {
    let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: Some(ctx.pod.to_string()) };
    let mut teller = Teller { ctx, reporter, told: HashMap::new(), untold: BTreeSet::new() };
    let changes = ctx.index.changes();
    loop {
        let concerned = tokio::select! {
            concerned = changes.next() => concerned,
            () = tokio::time::sleep(AGAIN), if !teller.untold.is_empty() => std::mem::take(&mut teller.untold),
        };
        for id in concerned {
            teller.tell(&id).await;
        }
    }
}

impl Teller<'_> {
    async fn tell(&mut self, id: &ServiceId) {
        let service = self.ctx.index.meshed(id);
        let problems = service.as_ref().map(|service| Settings::of(service, &self.ctx.index.defaults()).1);
        let (Some(service), Some(problems)) = (service, problems.filter(|problems| !problems.is_empty()))
        else {
            self.told.remove(id);
            return;
        };
        let problems: BTreeSet<_> = problems.into_iter().collect();
        let mut told = self.told.remove(id).unwrap_or_default();
        told.retain(|problem| problems.contains(problem));
        for problem in problems {
            if told.contains(&problem) {
                continue;
            }
            tracing::info!(service = %id, %problem, "not understood");
            match self.event(&service, &problem).await {
                Ok(()) => {
                    told.insert(problem);
                }
                Err(error) => {
                    tracing::warn!(service = %id, %error, "the Event could not be written");
                    self.untold.insert(id.clone());
                }
            }
        }
        self.told.insert(id.clone(), told);
    }

    async fn event(&self, service: &ServiceFacts, problem: &Problem) -> kube::Result<()> {
        let event = Event {
            type_: EventType::Warning,
            reason: REASON.into(),
            note: Some(problem.to_string().chars().take(LONGEST_NOTE).collect()),
            action: "Compile".into(),
            secondary: None,
        };
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Service".into()),
            namespace: Some(service.id.namespace.to_string()),
            name: Some(service.id.name.to_string()),
            uid: Some(service.uid.to_string()),
            ..ObjectReference::default()
        };
        // A recorder takes two Events on one object for the same, whatever their notes say; so each gets its own.
        Recorder::new(self.ctx.client.clone(), self.reporter.clone()).publish(&event, &about).await
    }
}
