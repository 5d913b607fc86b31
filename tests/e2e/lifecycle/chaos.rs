//! The short form of `make chaos`: see `weft_tests::campaign`.

use weft_tests::campaign::{self, Options};
use weft_tests::node::Embedded;
use weft_tests::wait::seconds;
use weft_tests::{cluster, invariants, number_of, seconds_of};

#[test]
fn whatever_breaks_the_mesh_is_as_it_should_be_again_and_traffic_flows() {
    cluster::test(|cluster| async move {
        let Some(embedded) = Embedded::needed_for("that the mesh survives faults") else { return Ok(()) };
        let stage = campaign::stage(&cluster, "e2e-chaos").await?;
        let options = Options { seed: number_of("SEED", 1)?, lasts: seconds_of("CHAOS_SECONDS", 50)? };
        let outcome = campaign::run(&stage, &embedded, options).await?;
        eprintln!("{}", outcome.table());
        assert!(outcome.steps.len() >= 6, "every process has its turn: {:#?}", outcome.steps);
        assert!(outcome.wrong().is_empty(), "seed {}: {:#?}", options.seed, outcome.wrong());
        invariants::is_seen_again(&stage, seconds(15)).await?;
        stage.strike().await
    });
}
