//! What most tests begin with: the mesh, a namespace with servers and Services in it, and a client on each node.

use std::borrow::Borrow;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::DeleteParams;
use serde_json::Value;

use crate::Result;
use crate::clients::ClientPod;
use crate::cluster::Cluster;
use crate::exec::PodRef;
use crate::servers::Server;
use crate::services::UserService;
use crate::traffic::{self, Answer};
use crate::wait::{self, Seen, seconds};
use crate::{mesh, smi, workloads};

/// A test's own namespace.
pub struct Stage {
    /// The cluster it is on.
    pub cluster: Cluster,
    /// Its name.
    pub ns: String,
    /// A client pod on each node, in the order of the nodes; or the callers, if it has such.
    pub clients: Vec<PodRef>,
}

impl Stage {
    /// Sets it up on an installed mesh.
    pub async fn new(
        cluster: &Cluster,
        namespace: &str,
        servers: &[Server],
        services: &[UserService],
    ) -> Result<Self> {
        mesh::installed(cluster).await?;
        Self::on_what_is_there(cluster, namespace, servers, services).await
    }

    /// Sets it up on whatever mesh there is.
    pub async fn on_what_is_there(
        cluster: &Cluster,
        namespace: &str,
        servers: &[Server],
        services: &[UserService],
    ) -> Result<Self> {
        let callers = cluster.nodes.iter().map(|node| ClientPod::new(&format!("client-{node}"), node));
        Self::with(cluster, namespace, servers, services, callers.collect()).await
    }

    /// The same with a client pod on the first node for each of `callers`, who runs as a `ServiceAccount` of that name.
    pub async fn with_callers(
        cluster: &Cluster,
        namespace: &str,
        servers: &[Server],
        services: &[UserService],
        callers: &[&str],
    ) -> Result<Self> {
        mesh::installed(cluster).await?;
        let callers = callers.iter().map(|name| ClientPod::new(name, &cluster.nodes[0]).with_account());
        Self::with(cluster, namespace, servers, services, callers.collect()).await
    }

    async fn with(
        cluster: &Cluster,
        namespace: &str,
        servers: &[Server],
        services: &[UserService],
        clients: Vec<ClientPod>,
    ) -> Result<Self> {
        let ns = workloads::namespace(cluster, namespace).await?;
        for server in servers {
            server.create(cluster, &ns).await?;
        }
        for service in services {
            service.create(cluster, &ns).await?;
        }
        let clients = workloads::start_all(cluster, &ns, clients).await?;
        for server in servers {
            workloads::available(cluster, &ns, &server.app).await?;
        }
        Ok(Self { cluster: cluster.clone(), ns, clients })
    }

    /// The client on the first node.
    pub fn client(&self) -> &PodRef {
        &self.clients[0]
    }

    /// The client pod `name`.
    pub fn caller(&self, name: &str) -> Result<&PodRef> {
        let found = self.clients.iter().find(|client| client.name == name);
        Ok(found.ok_or_else(|| format!("there is no caller {name}"))?)
    }

    /// The name by which a Service is called through the mesh.
    pub fn host(&self, service: &str) -> String {
        format!("{service}.{}.weft.mesh", self.ns)
    }

    /// The address that name leads to: for a test in which DNS, too, may be in trouble.
    pub async fn address(&self, service: &str) -> Result<String> {
        let shadow = mesh::shadow_of(&self.cluster, &self.ns, service).await?;
        let address = shadow.and_then(|shadow| shadow.spec?.cluster_ip);
        address.ok_or_else(|| format!("{service} has no shadow Service with an address").into())
    }

    /// The URL of `path` on port 80 of a Service, through the mesh.
    pub fn url(&self, service: &str, path: &str) -> String {
        format!("http://{}{path}", self.host(service))
    }

    /// Waits until `app` answers through the mesh to every client.
    pub async fn reaches(&self, service: &str, app: &str) -> Result {
        for client in &self.clients {
            traffic::reaches(&self.cluster, client, &self.url(service, "/"), app, seconds(30)).await?;
        }
        Ok(())
    }

    /// Asks `path` of a Service once from the client on the first node.
    pub async fn get(&self, service: &str, path: &str, args: &[&str]) -> Result<Answer> {
        self.get_all(service, path, args).await?.pop().ok_or_else(|| "no answer was printed".into())
    }

    /// Asks `path` of a Service from the client on the first node.
    pub async fn get_all(&self, service: &str, path: &str, args: &[&str]) -> Result<Vec<Answer>> {
        traffic::get(&self.cluster, self.client(), &self.url(service, path), args).await
    }

    /// Asks `path` of a Service once from the client pod `caller`.
    pub async fn get_as(&self, caller: &str, service: &str, path: &str, args: &[&str]) -> Result<Answer> {
        let answers =
            traffic::get(&self.cluster, self.caller(caller)?, &self.url(service, path), args).await?;
        answers.into_iter().next().ok_or_else(|| "no answer was printed".into())
    }

    /// Asks the same until the status is `status`.
    pub async fn answers(
        &self,
        caller: &str,
        service: &str,
        path: &str,
        args: &[&str],
        status: u16,
    ) -> Result<Answer> {
        let what = format!("{caller} asking {service}{path} with {args:?} gets {status}");
        wait::until(&what, seconds(30), async || {
            let answer = self.get_as(caller, service, path, args).await?;
            let state = format!("{answer:?}");
            Ok(Seen::when(answer.status == Some(status), answer, || state))
        })
        .await
    }

    /// Applies objects of the Service Mesh Interface.
    pub async fn apply(&self, objects: impl IntoIterator<Item = impl Borrow<Value>>) -> Result {
        smi::apply_all(&self.cluster, &self.ns, objects).await
    }

    /// Deletes one.
    pub async fn delete(&self, object: &Value) -> Result {
        smi::delete(&self.cluster, &self.ns, object).await
    }

    /// How often the pods of `app` were asked with `?key=<key>`, together.
    pub async fn seen(&self, app: &str, key: &str) -> Result<u64> {
        let mut seen = 0;
        for pod in workloads::pods(&self.cluster, &self.ns, app).await? {
            let address = workloads::address_of(&self.cluster, &self.ns, &pod).await?;
            let url = format!("http://{address}:8080/seen?key={key}");
            let answers = traffic::get(&self.cluster, self.client(), &url, &[]).await?;
            let count = answers.first().map_or(Value::Null, |answer| answer.body["seen"].clone());
            seen += count.as_u64().ok_or_else(|| format!("{pod} does not tell: {answers:?}"))?;
        }
        Ok(seen)
    }

    /// Takes it down, without waiting for it: another test may begin.
    pub async fn strike(self) -> Result {
        self.cluster.all::<Namespace>().delete(&self.ns, &DeleteParams::default()).await?;
        Ok(())
    }
}
