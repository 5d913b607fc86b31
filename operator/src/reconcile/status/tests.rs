use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use weft_config::ServiceId;
use weft_config::status::{ProxyStatus, Rejection};
use weft_crds::meshconfig::DnsFound;

use super::super::rollout::Strategy;
use super::super::rollout::record::Record;
use super::*;
use crate::index::ProxyPod;

fn daemonset(desired: i32, ready: i32, updated: i32) -> Result<DaemonSet, String> {
    let status = serde_json::json!({"desiredNumberScheduled": desired, "numberReady": ready, "numberMisscheduled": 0,
        "currentNumberScheduled": desired, "updatedNumberScheduled": updated, "observedGeneration": 1});
    let object = serde_json::json!({"metadata": {"generation": 1}, "status": status});
    serde_json::from_value(object).map_err(|error| error.to_string())
}

fn told(node: &str, digest: &str, rejected: bool) -> Told {
    let pod = ProxyPod { node: node.into(), address: [10, 0, 0, 1].into(), ready: true };
    let rejection = Rejection { resource: "Service shop/cart".into(), reason: "no".into() };
    let rejections = if rejected { vec![rejection] } else { vec![] };
    (pod, Some(ProxyStatus { digest: digest.into(), rejections, connected: true, ..ProxyStatus::default() }))
}

fn time(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn standing(state: DnsState) -> Standing {
    let found = DnsFound { provider: "CoreDNS".into(), version: "1.14.6".into(), ..DnsFound::default() };
    Standing { found, state }
}

fn configured() -> Standing {
    standing(DnsState::Configured("CoreDNS", "every DNS pod answers for the mesh domains".into()))
}

/// A mesh without Services of which nobody has said anything.
fn observed<'a>(
    daemonset: &'a Result<DaemonSet, String>,
    dns: &'a Standing,
    counts: &'a Counts,
) -> Observed<'a> {
    Observed {
        generation: Some(1),
        daemonset,
        rollout: None,
        namespace: "weft-system",
        dns,
        told: &[],
        digest: "d",
        counts,
        problems: &[],
        rival: None,
        services: 0,
        shadows: 0,
        smi: SmiCounts::default(),
    }
}

fn summary(daemonset: &Result<DaemonSet, String>, dns: &Standing, told: &[Told], counts: &Counts) -> String {
    rolled(daemonset, dns, told, counts, None)
}

fn rolled(
    daemonset: &Result<DaemonSet, String>,
    dns: &Standing,
    told: &[Told],
    counts: &Counts,
    rollout: Option<&Decision>,
) -> String {
    let observed = Observed { rollout, told, services: 3, shadows: 3, ..observed(daemonset, dns, counts) };
    let status = of(&observed, &MeshConfigStatus::default(), &time(0));
    let lines =
        status.conditions.iter().map(|c| format!("{} {} {}: {}", c.type_, c.status, c.reason, c.message));
    lines.collect::<Vec<_>>().join("\n")
}

fn record() -> Record {
    Record {
        template: "t".into(),
        node: "node1".into(),
        pod: "weft-proxy-x".into(),
        image: "weft-proxy:bad".into(),
        reason: "CrashLoopBackOff".into(),
        message: "it ended with exit code 1 (Error)".into(),
    }
}

#[test]
fn people_read_how_it_stands() {
    let well = configured();
    let none = Counts::default();
    let failing = Counts {
        failures: BTreeMap::from([
            (ServiceId::new("a", "b"), "Service a/b port 80 gets no listen port".to_owned()),
            (ServiceId::new("c", "d"), "other".to_owned()),
        ]),
        ..Counts::default()
    };
    let in_sync = [told("node1", "d", false), told("node2", "d", false)];
    let rollout = |stage| Decision { strategy: Strategy::Hold, stage, served: 2 };
    let half = rollout(Stage::Rolling { updated: 1, nodes: 2, lost: 0 });
    let paused = rollout(Stage::Paused(record()));
    let mut text = String::new();
    for (title, summary) in [
        ("all well", summary(&daemonset(2, 2, 2), &well, &in_sync, &none)),
        (
            "starting",
            summary(
                &daemonset(2, 1, 2),
                &standing(DnsState::Propagating("DNS pod 1 waits".into())),
                &[],
                &none,
            ),
        ),
        // The old proxy of a node drains: the DaemonSet counts it as not ready.
        ("rolling", rolled(&daemonset(2, 1, 1), &well, &in_sync, &none, Some(&half))),
        ("stopped", rolled(&daemonset(2, 2, 1), &well, &in_sync, &none, Some(&paused))),
        ("a proxy behind", summary(&daemonset(2, 2, 2), &well, &[told("node1", "old", false)], &none)),
        ("refused", summary(&daemonset(2, 2, 2), &well, &[told("node1", "old", true)], &none)),
        (
            "dns broken",
            summary(
                &daemonset(2, 2, 2),
                &standing(DnsState::Failed("ConfigMap kube-system/coredns: gone".into())),
                &in_sync,
                &none,
            ),
        ),
        (
            "dns fought over",
            summary(
                &daemonset(2, 2, 2),
                &standing(DnsState::Conflict("argocd undoes it".into())),
                &in_sync,
                &none,
            ),
        ),
        (
            "dns not taken up",
            summary(
                &daemonset(2, 2, 2),
                &standing(DnsState::Behind("DNS pod 1 waits".into())),
                &in_sync,
                &none,
            ),
        ),
        (
            "dns by hand",
            summary(&daemonset(2, 2, 2), &standing(DnsState::ByHand("tell it".into())), &in_sync, &none),
        ),
        (
            "dns left alone",
            summary(&daemonset(2, 2, 2), &standing(DnsState::Manual("add this".into())), &in_sync, &none),
        ),
        (
            "daemonset refused",
            summary(&Err("DaemonSet weft-system/weft-proxy: invalid".into()), &well, &in_sync, &none),
        ),
        ("no nodes, ports out", summary(&daemonset(0, 0, 0), &well, &[], &failing)),
    ] {
        text += &format!("== {title}\n{summary}\n");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn times_change_only_when_the_condition_does() {
    let (daemonset, dns, counts) = (daemonset(1, 1, 1), configured(), Counts::default());
    let observed = observed(&daemonset, &dns, &counts);
    let first = of(&observed, &MeshConfigStatus::default(), &time(10));
    let second = of(&observed, &first, &time(20));
    assert_eq!(first, second);
    let broken = standing(DnsState::Failed("gone".into()));
    let third = of(&Observed { dns: &broken, ..observed }, &second, &time(30));
    let at = |status: &MeshConfigStatus, kind| {
        status.conditions.iter().find(|c| c.type_ == kind).unwrap().last_transition_time.clone()
    };
    assert_eq!(
        (at(&third, DNS_CONFIGURED), at(&third, READY), at(&third, PROXIES_READY)),
        (time(30), time(30), time(10))
    );
}

#[test]
fn what_was_stopped_is_said_to_be_while_the_daemonset_cannot_be_written() {
    let (written, refused) =
        (daemonset(2, 2, 1), Err("DaemonSet weft-system/weft-proxy: invalid".to_owned()));
    let (dns, counts) = (configured(), Counts::default());
    let stopped = Decision { strategy: Strategy::Hold, stage: Stage::Paused(record()), served: 2 };
    let observed = Observed { rollout: Some(&stopped), ..observed(&written, &dns, &counts) };
    let first = of(&observed, &MeshConfigStatus::default(), &time(10));
    let second = of(&Observed { daemonset: &refused, rollout: None, ..observed }, &first, &time(20));
    let find = |status: &MeshConfigStatus, kind| {
        status.conditions.iter().find(|condition| condition.type_ == kind).cloned().unwrap()
    };
    assert_eq!(find(&second, ROLLOUT_PAUSED), find(&first, ROLLOUT_PAUSED));
    assert_eq!(find(&second, ROLLOUT_PAUSED).status, "True");
    let degraded = find(&second, DEGRADED);
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "NotApplied"));
}

#[test]
fn who_is_told_of_trouble_is_not_told_of_what_passes() {
    let condition = |kind: &str, status: &str, reason: &str| Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: time(0),
    };
    let passing = |reason: &str, rollout: &str, ready: Option<&str>| {
        let one = condition(CONFIG_SYNCED, "False", reason);
        let before: Vec<_> = ready.map(|status| condition(CONFIG_SYNCED, status, "")).into_iter().collect();
        is_passing(&one, &[condition(ROLLOUT_PAUSED, "False", rollout)], &before)
    };
    assert!(passing("Propagating", "NoRollout", Some("True")));
    assert!(passing("NoAnswer", "NoRollout", None), "it is being installed");
    assert!(passing("NoAnswer", "Rolling", Some("True")) && passing("NoAnswer", "NoRollout", Some("False")));
    assert!(!passing("NoAnswer", "NoRollout", Some("True")));
    assert!(!passing("DNSFailed", "Rolling", None));
}

#[test]
fn what_needs_a_person_is_told_wherever_it_is() {
    let none = Counts::default();
    let degraded = |daemonset: &Result<DaemonSet, String>, state: DnsState| {
        let lines = summary(daemonset, &standing(state), &[], &none);
        lines.lines().find(|line| line.starts_with(DEGRADED)).unwrap().to_owned()
    };
    let well = daemonset(2, 2, 2);
    let failed = DnsState::Failed("set spec.clusterDomain to corp.local".into());
    assert_eq!(degraded(&well, failed), "Degraded True DNSFailed: set spec.clusterDomain to corp.local");
    let passes = DnsState::Propagating("not yet".into());
    assert_eq!(degraded(&well, passes.clone()), "Degraded False AllWell: nothing needs a person");
    assert!(degraded(&daemonset(0, 0, 0), passes).starts_with("Degraded True NoNodes: no node matches"));
}
