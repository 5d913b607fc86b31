//! The cluster under test: the one of `KUBECONFIG`. Tests share a mesh, so those that change it or measure it run alone;
//! those that keep to their own namespace run side by side ([`crate::turns`]).

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::{Client, Config, ResourceExt};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::turns::{Party, Turns};
use crate::{Result, mesh, report};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});
static TURNS: Turns = Turns::new();
static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

pub use crate::dns;

/// The cluster under test.
#[derive(Clone)]
pub struct Cluster {
    /// As its administrator.
    pub client: Client,
    /// Names of its nodes, sorted.
    pub nodes: Vec<String>,
}

/// Runs one test that has the cluster to itself.
pub fn test<F: Future<Output = Result>>(body: impl FnOnce(Cluster) -> F) {
    on_the_cluster(Party::Alone, body);
}

/// Runs one test that keeps to its own namespace and minds no other beside it.
pub fn side_by_side<F: Future<Output = Result>>(body: impl FnOnce(Cluster) -> F) {
    on_the_cluster(Party::AsInstalled, body);
}

/// The same while nothing passes through the mesh but what a `TrafficTarget` allows.
pub fn under_access_control<F: Future<Output = Result>>(body: impl FnOnce(Cluster) -> F) {
    on_the_cluster(Party::UnderAccessControl, body);
}

/// When the test fails, what is known of the mesh is shown before its failure.
fn on_the_cluster<F: Future<Output = Result>>(party: Party, body: impl FnOnce(Cluster) -> F) {
    let _turn = TURNS.take(party);
    // Since it has its turn: what the harness says of the time counts the waiting for others as well.
    let began = std::time::Instant::now();
    RUNTIME.block_on(async {
        let cluster = Cluster::get().await;
        let test = async {
            mesh::is_for(&cluster, party).await?;
            body(cluster.clone()).await
        };
        // Caught, so that a failed assertion is followed by a report as well.
        let outcome = AssertUnwindSafe(test).catch_unwind().await;
        eprintln!("  {:.0} s", began.elapsed().as_secs_f64());
        match outcome {
            Ok(Ok(())) => (),
            Ok(Err(error)) => {
                report::show(&cluster).await;
                panic!("{error}");
            }
            Err(panicked) => {
                report::show(&cluster).await;
                std::panic::resume_unwind(panicked);
            }
        }
    });
}

/// Runs a program that is no test on the cluster.
pub fn run<F: Future<Output = Result>>(body: impl FnOnce(Cluster) -> F) -> Result {
    RUNTIME.block_on(async { body(Cluster::get().await).await })
}

impl Cluster {
    async fn get() -> Self {
        CLUSTER.get_or_init(Self::connect).await.clone()
    }

    async fn connect() -> Self {
        let config = Config::infer().await.expect("KUBECONFIG leads to a cluster");
        let client = Client::try_from(config).expect("a client for it");
        let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
        let mut nodes: Vec<_> =
            nodes.expect("nodes can be listed").iter().map(ResourceExt::name_any).collect();
        nodes.sort();
        assert!(nodes.len() >= 2, "the tests need two nodes, the cluster has {nodes:?}");
        Self { client, nodes }
    }

    /// Objects of kind `K` in `namespace`.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Cluster-wide objects of kind `K`, or those of all namespaces.
    pub fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }

    /// A client that acts as somebody else.
    pub async fn client_as(&self, user: &str) -> Result<Client> {
        let mut config = Config::infer().await?;
        config.auth_info.impersonate = Some(user.to_owned());
        Ok(Client::try_from(config)?)
    }
}
