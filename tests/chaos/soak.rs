//! `make soak`: the same load and the same coming and going as in `make chaos`, for long and without faults: whether memory or
//! descriptors grow, and whether the end is slower than the beginning. `SOAK_SECONDS` says how long (two hours).

use weft_tests::node::Embedded;
use weft_tests::soak::{self, Options};
use weft_tests::{Result, cluster, number_of, seconds_of, write_results};

fn main() -> Result {
    cluster::run(|cluster| async move {
        let embedded = Embedded::needed_for("anything").ok_or("this needs the embedded cluster")?;
        let options = Options { seed: number_of("SEED", 1)?, lasts: seconds_of("SOAK_SECONDS", 7200)? };
        eprintln!("SEED={} SOAK_SECONDS={}", options.seed, options.lasts.as_secs());
        let stage = weft_tests::campaign::stage(&cluster, "e2e-soak").await?;
        let outcome = soak::run(&stage, &embedded, options).await?;
        println!("{}", outcome.table());
        write_results("soak.json", &outcome)?;
        let wrong = outcome.wrong();
        if wrong.is_empty() { stage.strike().await } else { Err(wrong.join("\n").into()) }
    })
}
