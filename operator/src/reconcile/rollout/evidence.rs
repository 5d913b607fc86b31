//! When a new proxy has failed. Pure.
//!
//! Only pods that came with the rollout are looked at: on a new node, on one that was restarted, or in the place of an evicted
//! pod a proxy may be in trouble for reasons of the node's, and one that was there before what is rolled back has a life behind
//! it. And only while there is an old proxy left to keep.

use std::time::Duration;

use super::record::Record;
use super::{Carried, Pace, Seen};

/// What no waiting mends.
const FOR_GOOD: [&str; 3] = ["InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"];
/// A container that was started again so often ends again and again. Once may be the node's restart.
const MOST_RESTARTS: u32 = 2;
/// The shortest time after which a ready proxy that does not say what it holds has failed.
const SILENCE: Duration = Duration::from_secs(5);
/// Fewer requests say nothing.
const LEAST_REQUESTS: u64 = 50;
/// Fewer failures may be chance.
const LEAST_FAILURES: u64 = 10;
/// Of a thousand requests so many more must fail than elsewhere, and twice as many.
const MARGIN: u64 = 50;

/// The first pod that has failed, and why.
pub fn of(wanted: &str, pods: &[Seen], pace: Pace) -> Option<Record> {
    let old: Vec<_> = pods.iter().filter(|pod| !pod.current && !pod.leaving).collect();
    if old.is_empty() {
        return None;
    }
    let mut new = pods.iter().filter(|pod| pod.current && !pod.leaving);
    new.find_map(|pod| {
        let (reason, message) = failure(pod, &old, pace)?;
        Some(Record {
            template: wanted.to_owned(),
            node: pod.node.to_string(),
            pod: pod.name.to_string(),
            image: pod.image.to_string(),
            reason,
            message,
        })
    })
}

/// Why `pod` has failed, if it has: a reason and a sentence.
fn failure(pod: &Seen, old: &[&Seen], pace: Pace) -> Option<(String, String)> {
    if !pod.surged {
        return None;
    }
    let beside = old.iter().any(|old| old.node == pod.node);
    let told = |reason: &str, message: String| Some((reason.to_owned(), message));
    let (reason, message) =
        pod.trouble.as_ref().map_or(("", ""), |(reason, message)| (reason.as_str(), message.as_str()));
    if reason == "CrashLoopBackOff" || pod.restarts >= MOST_RESTARTS {
        let what = if message.is_empty() { "it ends again and again" } else { message };
        return told("CrashLoopBackOff", what.to_owned());
    }
    if !pod.ready {
        // One that was ready and is alone now may have lost its node.
        if !beside {
            return None;
        }
        let patience = match reason {
            reason if FOR_GOOD.contains(&reason) => Duration::ZERO,
            // A registry may be away for a moment.
            "" => pace.patience,
            _ => pace.patience / 2,
        };
        // Where the kubelet says nothing, and the old one is not ready either, it may be the node that is away: nothing is lost.
        let nothing_to_lose = reason.is_empty() && !old.iter().any(|old| old.node == pod.node && old.ready);
        if pod.so_for < patience || nothing_to_lose {
            return None;
        }
        return match reason {
            "" => told("NotReady", format!("it was not ready within {} s", pace.patience.as_secs())),
            reason => told(reason, message.to_owned()),
        };
    }
    refused(pod, old).or_else(|| silent(pod, old, pace)).or_else(|| failing(pod, old))
}

/// It refuses what no old one refuses, nor the one did that it came for.
fn refused(pod: &Seen, old: &[&Seen]) -> Option<(String, String)> {
    let by_old: Vec<_> = old.iter().filter_map(|old| old.rejections.as_ref()).collect();
    if by_old.is_empty() {
        return None;
    }
    let known = |resource: &String| {
        by_old.iter().any(|known| known.contains_key(resource)) || pod.refused_before.contains(resource)
    };
    let mut refused = pod.rejections.as_ref()?.iter();
    let (resource, why) = refused.find(|(resource, _)| !known(resource))?;
    Some(("ConfigRejected".to_owned(), format!("it refuses {resource}, which the others take: {why}")))
}

/// It does not say what it holds, and the old ones do.
fn silent(pod: &Seen, old: &[&Seen], pace: Pace) -> Option<(String, String)> {
    let answered = old.iter().any(|old| old.rejections.is_some());
    let silent = pod.rejections.is_none() && pod.silent_for >= pace.observe.max(SILENCE);
    let message =
        || format!("it is ready, but does not say what it holds for {} s", pod.silent_for.as_secs());
    (answered && silent).then(|| ("NoAnswer".to_owned(), message()))
}

/// It fails more of what it carries than the others do, and than its node's former proxy did: what a node's pods call may be
/// broken for all.
fn failing(pod: &Seen, old: &[&Seen]) -> Option<(String, String)> {
    let Carried { requests, failures } = pod.carried;
    if requests < LEAST_REQUESTS || failures < LEAST_FAILURES {
        return None;
    }
    let others = old.iter().fold(Carried::default(), |sum, old| sum.and(old.carried)).per_thousand();
    let same_node = old.iter().filter(|old| old.node == pod.node).map(|old| old.carried.per_thousand());
    let usual = same_node.chain([others, many(old), pod.before.per_thousand()]).max().unwrap_or(0);
    let now = pod.carried.per_thousand();
    let message = || {
        format!(
            "it failed {failures} of {requests} requests, {} %; the proxies before it fail {} %",
            tenths(now),
            tenths(usual)
        )
    };
    (now >= usual + MARGIN && now >= 2 * usual).then(|| ("RequestsFail".to_owned(), message()))
}

/// What more than a tenth of the old ones fail, or more. Where those that call what is broken are on some nodes, the average of all
/// says little; and one node is always in trouble somewhere.
fn many(old: &[&Seen]) -> u64 {
    let counts = old.iter().filter(|old| old.carried.requests >= LEAST_REQUESTS);
    let mut rates: Vec<_> = counts.map(|old| old.carried.per_thousand()).collect();
    rates.sort_unstable_by(|a, b| b.cmp(a));
    rates.get(rates.len().div_ceil(10)).copied().unwrap_or(0)
}

/// Of a thousand, as per cent.
fn tenths(per_thousand: u64) -> String {
    format!("{}.{}", per_thousand / 10, per_thousand % 10)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::tests::{new, old};
    use super::*;

    const PACE: Pace = Pace { observe: Duration::from_secs(5), patience: Duration::from_secs(60) };

    fn why(pod: Seen, old: &[Seen]) -> Option<String> {
        let pods: Vec<_> = std::iter::once(pod).chain(old.iter().cloned()).collect();
        of("t2", &pods, PACE).map(|record| format!("{}: {}", record.reason, record.message))
    }

    fn away(reason: &str, seconds: u64) -> Seen {
        let trouble = (!reason.is_empty()).then(|| (reason.to_owned(), "as the kubelet says".to_owned()));
        Seen { ready: false, so_for: Duration::from_secs(seconds), trouble, rejections: None, ..new("a") }
    }

    #[test]
    fn what_stops_a_rollout_and_after_what_time() {
        let both = [old("a"), old("b")];
        for (reason, seconds, stops) in [
            ("", 59, false),
            ("", 60, true),
            ("ImagePullBackOff", 29, false),
            ("ImagePullBackOff", 30, true),
            ("Unschedulable", 30, true),
            ("InvalidImageName", 0, true),
            ("CrashLoopBackOff", 0, true),
        ] {
            assert_eq!(why(away(reason, seconds), &both).is_some(), stops, "{reason} after {seconds} s");
        }
        assert_eq!(why(new("a"), &both), None);
        let text = why(away("", 60), &both).unwrap();
        assert_eq!(text, "NotReady: it was not ready within 60 s");
        let text = why(away("ImagePullBackOff", 30), &both).unwrap();
        assert_eq!(text, "ImagePullBackOff: as the kubelet says");
    }

    #[test]
    fn what_is_the_node_s_is_not_the_rollout_s() {
        let elsewhere = [old("b")];
        // A node that came new, or whose pod was evicted: there is no old proxy beside it, and there was none.
        let fresh = |seen: Seen| Seen { surged: false, ..seen };
        assert_eq!(why(fresh(away("CrashLoopBackOff", 90)), &elsewhere), None);
        assert_eq!(why(fresh(away("", 90)), &elsewhere), None);
        // A node that was restarted after it had its new proxy.
        assert_eq!(why(away("", 90), &elsewhere), None);
        assert_eq!(why(Seen { restarts: 1, ..away("", 90) }, &elsewhere), None);
        // A node that is away altogether: its old proxy is not ready either, and nobody says why the new one is not.
        let lost = Seen { ready: false, rejections: None, ..old("a") };
        assert_eq!(why(away("", 90), &[lost.clone(), old("b")]), None);
        assert!(why(away("ErrImagePull", 90), &[lost, old("b")]).is_some(), "the kubelet is there");
        // But one that ends again and again is the new proxy's fault.
        assert!(why(Seen { restarts: 2, ..new("a") }, &elsewhere).unwrap().starts_with("CrashLoopBackOff"));
        assert_eq!(why(away("CrashLoopBackOff", 0), &[]), None, "there is nothing left to keep");
    }

    #[test]
    fn refusing_what_the_others_take_stops_it() {
        let refusing = |mut seen: Seen, resource: &str| {
            seen.rejections = Some(BTreeMap::from([(resource.to_owned(), "no".to_owned())]));
            seen
        };
        let text = why(refusing(new("a"), "Service shop/cart"), &[old("b")]).unwrap();
        assert_eq!(text, "ConfigRejected: it refuses Service shop/cart, which the others take: no");
        let alike = refusing(old("b"), "Service shop/cart");
        assert_eq!(why(refusing(new("a"), "Service shop/cart"), std::slice::from_ref(&alike)), None);
        assert!(why(refusing(new("a"), "Service shop/pay"), &[alike]).is_some());
        let known = Seen { refused_before: BTreeSet::from(["Service shop/cart".to_owned()]), ..new("a") };
        assert_eq!(why(refusing(known, "Service shop/cart"), &[old("b")]), None, "so did its predecessor");
        let unheard = Seen { rejections: None, ..old("b") };
        assert_eq!(why(refusing(new("a"), "Service shop/cart"), &[unheard]), None, "who knows");
    }

    #[test]
    fn silence_stops_it_unless_all_are_silent() {
        let silent =
            |seconds| Seen { rejections: None, silent_for: Duration::from_secs(seconds), ..new("a") };
        assert_eq!(why(silent(4), &[old("b")]), None);
        assert!(why(silent(5), &[old("b")]).unwrap().starts_with("NoAnswer"));
        assert_eq!(why(silent(50), &[Seen { rejections: None, ..old("b") }]), None, "we cannot reach them");
    }

    #[test]
    fn failing_clearly_more_than_the_others_stops_it() {
        let with = |seen: Seen, requests, failures| Seen { carried: Carried { requests, failures }, ..seen };
        let text = why(with(new("a"), 100, 20), &[with(old("b"), 1000, 2)]).unwrap();
        assert_eq!(
            text,
            "RequestsFail: it failed 20 of 100 requests, 20.0 %; the proxies before it fail 0.2 %"
        );
        for (requests, failures, others) in [(49, 49, 0), (100, 9, 0), (1000, 49, 0), (100, 20, 11)] {
            let old = [with(old("b"), 100, others)];
            assert_eq!(why(with(new("a"), requests, failures), &old), None, "{failures} of {requests}");
        }
        // More than a tenth of the others fail as much, in a large mesh; one alone is no excuse.
        let others = |failing: usize| -> Vec<_> {
            let names = ["b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
            let one =
                |(n, name)| if n < failing { with(old(name), 100, 30) } else { with(old(name), 10_000, 0) };
            names.into_iter().enumerate().map(one).collect()
        };
        assert_eq!(why(with(new("a"), 100, 40), &others(3)), None);
        assert!(why(with(new("a"), 100, 40), &others(2)).is_some());
        assert!(
            why(with(new("a"), 100, 40), &[with(old("b"), 100, 30), with(old("c"), 10_000, 0)]).is_some()
        );
        // What the pods of this node call was broken before.
        let before = Carried { requests: 100, failures: 30 };
        assert_eq!(why(Seen { before, ..with(new("a"), 100, 40) }, &[old("b")]), None);
        let beside = [with(old("a"), 100, 40), with(old("b"), 1000, 0)];
        assert_eq!(why(with(new("a"), 100, 40), &beside), None, "and is for the old one as well");
    }
}
