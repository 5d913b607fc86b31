//! From what was observed to the MeshConfig's status. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use weft_crds::MeshConfigStatus;
use weft_crds::meshconfig::{DnsFound, PortCounts, ProxyCounts, SmiCounts};

use super::dns::{DnsState, Standing};
use super::proxies::Told;
use super::rollout::{Decision, Stage};
use super::shadow::Counts;
use crate::index::claims::{DOMAIN_TAKEN, Rival};

/// The mesh carries traffic.
pub const READY: &str = "Ready";
/// Every node that should have a proxy has one that is ready.
pub const PROXIES_READY: &str = "ProxiesReady";
/// Mesh names resolve.
pub const DNS_CONFIGURED: &str = "DNSConfigured";
/// Every proxy holds the current configuration.
pub const CONFIG_SYNCED: &str = "ConfigSynced";
/// A change of the proxies was stopped because a new one fails.
pub const ROLLOUT_PAUSED: &str = "RolloutPaused";
/// Something needs a person.
pub const DEGRADED: &str = "Degraded";

/// Why [`DNS_CONFIGURED`] holds where DNS is left alone.
pub const MANUAL: &str = "Manual";

/// Reasons for which nothing gets better by itself.
const FOR_A_PERSON: [&str; 5] = ["NoNodes", "NotTakenUp", "ByHand", "Conflict", "DNSFailed"];
/// Reasons that belong to every change, and those that do while one is under way.
const OF_A_CHANGE: [&str; 4] = ["Propagating", "Rolling", "Behind", "NoProxies"];
const DURING_A_CHANGE: [&str; 3] = ["ProxiesNotReady", "NoAnswer", "NotConnected"];

/// What the status is made of.
pub struct Observed<'a> {
    /// The MeshConfig's generation.
    pub generation: Option<i64>,
    /// The proxies' DaemonSet as it is, or why it is not.
    pub daemonset: &'a Result<DaemonSet, String>,
    /// How a change of the proxies stands; `None` when nothing can be said of it, and what was said before still holds.
    pub rollout: Option<&'a Decision>,
    /// Where they are.
    pub namespace: &'a str,
    /// How DNS stands.
    pub dns: &'a Standing,
    /// What each proxy said.
    pub told: &'a [Told],
    /// Digest of the configuration they should hold.
    pub digest: &'a str,
    /// The shadow Services' allocator.
    pub counts: &'a Counts,
    /// What in the spec cannot be used.
    pub problems: &'a [String],
    /// Who has domains that the spec names.
    pub rival: Option<&'a Rival>,
    /// Services in the mesh.
    pub services: usize,
    /// Shadow Services.
    pub shadows: usize,
    /// What became of the objects of the Service Mesh Interface.
    pub smi: SmiCounts,
}

/// A condition before it has its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: String,
    message: String,
}

impl Verdict {
    /// `kind` holds or not, for `reason`; `message` is for people.
    pub fn new(
        kind: &'static str,
        holds: bool,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, holds, reason: reason.into(), message: message.into() }
    }
}

/// The status of the active MeshConfig; `before` is the one it had.
pub fn of(observed: &Observed<'_>, before: &MeshConfigStatus, now: &Time) -> MeshConfigStatus {
    let (desired, ready) = proxy_counts(observed, before.proxies.desired, before.proxies.ready);
    let verdicts = verdicts(observed, (desired, ready), &before.conditions);
    let in_sync = observed.told.iter().filter(|told| holds(told, observed.digest)).count();
    MeshConfigStatus {
        observed_generation: observed.generation,
        conditions: conditions(&verdicts, observed.generation, &before.conditions, now),
        services: count(observed.services),
        shadow_services: count(observed.shadows),
        ports: PortCounts { used: count(observed.counts.used), free: count(observed.counts.free) },
        proxies: ProxyCounts {
            desired,
            ready,
            in_sync: count(in_sync),
            summary: format!("{ready}/{desired}"),
        },
        smi: observed.smi,
        dns: observed.dns.found.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The status of a MeshConfig that is not served; `dns`: what of it is in DNS all the same.
pub fn not_served(
    generation: Option<i64>,
    reason: &'static str,
    message: &str,
    dns: DnsFound,
    before: &MeshConfigStatus,
    now: &Time,
) -> MeshConfigStatus {
    let verdicts = [Verdict::new(READY, false, reason, message)];
    MeshConfigStatus {
        observed_generation: generation,
        conditions: conditions(&verdicts, generation, &before.conditions, now),
        dns,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..MeshConfigStatus::default()
    }
}

/// The condition of this kind.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether a status says of this generation of a MeshConfig that it is not served for `reason`.
pub fn says(status: &MeshConfigStatus, generation: Option<i64>, reason: &str) -> bool {
    condition(&status.conditions, READY)
        .is_some_and(|ready| ready.reason == reason && ready.observed_generation == generation)
}

/// Whether a condition is as it should be.
pub fn is_well(condition: &Condition) -> bool {
    let of_trouble = [DEGRADED, ROLLOUT_PAUSED].contains(&condition.type_.as_str());
    (condition.status == "True") != of_trouble
}

/// Whether a condition that is not as it should be is about to be, since the mesh is being installed or changed.
pub fn is_passing(one: &Condition, now: &[Condition], before: &[Condition]) -> bool {
    let rolls = condition(now, ROLLOUT_PAUSED).is_some_and(|rollout| rollout.reason == "Rolling");
    let was_well = condition(before, &one.type_).is_some_and(is_well);
    let reason = one.reason.as_str();
    OF_A_CHANGE.contains(&reason) || (DURING_A_CHANGE.contains(&reason) && (rolls || !was_well))
}

fn verdicts(observed: &Observed<'_>, counts: (u32, u32), before: &[Condition]) -> [Verdict; 6] {
    let (proxies, dns, synced) = (proxies(observed, counts), dns(observed), synced(observed));
    let paused = paused(observed, before);
    let degraded = degraded(observed, paused.holds, [&proxies, &dns]);
    // That it has no domain is the first thing to know, and nothing else that may be the matter mends it.
    let taken = Some(&dns).filter(|dns| dns.reason == DOMAIN_TAKEN);
    let ready = match taken.or_else(|| [&proxies, &dns].into_iter().find(|verdict| !verdict.holds)) {
        Some(missing) => Verdict::new(READY, false, &*missing.reason, &*missing.message),
        None => Verdict::new(READY, true, "Ready", "the mesh carries traffic"),
    };
    [ready, proxies, dns, synced, paused, degraded]
}

/// Nodes that should have a proxy, and nodes that have one that is ready: as before, where the DaemonSet cannot be written.
fn proxy_counts(observed: &Observed<'_>, desired: u32, ready: u32) -> (u32, u32) {
    let Ok(daemonset) = observed.daemonset else { return (desired, ready) };
    let status = daemonset.status.as_ref();
    let number = |n: Option<i32>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let (desired, ready) =
        (number(status.map(|s| s.desired_number_scheduled)), number(status.map(|s| s.number_ready)));
    // The DaemonSet counts a node by the older of its pods: one whose old proxy drains counts as without, though the new one
    // carries its traffic.
    let served = observed.rollout.map_or(0, |rollout| rollout.served);
    (desired, ready.max(served).min(desired))
}

fn proxies(observed: &Observed<'_>, (desired, ready): (u32, u32)) -> Verdict {
    let daemonset = match observed.daemonset {
        Ok(daemonset) => daemonset,
        Err(error) => return Verdict::new(PROXIES_READY, false, "NotApplied", &**error),
    };
    let status = daemonset.status.as_ref();
    let seen = status.and_then(|s| s.observed_generation) >= daemonset.metadata.generation;
    let updated =
        status.and_then(|s| s.updated_number_scheduled).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    // Of a node whose old proxy drains the DaemonSet counts that one.
    let complete = observed.rollout.is_some_and(|rollout| rollout.stage == Stage::Complete);
    if !seen && (desired == 0 || ready < desired) {
        Verdict::new(PROXIES_READY, false, "Rolling", "the DaemonSet of the proxies has changed")
    } else if desired == 0 {
        Verdict::new(
            PROXIES_READY,
            false,
            "NoNodes",
            "no node matches spec.proxy.nodeSelector and tolerations",
        )
    } else if ready < desired {
        let message = format!("{ready} of {desired} nodes have a proxy that is ready");
        Verdict::new(PROXIES_READY, false, "ProxiesNotReady", message)
    } else if !complete && (!seen || updated < desired) {
        // Every node is served all the while: a new proxy is ready before the old one goes.
        Verdict::new(
            PROXIES_READY,
            true,
            "Rolling",
            format!("{updated} of {desired} proxies are of the current version"),
        )
    } else {
        Verdict::new(
            PROXIES_READY,
            true,
            "AllReady",
            format!("all {desired} nodes have a proxy that is ready"),
        )
    }
}

fn paused(observed: &Observed<'_>, before: &[Condition]) -> Verdict {
    let not = |reason: &str, message: String| Verdict::new(ROLLOUT_PAUSED, false, reason, message);
    let Some(rollout) = observed.rollout else {
        return match condition(before, ROLLOUT_PAUSED) {
            Some(known) => {
                Verdict::new(ROLLOUT_PAUSED, known.status == "True", &*known.reason, &*known.message)
            }
            None => not("NoRollout", "no change of the proxies is under way".to_owned()),
        };
    };
    match &rollout.stage {
        Stage::NoRollout => not("NoRollout", "no change of the proxies is under way".to_owned()),
        Stage::Complete => not("Complete", "every proxy is as spec.proxy says".to_owned()),
        Stage::Rolling { updated, nodes, lost } => {
            let away = match lost {
                0 => String::new(),
                lost => format!("; {lost} seem to be away, and get theirs when they are back"),
            };
            not("Rolling", format!("{updated} of {nodes} nodes have their new proxy{away}"))
        }
        Stage::Paused(record) => {
            Verdict::new(ROLLOUT_PAUSED, true, "NewProxyFails", record.told(observed.namespace))
        }
    }
}

fn dns(observed: &Observed<'_>) -> Verdict {
    let (holds, reason, message) = match &observed.dns.state {
        DnsState::Configured(by, message) => (true, *by, message),
        DnsState::Manual(message) => (true, MANUAL, message),
        DnsState::Propagating(message) => (false, "Propagating", message),
        DnsState::Behind(message) => (false, "NotTakenUp", message),
        DnsState::ByHand(message) => (false, "ByHand", message),
        DnsState::Conflict(message) => (false, "Conflict", message),
        DnsState::Failed(message) => (false, "DNSFailed", message),
        DnsState::NoDomain(stands) => {
            let taken = observed.rival.map(ToString::to_string).unwrap_or_default();
            let stands = stands.as_ref().map(|why| format!(". Its lines are still in DNS: {why}"));
            let message = format!("{taken}{}", stands.unwrap_or_default());
            return Verdict::new(DNS_CONFIGURED, false, DOMAIN_TAKEN, message);
        }
    };
    Verdict::new(DNS_CONFIGURED, holds, reason, message.as_str())
}

fn holds((_, status): &Told, digest: &str) -> bool {
    status.as_ref().is_some_and(|status| status.digest == digest)
}

fn synced(observed: &Observed<'_>) -> Verdict {
    match observed.told.iter().find(|told| !holds(told, observed.digest)) {
        None if observed.told.is_empty() => {
            Verdict::new(CONFIG_SYNCED, false, "NoProxies", "there is no proxy yet")
        }
        None => Verdict::new(CONFIG_SYNCED, true, "InSync", "every proxy holds the current configuration"),
        Some((pod, None)) => Verdict::new(
            CONFIG_SYNCED,
            false,
            "NoAnswer",
            format!("the proxy on node {} does not answer", pod.node),
        ),
        Some((pod, Some(status))) if !status.rejections.is_empty() => {
            let all = status.rejections.iter().map(|r| format!("{}: {}", r.resource, r.reason));
            let message =
                format!("the proxy on node {} refuses {}", pod.node, all.collect::<Vec<_>>().join("; "));
            Verdict::new(CONFIG_SYNCED, false, "Rejected", message)
        }
        Some((pod, Some(status))) => {
            let (reason, link) = if status.connected {
                ("Behind", "connected")
            } else {
                ("NotConnected", "not connected to an operator")
            };
            let message = format!("the proxy on node {} holds an older configuration ({link})", pod.node);
            Verdict::new(CONFIG_SYNCED, false, reason, message)
        }
    }
}

fn degraded(observed: &Observed<'_>, paused: bool, others: [&Verdict; 2]) -> Verdict {
    let failures = &observed.counts.failures;
    let rejected =
        observed.told.iter().flat_map(|(_, status)| status).any(|status| !status.rejections.is_empty());
    match (failures.values().next(), observed.daemonset) {
        (Some(first), _) if failures.len() == 1 => Verdict::new(DEGRADED, true, "ShadowServices", &**first),
        (Some(first), _) => {
            let message = format!("{first} (and {} more Services)", failures.len() - 1);
            Verdict::new(DEGRADED, true, "ShadowServices", message)
        }
        _ if !observed.problems.is_empty() => {
            Verdict::new(DEGRADED, true, "InvalidDefaults", observed.problems.join("; "))
        }
        (_, Err(error)) => Verdict::new(DEGRADED, true, "NotApplied", &**error),
        _ if let Some(rival) = observed.rival => {
            Verdict::new(DEGRADED, true, rival.reason(), rival.to_string())
        }
        _ if paused => Verdict::new(
            DEGRADED,
            true,
            "RolloutPaused",
            "a change of the proxies was stopped: see RolloutPaused",
        ),
        _ if rejected => {
            Verdict::new(DEGRADED, true, "Rejected", "a proxy refuses a resource: see ConfigSynced")
        }
        _ => match others.iter().find(|one| !one.holds && FOR_A_PERSON.contains(&&*one.reason)) {
            Some(other) => Verdict::new(DEGRADED, true, &*other.reason, &*other.message),
            None => Verdict::new(DEGRADED, false, "AllWell", "nothing needs a person"),
        },
    }
}

/// Times change only when the condition does (Kubernetes API conventions).
fn conditions(
    verdicts: &[Verdict],
    generation: Option<i64>,
    before: &[Condition],
    now: &Time,
) -> Vec<Condition> {
    let condition = |verdict: &Verdict| {
        let status = if verdict.holds { "True" } else { "False" };
        let known = before.iter().find(|known| known.type_ == verdict.kind && known.status == status);
        Condition {
            type_: verdict.kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.clone(),
            message: verdict.message.clone(),
            observed_generation: generation,
            last_transition_time: known
                .map_or_else(|| now.clone(), |known| known.last_transition_time.clone()),
        }
    };
    verdicts.iter().map(condition).collect()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
