//! Tells the owners of Services what they asked for and did not get: one Event on the Service for each annotation that cannot
//! be used.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;
use weft_config::ServiceId;

use super::tell::{AGAIN, Teller, Word};
use crate::annotations::Settings;
use crate::context::Context;
use crate::index::changes::About;
use crate::smi::Subject;

/// The reason of these Events.
const REASON: &str = "InvalidAnnotation";

/// Works until dropped.
pub async fn run(ctx: &Context) {
    let mut teller = Teller::new(ctx);
    // Services about which something could not be told yet, and when it is tried again.
    let (mut untold, mut again) = (BTreeSet::new(), Instant::now());
    let changes = ctx.index.changes(About::Services);
    loop {
        let concerned = tokio::select! {
            biased;
            // First: where something changes all the time it would never be its turn.
            () = tokio::time::sleep_until(again), if !untold.is_empty() => std::mem::take(&mut untold),
            changed = changes.next() => changed.services,
        };
        for id in concerned {
            if !tell(ctx, &mut teller, &id).await {
                if untold.is_empty() {
                    again = Instant::now() + AGAIN;
                }
                untold.insert(id);
            }
        }
    }
}

async fn tell(ctx: &Context, teller: &mut Teller, id: &ServiceId) -> bool {
    let service = ctx.index.meshed(id);
    let problems = service.as_ref().map(|service| Settings::of(service, &ctx.index.defaults()).1);
    let (Some(service), Some(problems)) = (service, problems.filter(|problems| !problems.is_empty())) else {
        teller.forget("Service", id);
        return true;
    };
    let word = |note: String| Word { warning: true, reason: REASON, note };
    let words = problems.iter().map(|problem| word(problem.to_string())).collect();
    let about = Subject {
        kind: "Service",
        api_version: "v1".into(),
        name: id.clone(),
        uid: Arc::clone(&service.uid),
    };
    teller.tell(&about, words).await
}
