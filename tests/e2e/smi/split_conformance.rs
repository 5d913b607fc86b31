//! What the conformance suite of the Service Mesh Interface asks of splits, restated: eleven of its twenty-four steps, by the
//! names of the mesh where the suite uses the cluster's. The others are in `access_conformance`.

use std::collections::BTreeMap;

use weft_tests::Result;
use weft_tests::cluster;
use weft_tests::services::UserService;
use weft_tests::smi::split;
use weft_tests::stage::Stage;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::Server;

use crate::access_conformance::is_defined;
use crate::scene::answered;

/// Waits until fifty calls are answered as wanted; (by b, by c).
async fn fifty(stage: &Stage, what: &str, wanted: impl Fn(u32, u32) -> bool) -> Result {
    wait::until(what, seconds(30), async || {
        let by: BTreeMap<_, _> = answered(stage, "app-svc", &[], 50).await?;
        let of = |app: &str| by.get(app).copied().unwrap_or_default();
        Ok(Seen::when(wanted(of("app-b"), of("app-c")), (), || format!("{by:?}")))
    })
    .await
}

#[test]
fn traffic_follows_the_weights() {
    cluster::side_by_side(|cluster| async move {
        // 1: the kind is there.
        is_defined(&cluster, "trafficsplits", "split.smi-spec.io", "TrafficSplit", "ts").await?;
        // 2: two applications, a Service each and one before both.
        let servers = ["app-b", "app-c"].map(|name| Server::new(name, 1).label("app-of", "svc"));
        let services = [
            UserService::http("app-b", "app-b"),
            UserService::http("app-c", "app-c"),
            UserService::http("app-svc", "").selecting("app-of", "svc"),
        ];
        let stage = Stage::new(&cluster, "e2e-smi-conform-split", &servers, &services).await?;
        // 3: without a split both get some.
        fifty(&stage, "both get some", |b, c| b > 0 && c > 0).await?;
        // 4, 5 and 6, 7: all to one, then all to the other.
        stage.apply(&[split("split", "app-svc", &[("app-b", 1), ("app-c", 0)])]).await?;
        fifty(&stage, "b gets all", |b, c| (b, c) == (50, 0)).await?;
        stage.apply(&[split("split", "app-svc", &[("app-b", 0), ("app-c", 1)])]).await?;
        fifty(&stage, "c gets all", |b, c| (b, c) == (0, 50)).await?;
        // 8, 9 and 10, 11: the heavier gets more.
        stage.apply(&[split("split", "app-svc", &[("app-b", 75), ("app-c", 25)])]).await?;
        fifty(&stage, "b gets more", |b, c| b > c && c > 0).await?;
        stage.apply(&[split("split", "app-svc", &[("app-b", 25), ("app-c", 75)])]).await?;
        fifty(&stage, "c gets more", |b, c| c > b && b > 0).await?;
        stage.strike().await
    });
}
