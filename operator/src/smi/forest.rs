//! Which splits of a namespace are in force: one for each root, and none that leads back to where it came from.
//!
//! They are taken in the order of their age, of two made in the same second the first by name. One whose Service has a split
//! already is dropped, and so is one that would close a loop with those taken before: an older split never stops working
//! because of a younger one. A root among its own backends is the plain Service and closes nothing. What cannot be read says
//! nothing, so it is in nobody's way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_config::ServiceId;
use weft_crds::smi::TrafficSplit;

use super::{Name, Object};

/// The splits of one namespace.
#[derive(Debug, Default)]
pub struct Forest {
    /// By the Services they split.
    in_force: BTreeMap<Box<str>, Arc<Object<TrafficSplit>>>,
    dropped: BTreeMap<Name, Dropped>,
}

/// Why a split is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dropped {
    /// This one splits the Service already.
    Older(Name),
    /// Its traffic would come back to it, from the split of this Service.
    Loop(String),
}

impl Forest {
    /// Of `splits`, which are those of one namespace.
    pub fn of<'a>(splits: impl Iterator<Item = &'a Arc<Object<TrafficSplit>>>) -> Self {
        let mut readable: Vec<_> =
            splits.filter_map(|object| Some((object, object.read.as_ref().ok()?))).collect();
        readable.sort_by_key(|(object, _)| (object.created, &object.name));
        let mut forest = Self::default();
        for (object, split) in readable {
            let dropped = match forest.in_force.get(split.service.as_str()) {
                Some(older) => Some(Dropped::Older(older.name.clone())),
                None => forest.way_back(split).map(Dropped::Loop),
            };
            match dropped {
                Some(why) => drop(forest.dropped.insert(object.name.clone(), why)),
                None => drop(forest.in_force.insert(split.service.as_str().into(), Arc::clone(object))),
            }
        }
        forest
    }

    /// The split of the Service `root` that is in force.
    pub fn get(&self, root: &ServiceId) -> Option<(&Object<TrafficSplit>, &TrafficSplit)> {
        let object = self.in_force.get(&*root.name)?;
        Some((object, object.read.as_ref().ok()?))
    }

    /// The splits in force that have the Service `name` among their backends, those of the Service itself left out.
    pub fn sending_to<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Object<TrafficSplit>> {
        let others =
            self.in_force.iter().filter(move |(root, _)| ***root != *name).map(|(_, object)| &**object);
        others.filter(move |object| {
            let split = object.read.as_ref().ok();
            split.is_some_and(|split| split.backends.iter().any(|backend| backend.service == name))
        })
    }

    /// Why the split `name` is not in force.
    pub fn dropped(&self, name: &Name) -> Option<&Dropped> {
        self.dropped.get(name)
    }

    /// The Service from whose split the traffic of `split` would come back to it.
    fn way_back(&self, split: &TrafficSplit) -> Option<String> {
        let root = split.service.as_str();
        let backends = |split: &'_ TrafficSplit| {
            split.backends.iter().map(|backend| backend.service.clone()).collect::<Vec<_>>()
        };
        let mut seen = BTreeSet::new();
        let mut open: Vec<_> = backends(split).into_iter().filter(|name| name != root).collect();
        while let Some(service) = open.pop() {
            let next = self.in_force.get(service.as_str()).and_then(|object| object.read.as_ref().ok());
            for backend in next.map(backends).unwrap_or_default() {
                if backend == root {
                    return Some(service);
                }
                if seen.insert(backend.clone()) {
                    open.push(backend);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use weft_crds::smi::TRAFFIC_SPLIT;

    use super::*;
    use crate::smi::{Meta, Objects};

    /// (name, root, backends), oldest first.
    fn objects(splits: &[(String, String, Vec<String>)]) -> Objects {
        let mut objects = Objects::default();
        for ((name, root, backends), created) in splits.iter().zip(0..) {
            let backends: Vec<_> =
                backends.iter().map(|name| json!({"service": name, "weight": 1})).collect();
            let meta = Meta { created, ..Meta::default() };
            let object = json!({"spec": {"service": root, "backends": backends}});
            objects.insert(TRAFFIC_SPLIT, &Name::new("shop", name.as_str()), meta, &object);
        }
        objects
    }

    fn split(name: &str, root: &str, backends: &[&str]) -> (String, String, Vec<String>) {
        (name.into(), root.into(), backends.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_youngest_of_a_loop_is_dropped() {
        let all = objects(&[
            split("s1", "a", &["b"]),
            split("s2", "b", &["c", "b"]),
            split("s0", "c", &["a", "d"]),
        ]);
        let forest = all.forest("shop").unwrap();
        let dropped = |name| forest.dropped(&Name::new("shop", name)).cloned();
        assert_eq!(
            (dropped("s1"), dropped("s2")),
            (None, None),
            "b has itself as a backend, which is no loop"
        );
        assert_eq!(dropped("s0"), Some(Dropped::Loop("b".into())));
        assert!(forest.get(&ServiceId::new("shop", "c")).is_none());
        let sending_to =
            |name| forest.sending_to(name).map(|object| object.name.name.to_string()).collect::<Vec<_>>();
        assert_eq!((sending_to("b"), sending_to("c")), (vec!["s1".to_owned()], vec!["s2".to_owned()]));
        assert!(sending_to("a").is_empty(), "the loop is not in force");
    }

    #[test]
    fn a_dropped_split_is_in_nobody_s_way() {
        let all = objects(&[split("s1", "a", &["b"]), split("s2", "b", &["a"]), split("s3", "b", &["c"])]);
        let forest = all.forest("shop").unwrap();
        let (object, _) = forest.get(&ServiceId::new("shop", "b")).unwrap();
        assert_eq!(&*object.name.name, "s3");
        assert_eq!(forest.dropped(&Name::new("shop", "s2")), Some(&Dropped::Loop("a".into())));
    }

    /// How deep it goes down from `root`.
    fn depth(forest: &Forest, root: &str, so_far: usize) -> usize {
        assert!(so_far < 20, "a loop");
        let Some((_, split)) = forest.get(&ServiceId::new("shop", root)) else { return so_far };
        let nested = split.backends.iter().filter(|backend| backend.service != root);
        nested.map(|backend| depth(forest, &backend.service, so_far + 1)).max().unwrap_or(so_far)
    }

    proptest! {
        /// Every way down ends, and what was in force stays so when a younger split comes.
        #[test]
        fn there_are_no_loops_and_age_protects(
            splits in prop::collection::vec((0..6u8, prop::collection::vec(0..6u8, 0..4)), 1..12)
        ) {
            let named: Vec<_> = splits.iter().enumerate().map(|(i, (root, backends))| {
                (format!("s{}", i * 7 % 12), format!("r{root}"), backends.iter().map(|b| format!("r{b}")).collect())
            }).collect();
            let all = objects(&named);
            let forest = all.forest("shop").unwrap();
            for root in 0..6 {
                depth(forest, &format!("r{root}"), 0);
            }
            let before = objects(&named[..named.len() - 1]);
            for root in before.forest("shop").into_iter().flat_map(|forest| forest.in_force.values()) {
                prop_assert!(forest.in_force.values().any(|now| now.name == root.name));
            }
        }
    }
}
