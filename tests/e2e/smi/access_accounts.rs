//! Who is who: targets add up, accounts may be of other namespaces, and who has no account of its own is nobody. Names that
//! bypass the mesh are as they always were.

use serde_json::json;
use weft_tests::clients::ClientPod;
use weft_tests::cluster;
use weft_tests::smi::{group, rule, target};
use weft_tests::stage::Stage;
use weft_tests::traffic::{Answer, get, get_until};
use weft_tests::wait::seconds;

use crate::scene;

#[test]
fn targets_add_up_and_none_takes_away_what_another_allows() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-union").await?;
        let matches = json!([{ "name": "read", "methods": ["GET"] }]);
        let rules = [rule("HTTPRouteGroup", "read")];
        // The same for two callers, in two targets; and more, for one of them, in a third.
        let (hers, his) = (target("hers", &["alice"], "api", &rules), target("his", &["bob"], "api", &rules));
        let all = target("all", &["bob"], "api", &[]);
        stage.apply(&[group("read", &matches), hers.clone(), his, all.clone()]).await?;
        let post = ["--method", "POST"];
        stage.answers("alice", "api", "/", &[], 200).await?;
        stage.answers("bob", "api", "/", &[], 200).await?;
        stage.answers("bob", "api", "/", &post, 200).await?;
        assert_eq!(stage.get_as("alice", "api", "/", &post).await?.status, Some(403));
        stage.delete(&all).await?;
        stage.answers("bob", "api", "/", &post, 403).await?;
        for caller in ["alice", "bob"] {
            assert_eq!(stage.get_as(caller, "api", "/", &[]).await?.status, Some(200), "{caller}");
        }
        stage.delete(&hers).await?;
        stage.answers("alice", "api", "/", &[], 403).await?;
        assert_eq!(stage.get_as("bob", "api", "/", &[]).await?.status, Some(200));
        stage.strike().await
    });
}

#[test]
fn an_account_is_one_of_its_namespace() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-served").await?;
        // A namesake of the caller that is allowed, and one that is not.
        let away = Stage::with_callers(&cluster, "e2e-smi-calling", &[], &[], &["alice", "bob"]).await?;
        stage.apply(&[target("guest", &["e2e-smi-calling/alice"], "api", &[])]).await?;
        let (url, passes) = (stage.url("api", "/"), |answer: &Answer| answer.status == Some(200));
        get_until(&cluster, away.caller("alice")?, &url, "200", seconds(30), passes).await?;
        let others = get(&cluster, away.caller("bob")?, &url, &[]).await?;
        assert_eq!(others[0].status, Some(403), "{others:?}");
        let namesake = stage.get_as("alice", "api", "/", &[]).await?;
        assert_eq!(namesake.status, Some(403), "{namesake:?}");
        assert!(namesake.text().contains(&format!("{}/alice", stage.ns)), "{namesake:?}");
        away.strike().await?;
        stage.strike().await
    });
}

#[test]
fn whoever_has_the_network_of_the_node_is_nobody() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-host").await?;
        let host = ClientPod::new("host", &cluster.nodes[0]).with_account().on_the_hosts_network();
        let host = host.start(&cluster, &stage.ns).await?;
        stage.apply(&[target("all", &["alice", "host", "default"], "api", &[])]).await?;
        stage.answers("alice", "api", "/", &[], 200).await?;
        // Whoever is not known is waited for.
        let args = ["--timeout", "10000"];
        let denied = get(&cluster, &host, &stage.url("api", "/"), &args).await?;
        assert_eq!(denied[0].status, Some(403), "{denied:?}");
        assert!(denied[0].text().contains("no pod whose ServiceAccount is known"), "{denied:?}");
        stage.strike().await
    });
}

#[test]
fn names_that_bypass_the_mesh_are_not_concerned() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-plain").await?;
        stage.answers("bob", "api", "/", &[], 403).await?;
        for host in ["api".to_owned(), format!("api.{}.svc.cluster.local", stage.ns)] {
            // kube-proxy, which carries these, learns of new endpoints in its own time.
            let url = format!("http://{host}/");
            let answered = |answer: &Answer| answer.status.is_some();
            let answer =
                get_until(&cluster, stage.caller("bob")?, &url, "an answer", seconds(30), answered).await?;
            answer.assert_from("api");
            assert!(answer.node().is_none(), "it went through the mesh: {answer:?}");
        }
        stage.strike().await
    });
}
