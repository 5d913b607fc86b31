//! A Service's life: its name, its shadow and its ports follow it, and are given back.

use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use weft_tests::traffic::{Queries, get_until, reaches};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{self, Server};
use weft_tests::{cluster, mesh};

#[test]
fn name_shadow_and_ports_follow_a_service_and_are_freed() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let ns = workloads::namespace(&cluster, "e2e-services").await?;
        Server::new("whoami", 1).deploy(&cluster, &ns).await?;
        let clients = workloads::clients(&cluster, &ns).await?;
        let name = format!("whoami.{ns}.weft.mesh");
        let shadow = async || mesh::shadow_of(&cluster, &ns, "whoami").await;
        let shadow_ports = async || {
            let ports = shadow().await?.and_then(|shadow| shadow.spec?.ports).unwrap_or_default();
            let describe = |port: k8s_openapi::api::core::v1::ServicePort| {
                format!("{}:{}", port.name.unwrap_or_default(), port.port)
            };
            Ok::<_, weft_tests::Failure>(ports.into_iter().map(describe).collect::<Vec<_>>())
        };
        let follows = async |wanted: &[&str]| {
            wait::until(&format!("the shadow has the ports {wanted:?}"), seconds(20), async || {
                let ports = shadow_ports().await?;
                Ok(Seen::when(ports == wanted, (), || format!("{ports:?}")))
            })
            .await
        };
        assert!(shadow().await?.is_none(), "no Service, no shadow");

        // Created.
        workloads::service(&cluster, &ns, "whoami", "whoami", &[("http", 80, json!("http"))]).await?;
        follows(&["http:80"]).await?;
        reaches(&cluster, &clients[0], &format!("http://{name}/"), "whoami", seconds(30)).await?;

        // A port renamed, and one with another number beside it.
        let ports = json!([
            { "name": "web", "port": 80, "targetPort": "http" },
            { "name": "second", "port": 8000, "targetPort": 8080 },
        ]);
        let patch = Patch::Merge(json!({ "spec": { "ports": ports } }));
        let services = cluster.api::<Service>(&ns);
        services.patch("whoami", &PatchParams::default(), &patch).await?;
        follows(&["web:80", "second:8000"]).await?;
        for port in [80, 8000] {
            reaches(&cluster, &clients[1], &format!("http://{name}:{port}/"), "whoami", seconds(20)).await?;
        }

        // Deleted: the name, the shadow and the ports are gone, in the proxies as well.
        // What the shadows record; the status follows it a moment later.
        let before = u64::try_from(mesh::ports(&cluster).await?.len()).ok();
        let held: Vec<_> = mesh::ports(&cluster)
            .await?
            .into_iter()
            .filter(|(key, _)| key.contains("e2e-services"))
            .map(|(_, listen)| u16::try_from(listen).unwrap())
            .collect();
        assert_eq!(held.len(), 2);
        services.delete("whoami", &DeleteParams::default()).await?;
        wait::until("the shadow is gone", seconds(20), async || {
            let left = shadow().await?;
            Ok(Seen::when(left.is_none(), (), || json!(left).to_string()))
        })
        .await?;
        get_until(&cluster, &clients[0], &format!("http://{name}/"), "no such name", seconds(40), |answer| {
            answer.error.as_ref().is_some_and(|error| error.contains("no such name"))
        })
        .await?;
        let asked = Queries::start(&cluster, &clients[0], 50, &[&format!("{name}=NXDOMAIN")]).await?;
        let report = asked.stop().await?;
        assert_eq!(report.failed, 0, "{report:?}");
        wait::until("every proxy gives the ports back", seconds(60), async || {
            let mut state = Vec::new();
            for pod in mesh::proxies(&cluster).await? {
                let listening = mesh::proxy_status(&cluster, &pod).await?.listen_ports;
                state.extend(listening.into_iter().filter(|port| held.contains(port)));
            }
            Ok(Seen::when(state.is_empty(), (), || format!("still held: {state:?}")))
        })
        .await?;
        wait::until("the status counts two ports less", seconds(30), async || {
            let used = mesh::status(&cluster).await?["ports"]["used"].as_u64();
            Ok(Seen::when(used == before.map(|used| used - 2), (), || format!("{used:?}, before {before:?}")))
        })
        .await?;
        workloads::remove_namespace(&cluster, &ns).await
    });
}
