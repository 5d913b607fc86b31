//! The traffic type of a Service in use changes; its shadow, its name and its ports follow.

use serde_json::json;
use weft_tests::Result;
use weft_tests::cluster::{self, Cluster};
use weft_tests::mesh;
use weft_tests::protocols::{tcp, udp};
use weft_tests::services::{self, UserService};
use weft_tests::stage::Stage;
use weft_tests::traffic::get_until;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::Server;

/// Waits until the shadow has exactly these ports.
async fn shadow_has(cluster: &Cluster, ns: &str, wanted: &[(&str, i32)]) -> Result {
    wait::until(&format!("the shadow has the ports {wanted:?}"), seconds(30), async || {
        let shadow = mesh::shadow_of(cluster, ns, "all").await?;
        let ports = shadow.and_then(|shadow| shadow.spec?.ports).unwrap_or_default();
        let mut found: Vec<_> =
            ports.iter().map(|port| (port.protocol.as_deref().unwrap_or("TCP"), port.port)).collect();
        found.sort_unstable();
        Ok(Seen::when(found == wanted, (), || json!(ports).to_string()))
    })
    .await
}

#[test]
fn a_live_service_changes_from_http_to_tcp_to_udp_and_back() {
    cluster::side_by_side(|cluster| async move {
        let service = UserService::new("all", "")
            .selecting("side", "all")
            .tcp("web", 80, "http")
            .tcp("raw", 9000, "raw")
            .udp("datagrams", 5300, "datagrams");
        // A port by name leads to those pods only that have it.
        let servers = [
            Server::new("web", 1).label("side", "all"),
            Server::tcp("raw", 1).ports(&[("raw", 9000)]).label("side", "all"),
            Server::udp("datagrams", 1).ports(&[("datagrams", 5300)]).label("side", "all"),
        ];
        let stage = Stage::new(&cluster, "e2e-traffic-type", &servers, &[service]).await?;
        let (url, host) = (stage.url("all", "/"), stage.host("all"));
        let (to_tcp, to_udp) = (format!("{host}:9000"), format!("{host}:5300"));
        let ns = stage.ns.clone();

        for round in 0..2 {
            shadow_has(&cluster, &ns, &[("TCP", 80), ("TCP", 9000)]).await?;
            get_until(&cluster, stage.client(), &url, "carried as HTTP", seconds(30), |answer| {
                answer.status == Some(200) && answer.node().is_some()
            })
            .await?;
            if round == 1 {
                break;
            }

            services::ask(&cluster, &ns, "all", "traffic-type", Some("tcp")).await?;
            wait::until("the TCP server speaks first", seconds(30), async || {
                let report =
                    tcp(&cluster, stage.client(), &to_tcp, &["--mode", "echo", "--timeout", "2000"]).await?;
                Ok(Seen::when(report.ok == 1, (), || format!("{report:?}")))
            })
            .await?;
            shadow_has(&cluster, &ns, &[("TCP", 80), ("TCP", 9000)]).await?;
            // HTTP is bytes like any others now.
            get_until(&cluster, stage.client(), &url, "carried as TCP", seconds(30), |answer| {
                answer.status == Some(200)
                    && answer.node().is_none()
                    && answer.received("x-forwarded-for").is_none()
            })
            .await?;

            services::ask(&cluster, &ns, "all", "traffic-type", Some("udp")).await?;
            shadow_has(&cluster, &ns, &[("UDP", 5300)]).await?;
            wait::until("datagrams come back", seconds(30), async || {
                let report = udp(&cluster, stage.client(), &to_udp, &["-n", "3", "--timeout", "500"]).await?;
                Ok(Seen::when(report.received == 3, (), || format!("{report:?}")))
            })
            .await?;
            get_until(&cluster, stage.client(), &url, "no HTTP any more", seconds(30), |answer| {
                answer.status.is_none()
            })
            .await?;

            services::ask(&cluster, &ns, "all", "traffic-type", None).await?;
        }
        // Of datagrams nothing is left.
        let report = udp(&cluster, stage.client(), &to_udp, &["-n", "2", "--timeout", "500"]).await?;
        assert_eq!(report.received, 0, "{report:?}");
        stage.strike().await
    });
}
