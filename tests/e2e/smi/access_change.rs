//! A change of what is allowed, under load from both whom it concerns: every request is answered by the old rules or by the
//! new ones, and never by a bit of both.

use weft_tests::cluster;
use weft_tests::probe::{Change, Probe, now_us};
use weft_tests::smi;
use weft_tests::smi::target;
use weft_tests::wait::seconds;

use crate::scene;

/// How often the rules are changed.
const CHANGES: usize = 30;

fn is(allowed: bool) -> impl Fn(&Change) -> bool {
    move |change| if allowed { change.pod().is_some() } else { change.error() == Some("status 403") }
}

#[test]
fn every_request_is_answered_by_the_old_rules_or_by_the_new() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-policy-change").await?;
        // One of the two may call, always exactly one. Both are on one node, so one proxy judges them.
        let names = ["alice", "bob"];
        let only = |turn: usize| target("turn", &[names[turn % 2]], "api", &[]);
        let url = stage.url("api", "/");
        stage.apply(&[only(0)]).await?;
        stage.answers("alice", "api", "/", &[], 200).await?;
        stage.answers("bob", "api", "/", &[], 403).await?;
        let mut probes = Vec::new();
        for name in names {
            probes.push(Probe::start(&cluster, stage.caller(name)?, &url).await?);
        }
        probes[0].sees("alice passes", 0, seconds(20), is(true)).await?;
        probes[1].sees("bob is denied", 0, seconds(20), is(false)).await?;
        let mut slowest = 0;
        for turn in 1..=CHANGES {
            let began = now_us()?;
            smi::apply(&cluster, &stage.ns, &only(turn)).await?;
            let written = now_us()?;
            let (now, before) = (turn % 2, (turn + 1) % 2);
            let passes = probes[now].sees("the one passes", began, seconds(20), is(true)).await?;
            let denied = probes[before].sees("the other is denied", began, seconds(20), is(false)).await?;
            slowest = slowest.max(passes.answered_us.max(denied.answered_us).saturating_sub(written));
            assert!(
                denied.before_us <= passes.answered_us,
                "change {turn}: both were allowed at a time: {denied:?} after {passes:?}"
            );
            assert!(
                passes.before_us <= denied.answered_us,
                "change {turn}: nobody was allowed at a time: {passes:?} after {denied:?}"
            );
        }
        eprintln!("  {CHANGES} changes, in force at most {slowest} us after they were written");
        // Nothing else was ever answered, and no answer came back once more.
        for probe in probes {
            let changes = probe.stop().await?;
            assert!(changes.iter().all(|change| is(true)(change) || is(false)(change)), "{changes:?}");
            assert_eq!(
                changes.len(),
                CHANGES + 1,
                "an answer changed more often than the rules: {changes:?}"
            );
        }
        stage.strike().await
    });
}

#[test]
fn a_denial_that_is_allowed_later_leaves_no_trace_on_the_connection() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-same-connection").await?;
        stage.answers("alice", "api", "/", &[], 403).await?;
        let probe = Probe::start(&cluster, stage.caller("alice")?, &stage.url("api", "/")).await?;
        probe.sees("she is denied", 0, seconds(20), is(false)).await?;
        let since = now_us()?;
        stage.apply(&[target("alice", &["alice"], "api", &[])]).await?;
        probe.sees("she passes", since, seconds(20), is(true)).await?;
        let changes = probe.stop().await?;
        assert_eq!(changes.len(), 2, "{changes:?}");
        stage.strike().await
    });
}
