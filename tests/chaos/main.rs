//! `make chaos`: a long campaign of faults, see `weft_tests::campaign`. `CHAOS_SECONDS` says how long (20 minutes), `SEED` in which
//! order. Its results are printed as a table, and written to `target/chaos.json`.

use weft_tests::campaign::{self, Options};
use weft_tests::node::Embedded;
use weft_tests::{Result, cluster, number_of, report, seconds_of, write_results};

fn main() -> Result {
    cluster::run(|cluster| async move {
        let embedded = Embedded::needed_for("anything").ok_or("this needs the embedded cluster")?;
        let options = Options { seed: number_of("SEED", 1)?, lasts: seconds_of("CHAOS_SECONDS", 1200)? };
        eprintln!("SEED={} CHAOS_SECONDS={}", options.seed, options.lasts.as_secs());
        let stage = campaign::stage(&cluster, "e2e-chaos").await?;
        let outcome = match campaign::run(&stage, &embedded, options).await {
            Ok(outcome) => outcome,
            Err(error) => {
                report::show(&cluster).await;
                return Err(error);
            }
        };
        println!("{}", outcome.table());
        write_results("chaos.json", &outcome)?;
        let wrong = outcome.wrong();
        if wrong.is_empty() { stage.strike().await } else { Err(wrong.join("\n").into()) }
    })
}
