//! What is remembered between two looks at DNS: fights, what is not there, since when servers are behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt;
use tokio::time::Instant;
use weft_crds::MeshConfig;

use super::DnsState;
use crate::dns::facts::Workload;
use crate::dns::fight::Fight;

/// How long DNS servers may take: the kubelet's update of a `ConfigMap` and the server's next look are a minute or so.
const IN_TIME: Duration = Duration::from_secs(120);
/// When it is looked again for what could not be had.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// When what DNS pods run is read again.
const READ_AGAIN: Duration = Duration::from_secs(120);

/// What is remembered.
#[derive(Default)]
pub(super) struct Memory {
    /// The MeshConfig it is about, and its generation.
    about: (Option<String>, Option<i64>),
    /// For whichever MeshConfig.
    pub(super) lines: Lines,
    fights: BTreeMap<String, Round>,
    /// `ConfigMaps` that may not be read, and since when that is known.
    forbidden: BTreeMap<String, Instant>,
    pods: Option<(Instant, Pods)>,
    behind_since: Option<Instant>,
}

/// What this leader knows of lines of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Lines {
    /// Nothing: another may have written them.
    #[default]
    Unknown,
    /// It has written some, or may have, and has not taken them out since.
    MayStand,
    /// It has taken them out, and written none since.
    Out,
}

/// A fight over one `ConfigMap`, and what people are told of it.
#[derive(Default)]
pub(super) struct Round {
    pub(super) fight: Fight,
    pub(super) message: String,
}

/// What the DNS pods run.
#[derive(Debug, Clone, Default)]
pub(super) struct Pods {
    pub(super) behind: BTreeSet<String>,
    pub(super) workloads: BTreeMap<String, Workload>,
    pub(super) caches: BTreeSet<String>,
    pub(super) no_cache: BTreeSet<String>,
}

impl Memory {
    /// Another MeshConfig, or a change of it, is a new beginning.
    pub(super) fn is_about(&mut self, mesh: &MeshConfig) {
        let about = (mesh.uid(), mesh.metadata.generation);
        if self.about != about {
            *self = Self { about, lines: self.lines, ..Self::default() };
        }
    }

    /// Our lines are out. That they are gone is nobody's undoing.
    pub(super) fn are_out(&mut self) {
        self.lines = Lines::Out;
        self.fights.clear();
    }

    /// The next look goes by nothing that is remembered.
    pub(super) fn look_everywhere(&mut self) {
        self.forbidden.clear();
        self.pods = None;
    }

    pub(super) fn fight(&mut self, config_map: &str) -> &mut Round {
        self.fights.entry(config_map.to_owned()).or_default()
    }

    /// Our lines are other ones now.
    pub(super) fn wrote(&mut self) {
        self.behind_since = None;
    }

    pub(super) fn is_forbidden(&self, config_map: &str) -> bool {
        self.forbidden.get(config_map).is_some_and(|since| since.elapsed() < LOOK_AGAIN)
    }

    pub(super) fn note_forbidden(&mut self, config_map: &str) {
        self.forbidden.insert(config_map.to_owned(), Instant::now());
    }

    /// What the DNS pods run, if that was read of just these, and whether lately.
    pub(super) fn pods(&self, behind: &BTreeSet<String>, caches: &BTreeSet<String>) -> Option<(&Pods, bool)> {
        let (since, pods) = self.pods.as_ref()?;
        (pods.behind == *behind && pods.caches == *caches).then_some((pods, since.elapsed() < READ_AGAIN))
    }

    pub(super) fn remember(&mut self, pods: Pods) {
        self.pods = Some((Instant::now(), pods));
    }

    /// `state`, unless it lasts for too long.
    pub(super) fn in_time(&mut self, state: DnsState, now: Instant) -> DnsState {
        let DnsState::Propagating(what) = state else {
            self.behind_since = None;
            return state;
        };
        let since = *self.behind_since.get_or_insert(now);
        if now.duration_since(since) < IN_TIME {
            return DnsState::Propagating(what);
        }
        DnsState::Behind(format!(
            "{what}. That has been so for more than two minutes: the log of that server says whether it refuses its configuration; without the plugin reload it reads it only when it starts, and that is for you to do"
        ))
    }
}

#[cfg(test)]
mod tests {
    use weft_crds::MeshConfigSpec;

    use super::*;

    #[test]
    fn servers_that_take_too_long_are_told_of() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let waits = || DnsState::Propagating("DNS pod 10.0.0.1 does not know weft.mesh yet".into());
        assert_eq!(memory.in_time(waits(), now), waits());
        assert_eq!(memory.in_time(waits(), now + IN_TIME / 2), waits());
        let late = memory.in_time(waits(), now + IN_TIME);
        let DnsState::Behind(text) = &late else { panic!("{late:?}") };
        assert!(
            text.contains("10.0.0.1") && text.contains("two minutes") && text.contains("reload"),
            "{text}"
        );
        let well = DnsState::Configured("CoreDNS", "well".into());
        assert_eq!(memory.in_time(well.clone(), now + IN_TIME), well);
        assert_eq!(memory.in_time(waits(), now + IN_TIME), waits(), "the time begins anew");
        memory.wrote();
        assert_eq!(memory.in_time(waits(), now + 2 * IN_TIME), waits(), "as it does with other lines");
    }

    #[test]
    fn a_change_of_the_mesh_config_is_a_new_beginning() {
        let mut memory = Memory::default();
        let mut mesh = MeshConfig::new("weft", MeshConfigSpec::default());
        mesh.metadata.generation = Some(1);
        memory.is_about(&mesh);
        memory.fight("coredns").message = "old".into();
        memory.is_about(&mesh);
        assert_eq!(memory.fight("coredns").message, "old");
        mesh.metadata.generation = Some(2);
        memory.is_about(&mesh);
        assert_eq!(memory.fight("coredns").message, "");
        assert_eq!(memory.lines, Lines::Unknown);
        memory.lines = Lines::MayStand;
        mesh.metadata.generation = Some(3);
        memory.is_about(&mesh);
        assert_eq!(memory.lines, Lines::MayStand, "whatever they were written for, they are there");
    }
}
