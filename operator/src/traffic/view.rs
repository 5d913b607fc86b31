//! Answers a question from the edges and the cluster.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::core::{Selector, SelectorExt};
use weft_config::edges::{EdgeFigures, ServiceName};

use super::Kind;
use super::cluster::Cluster;
use super::document::{Backend, Direction, Document, Edge, Peer, Side, TrafficMetrics, TrafficMetricsList};
use super::figures::Figures;
use super::gather::Gathered;
use super::kind::{NAMESPACE, NODE, Reference, SERVICE, TRAFFIC_SPLIT};
use crate::index::pods::PodFacts;
use crate::smi::Name;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Of which kind.
    pub kind: Kind,
    /// In which namespace; `None`: in all, or the kind has none.
    pub namespace: Option<String>,
    /// Of which object or objects.
    pub subject: Subject,
}

/// Which object or objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// All that the selector selects.
    All(Selector),
    /// One, by its name.
    One(String),
    /// The edges of one, by its name.
    Edges(String),
}

/// Why there is no answer. The text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such object.
    #[error("{0} \"{1}\" not found, or no pod of it has an address of its own")]
    NotFound(&'static str, String),
    /// Labels of such objects are not known.
    #[error("labelSelector selects by the labels of pods; {0} have none")]
    NoLabels(&'static str),
}

/// Answers `ask`.
pub fn answer(cluster: &Cluster, gathered: &Gathered, ask: &Ask) -> Result<Document, Refusal> {
    let view = View { cluster, edges: &gathered.edges, end: gathered.end, kind: ask.kind };
    let namespace = ask.namespace.as_deref();
    match &ask.subject {
        Subject::All(selector) => {
            let items = view.list(namespace, selector)?;
            let resource = Reference { name: None, ..ask.kind.reference(namespace, "") };
            let shown = (!selector.selects_all()).then(|| selector.clone().into());
            Ok(Document::List(Box::new(TrafficMetricsList::new(resource, shown, items))))
        }
        Subject::One(name) => {
            let one = view.one(namespace, name)?;
            let mut items = view.inbound(std::slice::from_ref(&one));
            match items.pop() {
                // A split has one for each of its shares.
                Some(item) if ask.kind != TRAFFIC_SPLIT => Ok(Document::One(Box::new(item))),
                last => {
                    items.extend(last);
                    Ok(Document::List(Box::new(TrafficMetricsList::new(one, None, items))))
                }
            }
        }
        Subject::Edges(name) => {
            let one = view.one(namespace, name)?;
            let items = view.edges_of(&one);
            Ok(Document::List(Box::new(TrafficMetricsList::new(one, None, items))))
        }
    }
}

struct View<'a> {
    cluster: &'a Cluster,
    edges: &'a [EdgeFigures],
    end: Timestamp,
    kind: Kind,
}

/// What an item is about, besides its object: a share of a split, by name.
type Share = Option<String>;

impl View<'_> {
    fn one(&self, namespace: Option<&str>, name: &str) -> Result<Reference, Refusal> {
        let wanted = self.kind.reference(namespace, name);
        let known = self.cluster.objects(self.kind, namespace).contains_key(&wanted);
        known.then_some(wanted).ok_or_else(|| Refusal::NotFound(self.kind.plural, name.to_owned()))
    }

    fn list(&self, namespace: Option<&str>, selector: &Selector) -> Result<Vec<TrafficMetrics>, Refusal> {
        if !selector.selects_all() && matches!(self.kind, NAMESPACE | NODE | SERVICE | TRAFFIC_SPLIT) {
            return Err(Refusal::NoLabels(self.kind.plural));
        }
        let selected =
            |pods: &[&PodFacts]| selector.selects_all() || pods.iter().any(|pod| selects(selector, pod));
        let objects = self.cluster.objects(self.kind, namespace).into_iter();
        let objects: Vec<_> = objects.filter(|(_, pods)| selected(pods)).map(|(object, _)| object).collect();
        Ok(self.inbound(&objects))
    }

    /// What each of `objects` was asked, by everybody.
    fn inbound(&self, objects: &[Reference]) -> Vec<TrafficMetrics> {
        let mut sums: BTreeMap<(Reference, Share), Figures> = BTreeMap::new();
        for object in objects {
            for share in self.shares(object) {
                sums.insert((object.clone(), share), Figures::default());
            }
        }
        for edge in self.edges {
            if let Some(sum) = self.called(edge).and_then(|called| sums.get_mut(&called)) {
                sum.add(edge);
            }
        }
        let item = |((object, share), figures): ((Reference, Share), Figures)| {
            let backend = share.and_then(|share| self.backend(&object, &share));
            self.item(object, Direction::From, Peer::All {}, backend, &figures)
        };
        sums.into_iter().map(item).collect()
    }

    /// Between `one` and each of its peers.
    fn edges_of(&self, one: &Reference) -> Vec<TrafficMetrics> {
        let mut sums: BTreeMap<(Direction, Reference, Share), Figures> = BTreeMap::new();
        for edge in self.edges {
            let from = self.cluster.pod_at(edge.source).and_then(|pod| self.kind.object_of(pod));
            if from.as_ref() == Some(one)
                && let Some(to) = edge.endpoint.and_then(|to| self.cluster.peer(self.kind, to.ip()))
            {
                sums.entry((Direction::To, to, None)).or_default().add(edge);
            }
            if let Some((_, share)) = self.called(edge).filter(|(called, _)| called == one)
                && let Some(from) = self.cluster.peer(self.kind, edge.source)
            {
                sums.entry((Direction::From, from, share)).or_default().add(edge);
            }
        }
        let item = |((direction, peer, share), figures): ((Direction, Reference, Share), Figures)| {
            let backend = share.and_then(|share| self.backend(one, &share));
            self.item(one.clone(), direction, Peer::One(peer), backend, &figures)
        };
        sums.into_iter().map(item).collect()
    }

    /// The object an edge leads to.
    fn called(&self, edge: &EdgeFigures) -> Option<(Reference, Share)> {
        match self.kind {
            SERVICE => {
                let ServiceName { namespace, name } = &edge.service;
                Some((self.kind.reference(Some(namespace), name), None))
            }
            TRAFFIC_SPLIT => {
                let leaf = edge.backend.as_ref().filter(|leaf| leaf.namespace == edge.service.namespace)?;
                let (name, split) = self.cluster.split_in_force(&edge.service)?;
                let share = self.cluster.share(name, split, &leaf.name)?;
                Some((self.kind.reference(Some(&name.namespace), &name.name), Some(share.to_owned())))
            }
            _ => {
                let pod = self.cluster.pod_at(edge.endpoint?.ip())?;
                Some((self.kind.object_of(pod)?, None))
            }
        }
    }

    /// What there is to tell of an object.
    fn shares(&self, object: &Reference) -> Vec<Share> {
        if self.kind != TRAFFIC_SPLIT {
            return vec![None];
        }
        let split = self.cluster.split(&name_of(object));
        split.iter().flat_map(|split| &split.backends).map(|backend| Some(backend.service.clone())).collect()
    }

    fn backend(&self, object: &Reference, share: &str) -> Option<Backend> {
        let split = self.cluster.split(&name_of(object))?;
        let weight = split.backends.iter().find(|backend| backend.service == share)?.weight;
        // Whole numbers, as they were written, unless one of them is a fraction.
        let unit =
            if split.backends.iter().all(|backend| backend.weight.is_multiple_of(1000)) { 1000 } else { 1 };
        Some(Backend { apex: split.service.clone(), name: share.to_owned(), weight: weight / unit })
    }

    fn item(
        &self,
        object: Reference,
        direction: Direction,
        resource: Peer,
        backend: Option<Backend>,
        figures: &Figures,
    ) -> TrafficMetrics {
        // Services and splits have no side where they are served: what they have is what their callers see.
        let called = matches!(self.kind, SERVICE | TRAFFIC_SPLIT);
        let side = if direction == Direction::To || called { Side::Client } else { Side::Server };
        TrafficMetrics::new(object, Edge { direction, side, resource }, backend, figures, self.end)
    }
}

fn name_of(object: &Reference) -> Name {
    Name::new(object.namespace.as_deref().unwrap_or_default(), object.name.as_deref().unwrap_or_default())
}

fn selects(selector: &Selector, pod: &PodFacts) -> bool {
    selector.matches(&pod.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
}

#[cfg(test)]
mod tests;
