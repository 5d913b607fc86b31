//! How objects of the Service Mesh Interface go into the index.
//!
//! A cluster may know none, some or all of the kinds, in versions that other tools brought along, and that may change. So each
//! kind's definition is watched by its name, and its objects in the newest released version that is served.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use weft_crds::smi::Kind as Definition;

use super::changes::Changed;
use super::watch::{Kind, broken, stream};
use super::{Index, State};
use crate::smi::{Meta, Name};
use crate::watches;

type Objects = Pin<Box<dyn Stream<Item = Result<Event<DynamicObject>, watcher::Error>> + Send>>;

/// Follows the definition of `kind` and, while there is one, its objects, for ever.
pub(super) async fn follow(index: Index, client: Client, kind: Definition) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let named = watcher::Config::default().fields(&format!("metadata.name={}", kind.crd_name()));
    let objects = |version: &str| -> Objects {
        let known = GroupVersionKind::gvk(kind.group, version, kind.kind);
        let resource = ApiResource::from_gvk_with_plural(&known, kind.plural);
        Box::pin(stream(Api::all_with(client.clone(), &resource), None))
    };
    follow_with(&index, kind, watches::objects(api, named), objects).await;
}

async fn follow_with(
    index: &Index,
    kind: Definition,
    definitions: impl Stream<Item = Result<Event<CustomResourceDefinition>, watcher::Error>> + Send,
    objects_of: impl Fn(&str) -> Objects,
) {
    let mut definitions = std::pin::pin!(definitions);
    let mut served = Served { kind, known: false, version: None, listing: None };
    let mut watch: Option<(SmiKind, Objects)> = None;
    let mut listed = None;
    loop {
        let next = async {
            match &mut watch {
                Some((_, objects)) => objects.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = definitions.next() => match event {
                None => return,
                Some(Ok(event)) => {
                    if !served.take(event) {
                        continue;
                    }
                    // Those of the version before stay until the new list is complete.
                    listed = None;
                    watch = served.version.map(|version| {
                        (SmiKind::new(kind, version), objects_of(version))
                    });
                    tracing::info!(kind = kind.kind, version = served.version, "what the cluster serves");
                    if watch.is_none() {
                        let none = SmiKind::new(kind, "");
                        index.take(&none, Event::Init, &mut listed);
                        index.take(&none, Event::InitDone, &mut listed);
                    }
                }
                Some(Err(error)) => broken(kind.kind, &error),
            },
            event = next => match (event, &watch) {
                (Some(Ok(event)), Some((kind, _))) => index.take(kind, event, &mut listed),
                (Some(Err(error)), _) => broken(kind.kind, &error),
                _ => watch = None,
            },
        }
    }
}

/// Which version of a kind to watch.
struct Served {
    kind: Definition,
    /// Whether the definition, or that there is none, has been seen.
    known: bool,
    /// `None`: there is none.
    version: Option<&'static str>,
    /// What a full list in progress has brought.
    listing: Option<&'static str>,
}

impl Served {
    /// Returns whether the version is another one now.
    fn take(&mut self, event: Event<CustomResourceDefinition>) -> bool {
        let now = match event {
            Event::Init => {
                self.listing = None;
                return false;
            }
            Event::InitApply(definition) => {
                self.listing = self.newest(&definition).or(self.listing);
                return false;
            }
            Event::InitDone => self.listing.take(),
            Event::Apply(definition) | Event::Delete(definition) if !self.is_it(&definition) => return false,
            Event::Apply(definition) => self.newest(&definition),
            Event::Delete(_) => None,
        };
        let first = !std::mem::replace(&mut self.known, true);
        std::mem::replace(&mut self.version, now) != now || first
    }

    fn is_it(&self, definition: &CustomResourceDefinition) -> bool {
        definition.name_any() == self.kind.crd_name()
    }

    /// The newest version we know that `definition` serves, once it is served at all.
    fn newest(&self, definition: &CustomResourceDefinition) -> Option<&'static str> {
        let mut conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let established = conditions.any(|one| one.type_ == "Established" && one.status == "True");
        if !established || !self.is_it(definition) {
            return None;
        }
        let served =
            |version: &&&str| definition.spec.versions.iter().any(|one| one.served && one.name == ***version);
        self.kind.versions.iter().find(served).copied()
    }
}

/// Objects of one kind, as they come in one version.
pub(crate) struct SmiKind {
    kind: Definition,
    api_version: Arc<str>,
}

impl SmiKind {
    /// Objects of `kind`, as they come in `version`.
    pub(crate) fn new(kind: Definition, version: &str) -> Self {
        Self { kind, api_version: format!("{}/{version}", kind.group).into() }
    }
}

impl Kind for SmiKind {
    type Object = DynamicObject;
    type Key = Name;

    fn what(&self) -> &'static str {
        self.kind.kind
    }

    fn insert(&self, state: &mut State, object: &DynamicObject) -> (Name, Changed) {
        let key = Self::key(object);
        let meta = Meta {
            uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
            api_version: Arc::clone(&self.api_version),
            created: object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        };
        let mut services = state.smi.concerned(self.kind, &key);
        let changed = Arc::make_mut(&mut state.smi).insert(self.kind, &key, meta, &object.data);
        if !changed {
            return (key, Changed::default());
        }
        services.extend(state.smi.concerned(self.kind, &key));
        (key, Changed { services, policies: true, ..Changed::default() })
    }

    fn remove(&self, state: &mut State, key: &Name) -> Changed {
        let services = state.smi.concerned(self.kind, key);
        let policies = Arc::make_mut(&mut state.smi).remove(self.kind, key);
        Changed { services, policies, ..Changed::default() }
    }

    fn keys(&self, state: &State) -> BTreeSet<Name> {
        state.smi.names(self.kind).into_iter().collect()
    }

    fn key(object: &DynamicObject) -> Name {
        Name::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use futures::stream;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::{Value, json};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;
    use weft_config::ServiceId;
    use weft_crds::smi::{TRAFFIC_SPLIT, TRAFFIC_TARGET};
    use weft_crds::{MeshConfig, MeshConfigSpec};

    use super::super::changes::About;
    use super::super::kinds::MeshKind;
    use super::*;

    fn definition(versions: &[(&str, bool)], established: bool) -> CustomResourceDefinition {
        let version =
            |(name, served): &(&str, bool)| json!({"name": name, "served": served, "storage": false});
        let established = if established { "True" } else { "False" };
        let object = json!({
            "metadata": {"name": TRAFFIC_SPLIT.crd_name()},
            "spec": {"group": TRAFFIC_SPLIT.group, "scope": "Namespaced", "names": {"kind": "TrafficSplit", "plural": "trafficsplits"},
                "versions": versions.iter().map(version).collect::<Vec<_>>()},
            "status": {"conditions": [{"type": "Established", "status": established}]}});
        serde_json::from_value(object).unwrap()
    }

    fn split(name: &str, root: &str, weight: u32) -> DynamicObject {
        let spec: Value = json!({"service": root, "backends": [{"service": "v1", "weight": weight}]});
        let object = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_newest_released_version_that_is_served_is_watched() {
        let served = Served { kind: TRAFFIC_SPLIT, known: false, version: None, listing: None };
        let newest = |versions: &[(&str, bool)]| served.newest(&definition(versions, true));
        assert_eq!(newest(&[("v1alpha1", true), ("v1alpha2", true)]), Some("v1alpha2"));
        assert_eq!(newest(&[("v1alpha4", false), ("v1alpha3", true), ("v1alpha2", true)]), Some("v1alpha3"));
        assert_eq!(newest(&[("v1alpha5", true), ("v1", true)]), None, "of what comes we know nothing");
        assert_eq!(served.newest(&definition(&[("v1alpha4", true)], false)), None, "it is not served yet");
        let other = Served { kind: TRAFFIC_TARGET, known: false, version: None, listing: None };
        assert_eq!(other.newest(&definition(&[("v1alpha3", true)], true)), None);
    }

    /// A definition that is not there, comes, serves another version and goes; each time with its objects.
    #[tokio::test]
    async fn definitions_come_change_and_go() {
        let index = Index::new("weft-system");
        let lists = Mutex::new(VecDeque::from([
            ("v1alpha2", vec![split("a", "web", 1), split("b", "pay", 1)]),
            ("v1alpha4", vec![split("a", "web", 1)]),
        ]));
        let objects = |version: &str| -> Objects {
            let (expected, objects) = lists.lock().unwrap().pop_front().unwrap();
            assert_eq!(version, expected);
            let all = objects.into_iter().map(|object| Ok(Event::InitApply(object)));
            let all: Vec<_> =
                std::iter::once(Ok(Event::Init)).chain(all).chain([Ok(Event::InitDone)]).collect();
            Box::pin(stream::iter(all).chain(stream::pending()))
        };
        let (send, events) = mpsc::unbounded_channel();
        let changes = index.changes(About::Everything);
        assert!(changes.next().await.policies, "the first look");
        let story = async {
            let names = || {
                index.smi().names(TRAFFIC_SPLIT).iter().map(|name| name.name.to_string()).collect::<Vec<_>>()
            };
            let versions = || {
                let found = crate::policies::findings(&index);
                assert!(found.is_empty(), "without a mesh they are none of our business");
                let mesh = MeshConfig::new("weft", MeshConfigSpec::default());
                let mesh = MeshConfig {
                    metadata: ObjectMeta { namespace: Some("weft-system".into()), ..mesh.metadata },
                    ..mesh
                };
                index.take(&MeshKind, Event::Apply(mesh), &mut None);
                let found = crate::policies::findings(&index);
                found.iter().map(|finding| finding.about.api_version.to_string()).collect::<Vec<_>>()
            };
            let tell = |event| send.send(Ok(event)).unwrap();
            assert!(index.awaited().contains("TrafficSplit"));
            tell(Event::Init);
            tell(Event::InitDone);
            while index.awaited().contains("TrafficSplit") {
                tokio::task::yield_now().await;
            }
            tell(Event::Apply(definition(&[("v1alpha2", true)], true)));
            while names() != ["a", "b"] {
                changes.next().await;
            }
            tell(Event::Apply(definition(&[("v1alpha4", true), ("v1alpha2", true)], true)));
            let mut gone = changes.next().await;
            while names() != ["a"] {
                gone = changes.next().await;
            }
            assert!(gone.policies && gone.services.contains(&ServiceId::new("shop", "pay")), "{gone:?}");
            assert_eq!(versions(), ["split.smi-spec.io/v1alpha4"]);
            tell(Event::Delete(definition(&[("v1alpha4", true)], true)));
            while !names().is_empty() {
                changes.next().await;
            }
        };
        tokio::select! {
            () = story => {}
            () = follow_with(&index, TRAFFIC_SPLIT, UnboundedReceiverStream::new(events), objects) => panic!("it ended"),
        }
    }

    #[tokio::test]
    async fn a_change_concerns_the_services_before_and_after() {
        let index = Index::new("weft-system");
        let kind = SmiKind::new(TRAFFIC_SPLIT, "v1alpha4");
        index.take(&kind, Event::Apply(split("a", "web", 1)), &mut None);
        index.take(&kind, Event::Apply(split("c", "shop", 1)), &mut None);
        let changes = index.changes(About::Everything);
        changes.next().await;
        index.take(&kind, Event::Apply(split("a", "web", 1)), &mut None);
        index.take(&kind, Event::Apply(split("a", "pay", 1)), &mut None);
        let changed = changes.next().await;
        let concerned = |name| changed.services.contains(&ServiceId::new("shop", name));
        assert!(changed.policies && concerned("web") && concerned("pay"), "{changed:?}");
    }
}
