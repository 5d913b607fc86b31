//! The model test: the operator itself, one replica or two, against a simulated cluster that is as bad as a cluster can be, over
//! very many schedules. What must never happen is looked at with every write; in the end everything must be as it should be, and
//! nothing be written any more.
//!
//! `world` is the simulated time and who lives in it, `api` the API server and the way to it, `cluster` what Kubernetes, DNS and
//! the proxies do, `users` what people do, `law` what must always hold and `settled` what must be in the end. All chance comes
//! from the seed (`dice`): a schedule that fails is told by its seed and runs the same again, with every step in words:
//!
//! ```text
//! MODEL_SEED=17 cargo test -p weft-operator --test model one_schedule -- --ignored --nocapture
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::too_many_lines, reason = "a list of cases is best read in one place")]

mod api;
mod cluster;
mod dice;
mod law;
mod proxy;
mod replica;
mod schedule;
mod settled;
#[path = "../simulated/mod.rs"]
mod simulated;
mod users;
mod weather;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use schedule::Outcome;

/// Schedules of a plain `cargo test`.
const FEW: u64 = 100;
/// Those of `make model`.
const MANY: u64 = 100_000;
/// After so many failures there is enough to look at.
const ENOUGH: usize = 5;
/// After so many schedules it is told how far things are.
const A_WHILE: u64 = 5000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Schedules `first` and those after it, `count` in all, on all cores.
fn campaign(first: u64, count: u64) {
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let failed: Mutex<Vec<(u64, Outcome)>> = Mutex::default();
    let (length, writes, processes, behind) = <(AtomicU64, AtomicU64, AtomicU64, AtomicU64)>::default();
    let work = || {
        while failed.lock().unwrap().len() < ENOUGH {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= first + count {
                return;
            }
            let outcome = schedule::run(seed, false);
            length.fetch_add(outcome.length, Relaxed);
            writes.fetch_add(outcome.writes, Relaxed);
            processes.fetch_add(outcome.processes, Relaxed);
            behind.fetch_add(outcome.behind, Relaxed);
            let done = seed + 1 - first;
            if done.is_multiple_of(A_WHILE) {
                println!("{done} of {count} schedules, {:.0} s", began.elapsed().as_secs_f64());
            }
            if !outcome.violations.is_empty() {
                println!("MODEL_SEED={seed} fails: {}", outcome.violations[0]);
                failed.lock().unwrap().push((seed, outcome));
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_by_key(|(seed, _)| *seed);
    let ran = next.into_inner().min(first + count) - first;
    println!(
        "{ran} schedules (seeds {first} to {}) in {:.0} s: {} simulated hours, {} replicas' lives, {} writes, \
         {} times a proxy took a port from a replica that was behind; {} failed",
        first + ran - 1,
        began.elapsed().as_secs_f64(),
        length.into_inner() / 3_600_000,
        processes.into_inner(),
        writes.into_inner(),
        behind.into_inner(),
        failed.len(),
    );
    for (seed, outcome) in &failed {
        println!("MODEL_SEED={seed}: {:#?}", outcome.violations);
    }
    assert!(failed.is_empty(), "run one of the seeds above for its trace");
}

#[test]
fn a_few_schedules() {
    campaign(0, number("SCHEDULES").unwrap_or(FEW));
}

#[test]
#[ignore = "takes an hour or two: make model"]
fn many_schedules() {
    campaign(number("FIRST_SEED").unwrap_or(0), number("SCHEDULES").unwrap_or(MANY));
}

#[test]
#[ignore = "to look at one: MODEL_SEED"]
fn one_schedule() {
    let seed = number("MODEL_SEED").unwrap_or(0);
    if std::env::var_os("MODEL_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter("debug,tower=info")
            .with_test_writer()
            .without_time()
            .init();
    }
    let outcome = schedule::run(seed, true);
    println!("{}", outcome.trace.join("\n"));
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
}

#[test]
fn a_seed_gives_the_same_schedule_each_time() {
    for seed in 0..20 {
        let [once, again] = [schedule::run(seed, true), schedule::run(seed, true)];
        let differs = once.trace.iter().zip(&again.trace).find(|(one, other)| one != other);
        assert_eq!(once.digest, again.digest, "seed {seed}: {differs:?}");
    }
}
