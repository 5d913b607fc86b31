//! The short form of `make soak`: see `weft_tests::soak`. Whether anything grows takes longer to tell.

use weft_tests::campaign;
use weft_tests::node::Embedded;
use weft_tests::soak::{self, Options};
use weft_tests::{cluster, number_of, seconds_of};

#[test]
fn while_nothing_breaks_no_request_fails() {
    cluster::test(|cluster| async move {
        let Some(embedded) = Embedded::needed_for("what processes hold") else { return Ok(()) };
        let stage = campaign::stage(&cluster, "e2e-soak").await?;
        let options = Options { seed: number_of("SEED", 1)?, lasts: seconds_of("SOAK_SECONDS", 40)? };
        let outcome = soak::run(&stage, &embedded, options).await?;
        eprintln!("{}", outcome.table());
        assert!(outcome.wrong().is_empty(), "{:#?}", outcome.wrong());
        assert!(outcome.requests.0 > 1000, "{} requests", outcome.requests.0);
        stage.strike().await
    });
}
