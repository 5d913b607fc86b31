//! A proxy pod of the simulated cluster, good or bad in its way.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use weft_config::status::{ProxyStatus, Rejection};

use crate::index::ProxyPod;
use crate::index::proxy_pods::ProxyFacts;
use crate::reconcile::proxies::Told;

/// How the proxies of a template are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Good,
    NoImage,
    NeverReady,
    Crashes,
    Refuses,
    Silent,
    Fails,
}

pub(super) const BAD: [Kind; 6] =
    [Kind::NoImage, Kind::NeverReady, Kind::Crashes, Kind::Refuses, Kind::Silent, Kind::Fails];

#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) uid: u64,
    pub(super) node: usize,
    pub(super) template: String,
    pub(super) kind: Kind,
    pub(super) born: u64,
    pub(super) ready_since: Option<u64>,
    pub(super) leaving_since: Option<u64>,
    pub(super) restarts: u32,
    /// Away until then, since its node is.
    pub(super) away_until: u64,
    pub(super) carried: (u64, u64),
}

impl Pod {
    pub(super) fn available(&self, now: u64, min_ready: u64) -> bool {
        self.ready_since.is_some_and(|since| now - since >= min_ready)
    }

    /// Takes traffic and carries it.
    pub(super) fn serves(&self) -> bool {
        self.leaving_since.is_none() && self.ready_since.is_some() && self.kind == Kind::Good
    }

    pub(super) fn tick(&mut self, now: u64) {
        let starts = now >= self.born + 2 && now >= self.away_until;
        let can = !matches!(self.kind, Kind::NoImage | Kind::NeverReady | Kind::Crashes);
        if self.leaving_since.is_some() || !starts || !can {
            self.ready_since = None;
        } else if self.ready_since.is_none() {
            self.ready_since = Some(now);
        }
        if self.kind == Kind::Crashes && starts && now.is_multiple_of(5) {
            self.restarts += 1;
        }
        if self.ready_since.is_some() {
            let (requests, failures) = &mut self.carried;
            *requests += 40;
            *failures += if self.kind == Kind::Fails { 20 } else { u64::from(now.is_multiple_of(7)) };
        }
    }

    pub(super) fn address(&self) -> std::net::IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(self.uid).unwrap()).into()
    }

    pub(super) fn facts(&self, now: u64) -> Arc<ProxyFacts> {
        let trouble = |reason: &str| Some((reason.to_owned(), "because".to_owned()));
        Arc::new(ProxyFacts {
            name: format!("p{}", self.uid).into(),
            uid: self.uid.to_string().into(),
            created: Timestamp::from_second(self.born.try_into().unwrap()).unwrap(),
            node: format!("n{}", self.node).into(),
            address: Some(self.address()),
            template: self.template.clone(),
            image: "i".into(),
            leaving: self.leaving_since.is_some(),
            ready: self.ready_since.is_some(),
            trouble: match self.kind {
                Kind::NoImage if now > self.born => trouble("ImagePullBackOff"),
                Kind::Crashes if self.restarts > 0 => trouble("CrashLoopBackOff"),
                _ => None,
            },
            restarts: self.restarts,
        })
    }

    pub(super) fn told(&self) -> Told {
        let pod = ProxyPod { node: format!("n{}", self.node), address: self.address(), ready: true };
        let refusal = Rejection { resource: "Service a/b".into(), reason: "no".into() };
        let status = ProxyStatus {
            requests: self.carried.0,
            failures: self.carried.1,
            rejections: if self.kind == Kind::Refuses { vec![refusal] } else { vec![] },
            ..ProxyStatus::default()
        };
        (pod, (self.ready_since.is_some() && self.kind != Kind::Silent).then_some(status))
    }
}
