//! Tells the authors of objects what became of them, by Events on the objects: each thing once for each leader, and again when
//! it has been otherwise in between. At rest nothing is written.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::apply::{FIELD_MANAGER, WriteError, Writer};
use crate::context::Context;
use crate::smi::{Name, Subject};

/// The longest note an Event may have (events.k8s.io/v1: 1 KiB).
const LONGEST_NOTE: usize = 1000;

/// When an Event that could not be written is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(10);

/// Something to tell about an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    /// It needs its author; otherwise it is good to know.
    pub warning: bool,
    /// In one word, for machines.
    pub reason: &'static str,
    /// In sentences, for people.
    pub note: String,
}

/// Remembers what was told.
pub struct Teller {
    writer: Writer,
    reporter: Reporter,
    /// By the objects' kinds and names.
    told: HashMap<(&'static str, Name), Told>,
}

/// What an object was told.
struct Told {
    /// Another object of the same name has been told nothing.
    uid: Arc<str>,
    words: BTreeSet<Word>,
}

impl Teller {
    /// Has told nothing yet.
    pub fn new(ctx: &Context) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: Some(ctx.pod.to_string()) };
        Self { writer: ctx.writer.clone(), reporter, told: HashMap::new() }
    }

    /// Tells of `about` what of `words` it was not told yet. Returns whether everything has been told now.
    pub async fn tell(&mut self, about: &Subject, words: BTreeSet<Word>) -> bool {
        let key = (about.kind, about.name.clone());
        let before = self.told.remove(&key).filter(|told| told.uid == about.uid);
        let mut told = before.map(|told| told.words).unwrap_or_default();
        told.retain(|word| words.contains(word));
        let mut all = true;
        for word in words {
            if told.contains(&word) {
                continue;
            }
            match self.event(about, &word).await {
                Ok(()) => drop(told.insert(word)),
                Err(error) => {
                    tracing::warn!(%about, %error, "an Event could not be written");
                    all = false;
                }
            }
        }
        if !told.is_empty() {
            self.told.insert(key, Told { uid: Arc::clone(&about.uid), words: told });
        }
        all
    }

    /// The object `name` of `kind` is gone, or there is nothing to tell of it any more.
    pub fn forget(&mut self, kind: &'static str, name: &Name) {
        self.told.remove(&(kind, name.clone()));
    }

    /// Forgets all that are not in `there`.
    pub fn keep(&mut self, there: &BTreeSet<(&'static str, Name)>) {
        self.told.retain(|object, _| there.contains(object));
    }

    async fn event(&self, about: &Subject, word: &Word) -> Result<(), WriteError> {
        let event = Event {
            type_: if word.warning { EventType::Warning } else { EventType::Normal },
            reason: word.reason.into(),
            note: Some(shortened(&word.note)),
            action: "Compile".into(),
            secondary: None,
        };
        let about = ObjectReference {
            api_version: Some(about.api_version.to_string()),
            kind: Some(about.kind.into()),
            namespace: Some(about.name.namespace.to_string()),
            name: Some(about.name.name.to_string()),
            uid: Some(about.uid.to_string()),
            ..ObjectReference::default()
        };
        // A recorder takes two Events on one object for the same, whatever their notes say; so each gets its own.
        let recorder = Recorder::new(self.writer.client(), self.reporter.clone());
        self.writer.tell(&recorder, event, about).await
    }
}

/// At most as many bytes as the API takes for a note.
pub(super) fn shortened(note: &str) -> String {
    if note.len() <= LONGEST_NOTE {
        return note.to_owned();
    }
    let mut end = LONGEST_NOTE - '…'.len_utf8();
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_where_a_letter_ends() {
        assert_eq!(shortened("short"), "short");
        for note in ["a".repeat(5000), "ä".repeat(5000), format!("a{}", "€".repeat(900))] {
            let cut = shortened(&note);
            assert!(
                cut.len() <= LONGEST_NOTE && cut.ends_with('…') && cut.len() > LONGEST_NOTE - 6,
                "{}",
                cut.len()
            );
        }
    }
}
