//! Access control whatever is spoken: gRPC, WebSocket, backends that speak TLS; and what is denied is not tried, not even again.

use weft_tests::Result;
use weft_tests::certificates::Authority;
use weft_tests::cluster;
use weft_tests::protocols::{Call, grpc, websocket};
use weft_tests::services::UserService;
use weft_tests::smi::{group, rule, target};
use weft_tests::stage::Stage;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{Server, available};

use crate::scene;

async fn call(stage: &Stage, caller: &str) -> Result<Call> {
    let url = stage.url("echo", "");
    let mut calls = grpc(&stage.cluster, stage.caller(caller)?, &url, &["--metadata", "x-a=b"]).await?;
    Ok(calls.pop().ok_or("no call was made")?)
}

/// Waits until a call of `caller` ends with `status`.
async fn calls(stage: &Stage, caller: &str, status: i32) -> Result<Call> {
    wait::until(&format!("{caller}'s call ends with {status}"), seconds(30), async || {
        let call = call(stage, caller).await?;
        let state = format!("{call:?}");
        Ok(Seen::when(call.status == Some(status), call, || state))
    })
    .await
}

/// The status of what is not allowed.
const DENIED: i32 = 7;

#[test]
fn a_call_of_grpc_is_denied_in_its_own_words() {
    cluster::under_access_control(|cluster| async move {
        let servers = [Server::grpc("echo", 1).with_account()];
        let services = [UserService::grpc("echo", "echo")];
        let callers = ["alice", "bob"];
        let stage = Stage::with_callers(&cluster, "e2e-smi-grpc", &servers, &services, &callers).await?;
        let denied = calls(&stage, "alice", DENIED).await?;
        assert!(denied.message.contains("access denied"), "{denied:?}");
        // A call is a POST to the path of its method.
        let matches =
            serde_json::json!([{ "name": "echo", "pathRegex": "/weft.lab.v1.Echo/", "methods": ["POST"] }]);
        let rules = [rule("HTTPRouteGroup", "echo")];
        stage.apply(&[group("echo", &matches), target("alice", &["alice"], "echo", &rules)]).await?;
        let passed = calls(&stage, "alice", 0).await?;
        assert!(passed.replies.iter().all(|reply| reply.intact), "{passed:?}");
        assert_eq!(call(&stage, "bob").await?.status, Some(DENIED));
        stage
            .apply(&[group("echo", &serde_json::json!([{ "name": "other", "pathRegex": "/other" }]))])
            .await?;
        calls(&stage, "alice", DENIED).await?;
        stage.strike().await
    });
}

#[test]
fn a_websocket_is_denied_at_its_handshake() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-websocket").await?;
        let matches = serde_json::json!([{ "name": "ws", "pathRegex": "/ws", "methods": ["GET"] }]);
        let rules = [rule("HTTPRouteGroup", "ws")];
        stage.apply(&[group("ws", &matches), target("alice", &["alice"], "api", &rules)]).await?;
        stage.answers("alice", "api", "/ws", &[], 200).await?;
        let url = stage.url("api", "/ws");
        let hers = websocket(&cluster, stage.caller("alice")?, &url, &["--sizes", "5,70000"]).await?;
        assert_eq!((hers.status, &hers.error), (Some(101), &None), "{hers:?}");
        assert!(hers.echoes.len() == 4 && hers.echoes.iter().all(|echo| echo.intact), "{hers:?}");
        let his = websocket(&cluster, stage.caller("bob")?, &url, &[]).await?;
        assert_eq!(his.status, Some(403), "{his:?}");
        stage.strike().await
    });
}

#[test]
fn a_backend_that_speaks_tls_is_no_exception() {
    cluster::under_access_control(|cluster| async move {
        let stage = Stage::with_callers(&cluster, "e2e-smi-https", &[], &[], &["alice", "bob"]).await?;
        let authority = Authority::new("lab")?;
        authority.issue(&cluster, &stage.ns, "api-tls", &[format!("api.{}.svc", stage.ns)]).await?;
        Server::https("api", 1, "api-tls").with_account().create(&cluster, &stage.ns).await?;
        let service = UserService::new("api", "api").tcp("https", 80, "https").ask("scheme", "https");
        service.ask("upstream-ca", authority.pem()).create(&cluster, &stage.ns).await?;
        available(&cluster, &stage.ns, "api").await?;
        stage.answers("alice", "api", "/", &[], 403).await?;
        stage.apply(&[target("alice", &["alice"], "api", &[])]).await?;
        stage.answers("alice", "api", "/", &[], 200).await?.assert_from("api");
        assert_eq!(stage.get_as("bob", "api", "/", &[]).await?.status, Some(403));
        stage.strike().await
    });
}

#[test]
fn what_is_allowed_is_tried_again_and_what_is_denied_never_tried() {
    cluster::under_access_control(|cluster| async move {
        let servers = [Server::new("api", 2).with_account()];
        let services = [UserService::http("api", "api").ask("retry-attempts", "3")];
        let callers = ["alice", "bob"];
        let stage = Stage::with_callers(&cluster, "e2e-smi-retries", &servers, &services, &callers).await?;
        stage.apply(&[target("alice", &["alice"], "api", &[])]).await?;
        stage.answers("alice", "api", "/", &[], 200).await?;
        let hers = stage.get_as("alice", "api", "/?close&first=1&key=hers", &[]).await?;
        assert_eq!(hers.status, Some(200), "{hers:?}");
        let his = stage.get_as("bob", "api", "/?close&first=1&key=his", &[]).await?;
        assert_eq!(his.status, Some(403), "{his:?}");
        // Each of the two servers hung up once.
        assert_eq!((stage.seen("api", "hers").await?, stage.seen("api", "his").await?), (3, 0));
        stage.strike().await
    });
}
