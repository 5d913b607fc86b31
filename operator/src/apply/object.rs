//! What is read and written: objects of kinds that are known when this is compiled.

use std::fmt::Debug;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An object.
pub trait Object:
    Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + 'static
{
}

/// One that lies in a namespace.
pub trait Namespaced: Object + Resource<Scope = NamespaceResourceScope> {}

impl<K: Object + Resource<Scope = NamespaceResourceScope>> Namespaced for K {}

/// One that lies in none.
pub trait ClusterWide: Object + Resource<Scope = ClusterResourceScope> {}

impl<K: Object + Resource<Scope = ClusterResourceScope>> ClusterWide for K {}
