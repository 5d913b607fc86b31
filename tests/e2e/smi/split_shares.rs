//! Splits: the shares are those of the weights, and what cannot take its share leaves it to the others; its author is told.

use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use weft_tests::cluster;
use weft_tests::services::UserService;
use weft_tests::smi::{self, split};
use weft_tests::stage::Stage;
use weft_tests::wait::seconds;
use weft_tests::workloads::{Server, available, has_endpoints, scale};

use crate::scene::{self, leads, settles, shares};

/// So many that chance alone is not further off than a hundredth in one of thousands of runs.
const REQUESTS: u32 = 12_000;

#[test]
fn shares_are_those_of_the_weights_to_the_hundredth() {
    cluster::side_by_side(|cluster| async move {
        let stage = scene::split(&cluster, "e2e-smi-shares").await?;
        for weights in [[90, 10], [1, 99]] {
            let [one, two] = weights;
            stage.apply(&[split("shares", "web", &[("v1", one), ("v2", two)])]).await?;
            // Of the last weights nothing is left once the lighter has become the heavier.
            let heavier = if one > two { "v1" } else { "v2" };
            leads(&stage, "web", heavier).await?;
            let shares = shares(&stage, "web", &["v1", "v2"], REQUESTS).await?;
            for (app, weight) in [("v1", one), ("v2", two)] {
                let (got, wanted) = (shares.get(app).copied().unwrap_or(0.0), f64::from(weight) / 100.0);
                assert!((got - wanted).abs() < 0.01, "{app} got {got} instead of {wanted}: {shares:?}");
            }
        }
        stage.strike().await
    });
}

#[test]
fn without_the_split_the_root_has_its_traffic_again() {
    cluster::side_by_side(|cluster| async move {
        let stage = scene::split(&cluster, "e2e-smi-unsplit").await?;
        let halves = split("halves", "web", &[("v1", 1), ("v2", 1)]);
        stage.apply([&halves]).await?;
        settles(&stage, "web", &[], &["v1", "v2"]).await?;
        // Who calls a backend by its name gets that one.
        settles(&stage, "v1", &[], &["v1"]).await?;
        // The root as one of its own backends is what is behind it.
        stage.apply(&[split("halves", "web", &[("web", 1), ("v2", 1)])]).await?;
        settles(&stage, "web", &[], &["v2", "web"]).await?;
        stage.delete(&halves).await?;
        settles(&stage, "web", &[], &["web"]).await?;
        stage.strike().await
    });
}

#[test]
fn a_root_needs_neither_pods_nor_a_selector() {
    cluster::side_by_side(|cluster| async move {
        let servers = ["v1", "v2"].map(|name| Server::new(name, 1));
        let services = [
            UserService::http("v1", "v1"),
            UserService::http("v2", "v2"),
            UserService::http("empty", "nobody"),
        ];
        let stage = Stage::new(&cluster, "e2e-smi-bare-root", &servers, &services).await?;
        let bare =
            json!({ "metadata": { "name": "bare" }, "spec": { "ports": [{ "name": "http", "port": 80 }] } });
        cluster
            .api::<Service>(&stage.ns)
            .create(&PostParams::default(), &serde_json::from_value(bare)?)
            .await?;
        for root in ["empty", "bare"] {
            stage.apply(&[split(root, root, &[("v1", 1), ("v2", 1)])]).await?;
        }
        for root in ["empty", "bare"] {
            settles(&stage, root, &[], &["v1", "v2"]).await?;
        }
        stage.strike().await
    });
}

#[test]
fn a_backend_that_cannot_take_its_share_leaves_it_to_the_others() {
    cluster::side_by_side(|cluster| async move {
        let stage = scene::split(&cluster, "e2e-smi-missing-backend").await?;
        UserService::new("elsewhere", "v1").tcp("http", 8080, "http").create(&cluster, &stage.ns).await?;
        let backends = [("v1", 1), ("v2", 1), ("gone", 8), ("elsewhere", 8)];
        let shares = split("shares", "web", &backends);
        stage.apply([&shares]).await?;
        settles(&stage, "web", &[], &["v1", "v2"]).await?;
        let why = smi::verdict(&cluster, &stage.ns, &shares, smi::PARTLY_APPLIED).await?;
        assert!(why.contains("gone") && why.contains("elsewhere") && why.contains("no port 80"), "{why}");
        let (kind, _) = smi::told(&cluster, &stage.ns, &shares, smi::PARTLY_APPLIED, "gone").await?;
        assert_eq!(kind, "Warning");
        // It may come later.
        UserService::http("gone", "web").create(&cluster, &stage.ns).await?;
        settles(&stage, "web", &[], &["v1", "v2", "web"]).await?;

        // One without endpoints is passed over while it has none.
        stage.apply(&[split("shares", "web", &[("v1", 1), ("v2", 1)])]).await?;
        scale(&cluster, &stage.ns, "v2", 0).await?;
        has_endpoints(&cluster, &stage.ns, "v2", 0, seconds(60)).await?;
        settles(&stage, "web", &[], &["v1"]).await?;
        scale(&cluster, &stage.ns, "v2", 1).await?;
        available(&cluster, &stage.ns, "v2").await?;
        settles(&stage, "web", &[], &["v1", "v2"]).await?;

        // With no backend left the root itself is better than nobody.
        for name in ["v1", "v2"] {
            cluster.api::<Service>(&stage.ns).delete(name, &DeleteParams::default()).await?;
        }
        settles(&stage, "web", &[], &["web"]).await?;
        smi::verdict(&cluster, &stage.ns, &shares, smi::REJECTED).await?;
        smi::told(&cluster, &stage.ns, &shares, smi::REJECTED, "no backend is left").await?;
        stage.strike().await
    });
}
