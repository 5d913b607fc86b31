//! What the conformance suite of the Service Mesh Interface asks of access and of routes, restated: thirteen of its
//! twenty-four steps, with our server as its application. The others are in `split_conformance`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::json;
use weft_tests::Result;
use weft_tests::cluster::{self, Cluster};
use weft_tests::services::UserService;
use weft_tests::smi::{group, ports, rule, target};
use weft_tests::stage::Stage;
use weft_tests::workloads::Server;

/// The cluster knows the kind by this group and short name.
pub(crate) async fn is_defined(
    cluster: &Cluster,
    plural: &str,
    group: &str,
    kind: &str,
    short: &str,
) -> Result {
    let crd = cluster.all::<CustomResourceDefinition>().get(&format!("{plural}.{group}")).await?;
    let names = crd.spec.names;
    assert_eq!((&*crd.spec.group, &*names.kind, &*names.plural), (group, kind, plural));
    assert!(names.short_names.unwrap_or_default().iter().any(|name| name == short), "{kind} has no {short}");
    Ok(())
}

/// Services `app-a`, `app-b` and `app-c` on port 9091, and callers that run as the same accounts.
async fn apps(cluster: &Cluster, ns: &str) -> Result<Stage> {
    let names = ["app-a", "app-b", "app-c"];
    let servers = names.map(|name| Server::new(name, 1).with_account());
    let services = names.map(|name| UserService::new(name, name).tcp("http", 9091, "http"));
    Stage::with_callers(cluster, ns, &servers, &services, &names).await
}

/// One call from `app-a` to `app-b`, until its status is `status`.
async fn calls(stage: &Stage, method: &str, path: &str, status: u16) -> Result {
    let service = format!("app-b.{}.weft.mesh:9091", stage.ns);
    let url = format!("http://{service}{path}");
    let args = ["--method", method, "--header", "ServiceName: app-a"];
    let what = format!("{method} {path} gets {status}");
    weft_tests::wait::until(&what, weft_tests::wait::seconds(30), async || {
        let answers = weft_tests::traffic::get(&stage.cluster, stage.caller("app-a")?, &url, &args).await?;
        let answer = &answers[0];
        if answer.status == Some(200) {
            answer.assert_from("app-b");
            assert_eq!(answer.received("servicename"), Some("app-a"), "{answer:?}");
        }
        let state = format!("{answer:?}");
        Ok(weft_tests::wait::Seen::when(answer.status == Some(status), (), || state))
    })
    .await
}

#[test]
fn access_is_denied_granted_and_denied_again() {
    cluster::under_access_control(|cluster| async move {
        // 1: the kind is there. 2: so are three applications with an account each.
        is_defined(&cluster, "traffictargets", "access.smi-spec.io", "TrafficTarget", "tt").await?;
        let stage = apps(&cluster, "e2e-smi-conform-access").await?;
        // 3: a call fails with an answer.
        calls(&stage, "GET", "/echo", 403).await?;
        // 4, 5: with a route of TCP and a target it succeeds, and only from there to there.
        let route = ports("TCPRoute", "tcp", &[]);
        let target = target("a-to-b", &["app-a"], "app-b", &[rule("TCPRoute", "tcp")]);
        stage.apply(&[route.clone(), target.clone()]).await?;
        calls(&stage, "GET", "/echo", 200).await?;
        let to_c = format!("http://app-c.{}.weft.mesh:9091/echo", stage.ns);
        let denied = weft_tests::traffic::get(&cluster, stage.caller("app-a")?, &to_c, &[]).await?;
        assert_eq!(denied[0].status, Some(403), "{denied:?}");
        // 6, 7: with both gone it fails again.
        stage.delete(&target).await?;
        stage.delete(&route).await?;
        calls(&stage, "GET", "/echo", 403).await?;
        stage.strike().await
    });
}

#[test]
fn routes_are_for_the_paths_and_methods_they_say() {
    cluster::under_access_control(|cluster| async move {
        // 1: the kind is there. 2: so are the applications.
        is_defined(&cluster, "httproutegroups", "specs.smi-spec.io", "HTTPRouteGroup", "htr").await?;
        let stage = apps(&cluster, "e2e-smi-conform-routes").await?;
        let to_b = target("a-to-b", &["app-a"], "app-b", &[rule("HTTPRouteGroup", "routes")]);
        // 3, 4: by path, whatever the method.
        let by_path = json!([{ "name": "metrics", "pathRegex": "/metrics", "methods": ["*"] }]);
        stage.apply(&[group("routes", &by_path), to_b]).await?;
        calls(&stage, "GET", "/metrics", 200).await?;
        calls(&stage, "DELETE", "/metrics", 200).await?;
        calls(&stage, "GET", "/echo", 403).await?;
        // 5, 6: by method, whatever the path.
        let by_method = json!([{ "name": "read", "pathRegex": ".*", "methods": ["GET"] }]);
        stage.apply(&[group("routes", &by_method)]).await?;
        calls(&stage, "GET", "/echo", 200).await?;
        calls(&stage, "POST", "/echo", 403).await?;
        stage.strike().await
    });
}
