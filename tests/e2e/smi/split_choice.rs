//! Which splits are in force: of several of one Service the oldest; those within others as well; of a loop all but the one that
//! closes it.

use weft_tests::Result;
use weft_tests::cluster;
use weft_tests::services::UserService;
use weft_tests::smi::{self, split};
use weft_tests::stage::Stage;
use weft_tests::wait::{self, Seen, seconds};

use crate::scene::{self, settles};

/// Waits until the clock has passed the second in which `object` was made: ages are told in seconds.
async fn let_age(stage: &Stage, object: &serde_json::Value) -> Result {
    let made = smi::made_at(&stage.cluster, &stage.ns, object).await?;
    wait::until("a second has passed", seconds(5), async || {
        // By the API server's clock, which is another on another cluster.
        let marker = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "clock" },
        });
        smi::apply(&stage.cluster, &stage.ns, &marker).await?;
        let now = smi::made_at(&stage.cluster, &stage.ns, &marker).await?;
        smi::delete(&stage.cluster, &stage.ns, &marker).await?;
        Ok(Seen::when(now > made, (), || format!("{now}, made at {made}")))
    })
    .await
}

#[test]
fn of_several_splits_the_oldest_is_in_force_and_the_next_follows_it() {
    cluster::side_by_side(|cluster| async move {
        let stage = scene::split(&cluster, "e2e-smi-oldest").await?;
        // By name they would come the other way round.
        let (older, younger) = (split("z", "web", &[("v1", 1)]), split("a", "web", &[("v2", 1)]));
        stage.apply([&older]).await?;
        let_age(&stage, &older).await?;
        stage.apply([&younger]).await?;
        let why = smi::verdict(&cluster, &stage.ns, &younger, smi::REJECTED).await?;
        assert!(why.contains(&format!("{}/z", stage.ns)), "{why}");
        let (kind, _) = smi::told(&cluster, &stage.ns, &younger, smi::REJECTED, "older").await?;
        assert_eq!(kind, "Warning");
        smi::verdict(&cluster, &stage.ns, &older, smi::ACCEPTED).await?;
        settles(&stage, "web", &[], &["v1"]).await?;
        stage.delete(&older).await?;
        settles(&stage, "web", &[], &["v2"]).await?;
        smi::verdict(&cluster, &stage.ns, &younger, smi::ACCEPTED).await?;
        smi::told(&cluster, &stage.ns, &younger, smi::ACCEPTED, "").await?;
        stage.strike().await
    });
}

#[test]
fn a_share_is_divided_further_by_its_own_split() {
    cluster::side_by_side(|cluster| async move {
        let stage = scene::split(&cluster, "e2e-smi-nested").await?;
        for name in ["outer", "inner"] {
            UserService::http(name, "nobody").create(&cluster, &stage.ns).await?;
        }
        let inner = split("inner", "inner", &[("v1", 1), ("v2", 1)]);
        stage.apply(&[split("outer", "outer", &[("inner", 1), ("web", 1)]), inner.clone()]).await?;
        // A quarter, a quarter and a half.
        settles(&stage, "outer", &[], &["v1", "v2", "web"]).await?;
        let by = scene::answered(&stage, "outer", &[], 400).await?;
        let of = |app: &str| by.get(app).copied().unwrap_or_default();
        assert!((150..250).contains(&of("web")), "a half: {by:?}");
        assert!((60..140).contains(&of("v1")) && (60..140).contains(&of("v2")), "a quarter each: {by:?}");
        // The inner one changes for itself.
        stage.apply(&[split("inner", "inner", &[("v2", 1)])]).await?;
        settles(&stage, "outer", &[], &["v2", "web"]).await?;
        // Without it there is nobody behind the inner Service, and the others have its share.
        stage.delete(&inner).await?;
        settles(&stage, "outer", &[], &["web"]).await?;
        stage.strike().await
    });
}

#[test]
fn the_split_that_closes_a_loop_is_dropped_and_traffic_flows() {
    cluster::side_by_side(|cluster| async move {
        let stage = scene::split(&cluster, "e2e-smi-loop").await?;
        let ring = [("web", "v1"), ("v1", "v2"), ("v2", "web")]
            .map(|(root, backend)| split(&format!("{root}-to-{backend}"), root, &[(backend, 1)]));
        for split in &ring {
            stage.apply([split]).await?;
            let_age(&stage, split).await?;
        }
        let closing = &ring[2];
        let why = smi::verdict(&cluster, &stage.ns, closing, smi::REJECTED).await?;
        assert!(why.contains("loop"), "{why}");
        smi::told(&cluster, &stage.ns, closing, smi::REJECTED, "loop").await?;
        for other in &ring[..2] {
            smi::verdict(&cluster, &stage.ns, other, smi::ACCEPTED).await?;
        }
        for root in ["web", "v1", "v2"] {
            settles(&stage, root, &[], &["v2"]).await?;
        }
        // Where the ring is broken, the one that was dropped is in force.
        stage.delete(&ring[0]).await?;
        settles(&stage, "v1", &[], &["web"]).await?;
        smi::verdict(&cluster, &stage.ns, closing, smi::ACCEPTED).await?;
        stage.strike().await
    });
}
