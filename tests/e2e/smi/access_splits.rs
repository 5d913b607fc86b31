//! Splits under access control: who calls the root must be admitted by every backend that has a share.

use weft_tests::cluster;
use weft_tests::services::UserService;
use weft_tests::smi::{split, target};
use weft_tests::stage::Stage;
use weft_tests::workloads::Server;

#[test]
fn every_backend_must_admit_the_caller() {
    cluster::under_access_control(|cluster| async move {
        let servers = ["v1", "v2"].map(|name| Server::new(name, 1).with_account());
        // Nobody is behind the root itself.
        let services = ["web", "v1", "v2"].map(|name| UserService::http(name, name));
        let callers = ["alice", "bob"];
        let stage =
            Stage::with_callers(&cluster, "e2e-smi-split-access", &servers, &services, &callers).await?;
        let halves = split("halves", "web", &[("v1", 1), ("v2", 1)]);
        let (both, one) =
            (target("both", &["alice"], "v2", &[]), target("one", &["alice", "bob"], "v1", &[]));
        stage.apply(&[halves, both, one]).await?;
        stage.answers("alice", "web", "/", &[], 200).await?;
        stage.answers("bob", "v1", "/", &[], 200).await?;
        // Not by chance: never.
        for _ in 0..30 {
            let hers = stage.get_as("alice", "web", "/", &[]).await?;
            assert_eq!(hers.status, Some(200), "{hers:?}");
            let his = stage.get_as("bob", "web", "/", &[]).await?;
            assert_eq!(his.status, Some(403), "{his:?}");
            assert!(his.text().contains(&format!("{}/v2", stage.ns)), "v2 is not named: {his:?}");
        }
        // Where the other has no share, it has no say.
        stage.apply(&[split("halves", "web", &[("v1", 1), ("v2", 0)])]).await?;
        stage.answers("bob", "web", "/", &[], 200).await?.assert_from("v1");
        stage.apply(&[split("halves", "web", &[("v1", 1), ("v2", 1)])]).await?;
        stage.answers("bob", "web", "/", &[], 403).await?;
        stage.apply(&[target("both", &["alice", "bob"], "v2", &[])]).await?;
        stage.answers("bob", "web", "/", &[], 200).await?;
        stage.strike().await
    });
}

#[test]
fn a_target_for_the_roots_own_account_opens_no_backend() {
    cluster::under_access_control(|cluster| async move {
        let servers = ["web", "v1"].map(|name| Server::new(name, 1).with_account());
        let services = ["web", "v1"].map(|name| UserService::http(name, name));
        let stage =
            Stage::with_callers(&cluster, "e2e-smi-split-root", &servers, &services, &["alice"]).await?;
        let all = split("all", "web", &[("v1", 1)]);
        stage.apply(&[target("root", &["alice"], "web", &[])]).await?;
        stage.answers("alice", "web", "/", &[], 200).await?.assert_from("web");
        stage.apply([&all]).await?;
        stage.answers("alice", "web", "/", &[], 403).await?;
        stage.delete(&all).await?;
        stage.answers("alice", "web", "/", &[], 200).await?.assert_from("web");
        stage.strike().await
    });
}
