//! With no operator anywhere, a proxy that starts again serves what it knew.

use std::time::Duration;

use kube::ResourceExt;
use serde::Deserialize;
use serde_json::json;
use weft_tests::node::{Embedded, container_id};
use weft_tests::traffic::reaches;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{self, Server, scale};
use weft_tests::{cluster, exec, mesh};

/// Within this of its start a proxy must answer.
const SERVES: Duration = Duration::from_secs(1);

/// One line of `weft-lab probe`.
#[derive(Debug, Deserialize)]
struct Change {
    #[serde(default)]
    answered_us: u64,
    #[serde(default)]
    answer: serde_json::Value,
}

#[test]
fn a_proxy_restarted_without_operator_serves_from_its_snapshot_within_a_second() {
    cluster::test(|cluster| async move {
        let Some(embedded) = Embedded::needed_for("that a restarted proxy serves from its snapshot") else {
            return Ok(());
        };
        mesh::installed(&cluster).await?;
        let ns = workloads::namespace(&cluster, "e2e-snapshot").await?;
        Server::new("whoami", 1).deploy(&cluster, &ns).await?;
        workloads::service(&cluster, &ns, "whoami", "whoami", &[("http", 80, json!("http"))]).await?;
        let clients = workloads::clients(&cluster, &ns).await?;
        let url = format!("http://whoami.{ns}.weft.mesh/");
        reaches(&cluster, &clients[0], &url, "whoami", seconds(30)).await?;
        let node = cluster.nodes[0].clone();
        let proxy = mesh::proxy_on(&cluster, &node).await?;

        scale(&cluster, mesh::NAMESPACE, "weft-operator", 0).await?;
        wait::until("no operator is left", seconds(60), async || {
            let left = mesh::operators(&cluster).await?;
            Ok(Seen::when(left.is_empty(), (), || format!("{} pods", left.len())))
        })
        .await?;

        // The probe goes to this very proxy: meanwhile the Service leads to those that are ready.
        let shadow = mesh::shadow_of(&cluster, &ns, "whoami").await?.ok_or("no shadow")?.name_any();
        let listen = mesh::ports(&cluster).await?[&format!("{shadow}:80")];
        let address = proxy.status.as_ref().and_then(|status| status.pod_ip.clone()).ok_or("no pod IP")?;
        let direct = format!("http://{address}:{listen}/");
        let command = ["/weft-lab", "probe", &direct, "--every-ms", "5", "--until-stdin"];
        let mut probe = exec::start(&cluster, &clients[0], &command.map(str::to_owned)).await?;
        let changes = |text: String| -> Vec<Change> {
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
        };
        let answers = |change: &Change| change.answer["pod"].is_string();
        wait::until("the probe gets answers", seconds(10), async || {
            Ok(Seen::when(changes(probe.printed()).iter().any(answers), (), || probe.told()))
        })
        .await?;

        let (old, old_id) = (embedded.process_of(&proxy).await?, container_id(&proxy));
        embedded.signal(&old, "KILL").await?;
        let pods = cluster.api::<k8s_openapi::api::core::v1::Pod>(mesh::NAMESPACE);
        let again = wait::until("the kubelet has started the container again", seconds(60), async || {
            let pod = pods.get(&proxy.name_any()).await?;
            let id = container_id(&pod);
            let state = workloads::phase(&pod);
            Ok(Seen::when(id.is_some() && id != old_id, pod, || state))
        })
        .await?;
        let started = embedded.started(&embedded.process_of(&again).await?).await?;
        let served = wait::until("the proxy answers again", seconds(10), async || {
            let changes = changes(probe.printed());
            let since = changes.iter().position(|change| change.answer["error"].is_string());
            let back = since.and_then(|at| changes[at..].iter().find(|change| answers(change)));
            let back = back.map(|change| Duration::from_micros(change.answered_us));
            Ok(Seen::when(back.is_some(), back.unwrap_or_default(), || format!("{changes:?}")))
        })
        .await?;
        let took = served.saturating_sub(started);
        eprintln!("  first answer {} ms after the process began", took.as_millis());
        assert!(took <= SERVES, "{took:?}");
        probe.tell_to_end().await?;
        probe.output().await?;

        workloads::pod_ready(cluster.client.clone(), &mesh::pod_ref(&proxy), seconds(30)).await?;
        reaches(&cluster, &clients[0], &url, "whoami", seconds(10)).await?;
        scale(&cluster, mesh::NAMESPACE, "weft-operator", 2).await?;
        workloads::available(&cluster, mesh::NAMESPACE, "weft-operator").await?;
        mesh::ready(&cluster, seconds(60)).await?;
        workloads::remove_namespace(&cluster, &ns).await
    });
}
