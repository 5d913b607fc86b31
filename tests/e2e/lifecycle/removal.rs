//! How a mesh ends: with its operator killed in between, without an operator, with its namespace deleted under it. The cluster's
//! DNS is as it was, nothing hangs, and plain names never notice.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use weft_tests::afterwards::afterwards;
use weft_tests::clients::create_account;
use weft_tests::cluster::{self, Cluster, dns};
use weft_tests::exec::PodRef;
use weft_tests::faults::{kill_operators, passes};
use weft_tests::node::Embedded;
use weft_tests::traffic::{Load, Mode, reaches};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{self, Server};
use weft_tests::{Result, mesh, number_of};

/// Within this a mesh is gone: the takeover of a killed leader and its waits in it.
const GONE: Duration = seconds(90);

/// A user who calls plain names all the while.
struct Bystander {
    ns: String,
    load: Load,
    corefile: String,
}

impl Bystander {
    /// Without Weft, and what the Corefile is then.
    async fn before_weft(cluster: &Cluster, ns: &str) -> Result<Self> {
        mesh::absent(cluster).await?;
        let corefile = dns::corefile(cluster).await?;
        let ns = workloads::namespace(cluster, ns).await?;
        Server::new("whoami", 2).deploy(cluster, &ns).await?;
        workloads::service(cluster, &ns, "whoami", "whoami", &[("http", 80, json!("http"))]).await?;
        let clients: Vec<PodRef> = workloads::clients(cluster, &ns).await?;
        let plain = format!("http://whoami.{ns}.svc.cluster.local/");
        reaches(cluster, &clients[0], &plain, "whoami", seconds(30)).await?;
        let load = Load::start(cluster, &clients[0], &plain, "whoami", 50, Mode::Both).await?;
        Ok(Self { ns, load, corefile })
    }

    /// Nothing has happened to it, and the cluster's DNS is as it was.
    async fn ends_unharmed(self, cluster: &Cluster) -> Result {
        assert_eq!(dns::corefile(cluster).await?, self.corefile);
        self.load.stop_without_failures(100).await?;
        workloads::remove_namespace(cluster, &self.ns).await
    }
}

async fn installed(cluster: &Cluster) -> Result {
    mesh::install(cluster).await?;
    mesh::apply_meshconfig(cluster, &mesh::meshconfig()).await?;
    mesh::ready(cluster, seconds(60)).await
}

async fn no_meshconfig_is_left(cluster: &Cluster) -> Result {
    let api = mesh::meshconfigs(cluster);
    wait::until("the MeshConfig is gone", GONE, async || {
        let left = api.get_opt("weft").await?;
        Ok(Seen::when(left.is_none(), (), || json!(left).to_string()))
    })
    .await
}

async fn no_operator_is_left(cluster: &Cluster) -> Result {
    workloads::scale(cluster, mesh::NAMESPACE, "weft-operator", 0).await?;
    wait::until("no operator is left", seconds(60), async || {
        let left = mesh::operators(cluster).await?.len();
        Ok(Seen::when(left == 0, (), || format!("{left} pods")))
    })
    .await
}

#[test]
fn an_operator_killed_amid_a_removal_leaves_nothing_hanging() {
    cluster::test(|cluster| async move {
        let Some(embedded) = Embedded::needed_for("that a killed operator's removal goes on") else {
            return Ok(());
        };
        let bystander = Bystander::before_weft(&cluster, "e2e-killed").await?;
        installed(&cluster).await?;
        let since = SystemTime::now();
        let mut rng = fastrand::Rng::with_seed(number_of("SEED", 1)?);
        for round in 0..number_of("REMOVALS", 2)? {
            if round > 0 {
                mesh::apply_meshconfig(&cluster, &mesh::meshconfig()).await?;
                mesh::ready(&cluster, seconds(90)).await?;
            }
            let after = Duration::from_millis(rng.u64(..2500));
            eprintln!("  killed {} ms after the deletion", after.as_millis());
            mesh::meshconfigs(&cluster).delete("weft", &DeleteParams::default()).await?;
            passes(after).await?;
            kill_operators(&cluster, &embedded).await?;
            no_meshconfig_is_left(&cluster).await?;
            assert_eq!(dns::corefile(&cluster).await?, bystander.corefile);
            assert_eq!(mesh::ports(&cluster).await?.len(), 0, "no shadow is left");
        }
        mesh::helm_uninstall().await?;
        one_at_a_time(&embedded, since).await?;
        bystander.ends_unharmed(&cluster).await
    });
}

/// Of the operators and of the clean-up that stands in for them.
async fn one_at_a_time(embedded: &Embedded, since: SystemTime) -> Result {
    let (writes, out_of_turn) = embedded.two_writers(since).await?;
    eprintln!("  {writes} writes, {} out of turn", out_of_turn.len());
    assert!(writes > 0 && out_of_turn.is_empty(), "{out_of_turn:#?}");
    Ok(())
}

#[test]
fn without_an_operator_helm_uninstall_does_its_work() {
    cluster::test(|cluster| async move {
        let bystander = Bystander::before_weft(&cluster, "e2e-uninstall").await?;
        installed(&cluster).await?;
        let since = SystemTime::now();
        no_operator_is_left(&cluster).await?;
        mesh::helm_uninstall().await?;
        if let Some(embedded) = Embedded::needed_for("that the clean-up writes only when nobody else does") {
            one_at_a_time(&embedded, since).await?;
        }
        assert!(mesh::meshconfigs(&cluster).get_opt("weft").await?.is_none());
        wait::until("nothing is left in the namespace", seconds(45), async || {
            let services = cluster.api::<Service>(mesh::NAMESPACE).list(&ListParams::default()).await?;
            let pods = cluster.api::<Pod>(mesh::NAMESPACE).list(&ListParams::default()).await?;
            let left: Vec<_> = services
                .iter()
                .map(ResourceExt::name_any)
                .chain(pods.iter().map(ResourceExt::name_any))
                .collect();
            Ok(Seen::when(left.is_empty(), (), || left.join(", ")))
        })
        .await?;
        bystander.ends_unharmed(&cluster).await
    });
}

#[test]
fn a_namespace_deleted_under_the_mesh_ends_and_dns_is_as_it_was() {
    cluster::test(|cluster| async move {
        let bystander = Bystander::before_weft(&cluster, "e2e-ended").await?;
        installed(&cluster).await?;
        cluster.all::<Namespace>().delete(mesh::NAMESPACE, &DeleteParams::default()).await?;
        wait::until("the Corefile is as it was", seconds(10), async || {
            let now = dns::corefile(&cluster).await?;
            Ok(Seen::when(now == bystander.corefile, (), || now))
        })
        .await?;
        let api = cluster.all::<Namespace>();
        let gone = wait::until("the namespace is gone", GONE, async || {
            let left = api.get_opt(mesh::NAMESPACE).await?;
            Ok(Seen::when(left.is_none(), (), || json!(left).to_string()))
        })
        .await;
        afterwards(async { gone }, remove_what_helm_forgot(&cluster)).await?;
        bystander.ends_unharmed(&cluster).await
    });
}

/// What a release has outside of its namespace, which nobody knows of any more: Helm's own record was in the namespace.
async fn remove_what_helm_forgot(cluster: &Cluster) -> Result {
    let ours = ListParams::default().labels("app.kubernetes.io/part-of=weft");
    let params = DeleteParams::default();
    cluster.all::<ClusterRole>().delete_collection(&params, &ours).await?;
    cluster.all::<ClusterRoleBinding>().delete_collection(&params, &ours).await?;
    cluster.all::<APIService>().delete_collection(&params, &ours).await?;
    cluster.api::<Role>("kube-system").delete_collection(&params, &ours).await?;
    cluster.api::<RoleBinding>("kube-system").delete_collection(&params, &ours).await?;
    Ok(())
}

/// The way out that docs/operations.md tells of.
#[test]
fn where_no_operator_will_come_back_a_forced_clean_up_takes_everything_out() {
    cluster::test(|cluster| async move {
        let bystander = Bystander::before_weft(&cluster, "e2e-forced").await?;
        installed(&cluster).await?;
        no_operator_is_left(&cluster).await?;
        mesh::meshconfigs(&cluster).delete("weft", &DeleteParams::default()).await?;
        create_account(&cluster, &bystander.ns, "cleanup").await?;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "e2e-cleanup" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "kind": "ServiceAccount", "name": "cleanup", "namespace": bystander.ns }],
        });
        let bindings: Api<ClusterRoleBinding> = cluster.all();
        bindings
            .patch("e2e-cleanup", &PatchParams::apply("weft-tests").force(), &Patch::Apply(binding))
            .await?;
        let pod = json!({
            "metadata": { "name": "cleanup" },
            "spec": {
                "serviceAccountName": "cleanup",
                "restartPolicy": "Never",
                "containers": [{ "name": "cleanup", "image": workloads::image("weft-operator"),
                    "args": ["--namespace", mesh::NAMESPACE, "cleanup", "--force"] }],
            },
        });
        let pods = cluster.api::<Pod>(&bystander.ns);
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let ended = wait::until("the clean-up has ended", GONE, async || {
            let phase = pods.get("cleanup").await?.status.and_then(|status| status.phase);
            Ok(Seen::when(phase.as_deref() == Some("Succeeded"), (), || format!("{phase:?}")))
        })
        .await;
        afterwards(async { ended }, async {
            bindings.delete("e2e-cleanup", &DeleteParams::default()).await?;
            Ok(())
        })
        .await?;
        no_meshconfig_is_left(&cluster).await?;
        assert_eq!(mesh::ports(&cluster).await?.len(), 0, "no shadow is left");
        mesh::helm_uninstall().await?;
        assert!(cluster.api::<ConfigMap>(mesh::NAMESPACE).get_opt("weft-ca").await?.is_none());
        bystander.ends_unharmed(&cluster).await
    });
}
