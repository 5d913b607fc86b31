//! `weft-operator cleanup`: deletes the `MeshConfigs` of a namespace and sees to it that what lies behind them goes. Helm runs it
//! before it removes the operator. A running operator does the work; where none answers, this does it ([`by_hand`]), having
//! taken the Lease as a replica would, so that never two write.

mod by_hand;

use std::time::Duration;

use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;
use weft_crds::MeshConfig;

use crate::apply::{WriteError, Writer, plain};
use crate::context::Context;
use crate::index::Index;
use crate::lease::{self, Fence};
use crate::outside::Network;
use crate::publish::Publisher;
use crate::reconcile::dns::DnsError;

pub use by_hand::stand_in;

/// How often is looked whether it is done.
const LOOK: Duration = Duration::from_millis(500);

/// Why it is not clean.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The API server refused.
    #[error("{0} of namespace {1}: {said}", said = plain(.2))]
    Api(&'static str, String, kube::Error),
    /// The operator did not finish.
    #[error(
        "MeshConfig {0} is still there although an operator is at work: `kubectl -n {1} describe meshconfig` says what it waits for. `weft-operator cleanup --force` takes it out whatever the operator says"
    )]
    Left(String, String),
    /// The block is still in the Corefile.
    #[error("the DNS block cannot be taken out: {0}. With --force it stays, and is yours to remove")]
    Dns(#[from] DnsError),
    /// Something could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What to clean, and how.
pub struct Cleanup<'a> {
    /// For reading.
    pub client: Client,
    /// For writing.
    pub writing: Client,
    /// Of which namespace.
    pub namespace: &'a str,
    /// As whom the Lease is taken.
    pub me: &'a str,
    /// How long an operator that is at work may take.
    pub patience: Duration,
    /// Asks no operator, and leaves in DNS what cannot be taken out.
    pub force: bool,
}

impl Cleanup<'_> {
    /// Deletes, and waits until everything is gone.
    pub async fn run(&self) -> Result<(), CleanupError> {
        if self.delete_all().await? == 0 {
            tracing::info!(namespace = self.namespace, "there is no MeshConfig");
            return Ok(());
        }
        if self.force {
            return by_hand::take_out_all(&self.context(Fence::endless()), true).await;
        }
        let fence = Fence::default();
        let ctx = self.context(fence.clone());
        let (stop, stopping) = watch::channel(false);
        let (leading_set, mut leading) = watch::channel(false);
        let election = {
            let (client, namespace, me) =
                (self.client.clone(), self.namespace.to_owned(), self.me.to_owned());
            tokio::spawn(async move {
                let contact = lease::Contact::default();
                lease::take_part(client, &namespace, &me, fence, contact, leading_set, stopping).await;
            })
        };
        let at_work = leading.clone();
        let ended = tokio::select! {
            ended = self.wait(&at_work) => ended,
            ended = async {
                // The election's end would be a panic; the operator may still come back.
                if leading.wait_for(|leads| *leads).await.is_err() {
                    std::future::pending::<()>().await;
                }
                tracing::info!(namespace = self.namespace, "no operator answers: doing its work");
                by_hand::take_out_all(&ctx, false).await
            } => ended,
        };
        stop.send_replace(true);
        let _ = election.await;
        ended
    }

    /// Deletes what is not being deleted yet; how many there are.
    async fn delete_all(&self) -> Result<usize, CleanupError> {
        let api: Api<MeshConfig> = Api::namespaced(self.writing.clone(), self.namespace);
        let meshes = list(&self.client, self.namespace).await?;
        for mesh in meshes.iter().filter(|mesh| mesh.metadata.deletion_timestamp.is_none()) {
            tracing::info!(namespace = self.namespace, name = mesh.name_any(), "deleting the MeshConfig");
            match api.delete(&mesh.name_any(), &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    return Err(CleanupError::Api("MeshConfigs", self.namespace.to_owned(), error));
                }
            }
        }
        Ok(meshes.len())
    }

    /// Waits until an operator has done it, or `at_work` says that we do it.
    async fn wait(&self, at_work: &watch::Receiver<bool>) -> Result<(), CleanupError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let left = list(&self.client, self.namespace).await?;
            let Some(mesh) = left.first() else {
                tracing::info!(namespace = self.namespace, "no MeshConfig is left");
                return Ok(());
            };
            if Instant::now() >= deadline && !*at_work.borrow() {
                return Err(CleanupError::Left(mesh.name_any(), self.namespace.to_owned()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn context(&self, fence: Fence) -> Context {
        Context {
            client: self.client.clone(),
            writer: Writer::new(self.writing.clone(), fence),
            // Nothing is watched: what has to be known is asked for.
            index: Index::new(self.namespace),
            publisher: Publisher::default(),
            outside: std::sync::Arc::new(Network),
            namespace: self.namespace.into(),
            pod: self.me.into(),
            proxy_image: "".into(),
            smi_metrics: false,
            metrics: std::sync::Arc::default(),
            contact: lease::Contact::default(),
        }
    }
}

async fn list(client: &Client, namespace: &str) -> Result<Vec<MeshConfig>, CleanupError> {
    let api: Api<MeshConfig> = Api::namespaced(client.clone(), namespace);
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        // With the definition somebody has deleted all there were.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(CleanupError::Api("MeshConfigs", namespace.to_owned(), error)),
    }
}
