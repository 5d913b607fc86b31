//! Tells the authors of objects of the Service Mesh Interface, which have no status, what became of them: an Event on each,
//! `Accepted`, `PartlyApplied` or `Rejected`, with the reasons.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use weft_crds::meshconfig::SmiCounts;

use super::tell::{AGAIN, Teller, Word};
use crate::context::Context;
use crate::index::changes::About;
use crate::policies;
use crate::smi::{Finding, Verdict};

/// Objects that come together are looked at together: a target may be there a moment before its route.
const GATHER: Duration = Duration::from_secs(1);

/// How many objects were found to be what, as it changes.
#[derive(Clone, Default)]
pub struct Findings(watch::Sender<SmiCounts>);

impl Findings {
    /// For the status.
    pub fn counts(&self) -> SmiCounts {
        *self.0.borrow()
    }

    /// The same, as it changes.
    pub fn watch_counts(&self) -> watch::Receiver<SmiCounts> {
        self.0.subscribe()
    }
}

/// Works until dropped.
pub async fn run(ctx: &Context, findings: &Findings) {
    let mut teller = Teller::new(ctx);
    let changes = ctx.index.changes(About::Policies);
    let mut all_told = true;
    loop {
        tokio::select! {
            biased;
            _ = changes.next() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(AGAIN), if !all_told => {}
        }
        let found = policies::findings(&ctx.index);
        let counts = counts(&found);
        findings.0.send_if_modified(|known| std::mem::replace(known, counts) != counts);
        teller.keep(&found.iter().map(|finding| (finding.about.kind, finding.about.name.clone())).collect());
        all_told = true;
        for finding in found {
            all_told &= teller.tell(&finding.about, BTreeSet::from([word(&finding)])).await;
        }
    }
}

fn counts(findings: &[Finding]) -> SmiCounts {
    let count = |verdict| {
        let so = findings.iter().filter(|finding| finding.verdict == verdict).count();
        u32::try_from(so).unwrap_or(u32::MAX)
    };
    SmiCounts {
        accepted: count(Verdict::Accepted),
        partly_applied: count(Verdict::PartlyApplied),
        rejected: count(Verdict::Rejected),
    }
}

fn word(finding: &Finding) -> Word {
    let reason = match finding.verdict {
        Verdict::Accepted => "Accepted",
        Verdict::PartlyApplied => "PartlyApplied",
        Verdict::Rejected => "Rejected",
    };
    let note = match finding.notes.join(" ") {
        notes if notes.is_empty() => "It is in force as it is written.".to_owned(),
        notes => notes,
    };
    Word { warning: finding.verdict != Verdict::Accepted, reason, note }
}
