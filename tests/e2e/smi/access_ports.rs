//! Access by port: those of a `TCPRoute`, the one of a destination in older versions, and together with requests.

use serde_json::json;
use weft_tests::Result;
use weft_tests::cluster;
use weft_tests::smi::{group, ports, rule, target};
use weft_tests::stage::Stage;
use weft_tests::traffic::{get, get_until};
use weft_tests::wait::seconds;

use crate::scene;

async fn status(stage: &Stage, port: u16, path: &str) -> Result<Option<u16>> {
    let url = format!("http://{}:{port}{path}", stage.host("api"));
    let answers = get(&stage.cluster, stage.caller("alice")?, &url, &[]).await?;
    Ok(answers.first().ok_or("no answer was printed")?.status)
}

/// Waits until alice may call this port.
async fn allowed(stage: &Stage, port: u16, path: &str) -> Result {
    let url = format!("http://{}:{port}{path}", stage.host("api"));
    let alice = stage.caller("alice")?;
    get_until(&stage.cluster, alice, &url, "200", seconds(20), |answer| answer.status == Some(200)).await?;
    Ok(())
}

#[test]
fn a_route_of_tcp_limits_to_its_ports_and_those_are_the_services() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-ports").await?;
        let to_alice = |kind| target("alice", &["alice"], "api", &[rule(kind, "ports")]);
        stage.apply(&[ports("TCPRoute", "ports", &[80]), to_alice("TCPRoute")]).await?;
        allowed(&stage, 80, "/").await?;
        assert_eq!(status(&stage, 81, "/").await?, Some(403));
        stage.apply(&[ports("TCPRoute", "ports", &[81])]).await?;
        allowed(&stage, 81, "/").await?;
        assert_eq!(status(&stage, 80, "/").await?, Some(403));
        // The container's port is not meant.
        stage.apply(&[ports("TCPRoute", "ports", &[8080])]).await?;
        stage.answers("alice", "api", "/", &[], 403).await?;
        assert_eq!(status(&stage, 81, "/").await?, Some(403));
        // No port: any.
        stage.apply(&[ports("TCPRoute", "ports", &[])]).await?;
        allowed(&stage, 80, "/").await?;
        allowed(&stage, 81, "/").await?;
        // Ports of UDP are others.
        stage.apply(&[ports("UDPRoute", "ports", &[80, 81]), to_alice("UDPRoute")]).await?;
        stage.answers("alice", "api", "/", &[], 403).await?;
        stage.strike().await
    });
}

#[test]
fn with_ports_and_requests_both_must_fit() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-ports-requests").await?;
        let rules = [rule("TCPRoute", "second"), rule("HTTPRouteGroup", "read")];
        stage
            .apply(&[
                ports("TCPRoute", "second", &[81]),
                group("read", &json!([{ "name": "read", "pathRegex": "/read" }])),
                target("alice", &["alice"], "api", &rules),
            ])
            .await?;
        allowed(&stage, 81, "/read").await?;
        for (port, path) in [(81, "/write"), (80, "/read"), (80, "/write")] {
            assert_eq!(status(&stage, port, path).await?, Some(403), "{port} {path}");
        }
        stage.strike().await
    });
}

#[test]
fn the_port_of_a_destination_counts_in_the_versions_that_have_it() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-destination-port").await?;
        let older = json!({
            "apiVersion": "access.smi-spec.io/v1alpha2",
            "kind": "TrafficTarget",
            "metadata": { "name": "alice" },
            "spec": {
                "destination": { "kind": "ServiceAccount", "name": "api", "port": 81 },
                "sources": [{ "kind": "ServiceAccount", "name": "alice" }],
                "rules": [{ "kind": "TCPRoute", "name": "any" }],
            },
        });
        let any = json!({
            "apiVersion": "specs.smi-spec.io/v1alpha3",
            "kind": "TCPRoute",
            "metadata": { "name": "any" },
            "spec": {},
        });
        stage.apply(&[any, older]).await?;
        allowed(&stage, 81, "/").await?;
        assert_eq!(status(&stage, 80, "/").await?, Some(403), "the port widened to all");
        stage.strike().await
    });
}
