//! `make bench`: the same load through Weft's proxy and through its peers, in turn, on one machine. The proxy has core 0,
//! load and backend have core 1; of a run only the ratios between systems mean something.
//!
//! [`scenario`] says what is measured, [`systems`] how each proxy is set up, [`load`] makes the load, [`backend`] answers it,
//! [`process`] reads what a proxy used, [`report`] sums up.

#![allow(clippy::cast_precision_loss, reason = "figures, not sums of money")]

mod backend;
mod load;
mod ports;
mod process;
mod report;
mod scenario;
mod systems;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::report::Report;
use crate::scenario::{Figures, Scenario};
use crate::systems::System;

/// Errors are told to the person who runs it, and end the run.
type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures.
    Run(Run),
    /// What the proxies lead to; `run` starts it.
    Backend,
}

#[derive(clap::Args)]
struct Run {
    /// Scenarios, separated by commas; all when empty.
    #[arg(long, env = "SCENARIO", default_value = "", value_delimiter = ',')]
    scenario: Vec<String>,
    /// Systems, separated by commas; all when empty.
    #[arg(long, env = "SYSTEMS", default_value = "", value_delimiter = ',')]
    systems: Vec<String>,
    /// Rounds; in each every system has its turn.
    #[arg(long, env = "ROUNDS", default_value_t = 5)]
    rounds: u32,
    /// Seconds of load that count, after one that does not.
    #[arg(long, env = "SECONDS_EACH", default_value_t = 3)]
    seconds: u64,
    /// Weft's proxy.
    #[arg(long)]
    weft: PathBuf,
    /// Traefik.
    #[arg(long)]
    traefik: PathBuf,
    /// Envoy.
    #[arg(long)]
    envoy: PathBuf,
    /// Where configurations and logs of the proxies go.
    #[arg(long)]
    work: PathBuf,
    /// Where the figures go.
    #[arg(long)]
    output: PathBuf,
}

fn main() -> ExitCode {
    match start(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> Result {
    rlimit::increase_nofile_limit(u64::MAX)?;
    stay_on(1)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    match command {
        Command::Backend => local.block_on(&runtime, backend::serve()),
        Command::Run(args) => local.block_on(&runtime, measure(args)),
    }
}

/// Everything from here on runs on one core.
fn stay_on(core: usize) -> Result {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

fn named<T: Copy>(all: &[T], names: &[String], name: impl Fn(T) -> &'static str) -> Result<Vec<T>> {
    let wanted: Vec<_> = names.iter().filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = wanted.iter().find(|wanted| !all.iter().any(|one| name(*one) == **wanted)) {
        let there_are: Vec<_> = all.iter().map(|one| name(*one)).collect();
        return Err(format!("there is no {unknown:?}; there are {}", there_are.join(", ")).into());
    }
    Ok(all
        .iter()
        .copied()
        .filter(|one| wanted.is_empty() || wanted.iter().any(|w| name(*one) == **w))
        .collect())
}

/// Runs of a peer that may fail, one after the other. Of Weft none may.
const FAILURES: u32 = 2;

/// The figures of one run. When a peer fails a request that is told, and it is measured again.
async fn measured(system: System, scenario: Scenario, args: &Run) -> Result<Figures> {
    let mut failures = 0;
    loop {
        let running = system.start(scenario, args).await?;
        let figures = scenario.run(&running, Duration::from_secs(args.seconds)).await;
        let log = running.stop().await?;
        match figures {
            Err(error) if system != System::Weft && failures < FAILURES => {
                failures += 1;
                eprintln!("{scenario}: {} is measured again, for it failed: {error}", system.name());
            }
            figures => {
                return figures
                    .map_err(|error| format!("{}, {scenario}: {error}; {log}", system.name()).into());
            }
        }
    }
}

async fn measure(args: Run) -> Result {
    let scenarios = named(&Scenario::ALL, &args.scenario, Scenario::name)?;
    let systems = named(&System::ALL, &args.systems, System::name)?;
    let _backend = backend::start().await?;
    std::fs::create_dir_all(&args.work)?;
    let mut report = Report::default();
    for scenario in scenarios {
        for round in 1..=args.rounds {
            for system in systems.iter().copied().filter(|system| system.can(scenario)) {
                let figures = measured(system, scenario, &args).await?;
                let first = figures.first().map(|(metric, value)| format!("{metric} {value:.1}"));
                eprintln!(
                    "{scenario} {round}/{} {:<8} {}",
                    args.rounds,
                    system.name(),
                    first.unwrap_or_default()
                );
                report.add(scenario.name(), system.name(), figures);
            }
        }
    }
    report.print();
    report.write(&args.output)
}
