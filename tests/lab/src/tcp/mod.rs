//! A TCP client: what it sends must come back as the server promises, on one connection or on tens of thousands at once.

mod exchange;
pub(crate) mod serve;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Failure;
use crate::http::connection::dial;
use crate::resolve::Resolver;
use crate::stop::Until;
use exchange::{Exchange, Mode};

/// So many connections are made at the same time: a burst beyond the server's backlog is another test.
const AT_ONCE: usize = 256;
/// Failures told in full; the others are only counted.
const TOLD: usize = 20;

#[derive(clap::Args, Clone)]
pub(crate) struct Args {
    /// `HOST:PORT`
    to: String,
    #[arg(long, value_enum, default_value_t = Mode::Banner)]
    mode: Mode,
    /// All of them are open before anything is said on any.
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// Bytes that each connection carries.
    #[arg(long, default_value_t = 1024)]
    bytes: u64,
    /// Bytes to send in a second, on each connection.
    #[arg(long)]
    rate: Option<u64>,
    /// Once all are open, wait to be told on standard input.
    #[arg(long)]
    hold: bool,
    /// Milliseconds that connecting, and then each exchange, may take.
    #[arg(long, default_value_t = 10_000)]
    timeout: u64,
}

/// Prints one report.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    // As many as the limit allows; whatever is lacking shows in the report.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let (host, port) = args.to.rsplit_once(':').ok_or("HOST:PORT is wanted")?;
    let port = port.parse()?;
    let address = Resolver::of_pod()?.address(host).await?;
    println!("{}", report(&args, address, port).await?);
    Ok(())
}

#[derive(Default)]
struct Tally {
    failures: Vec<String>,
    failed: u64,
    by: BTreeMap<String, u64>,
    bytes: u64,
    micros: Vec<u64>,
    told: Value,
}

impl Tally {
    fn fail(&mut self, what: String) {
        self.failed += 1;
        if self.failures.len() < TOLD {
            self.failures.push(what);
        }
    }
}

async fn report(args: &Args, address: IpAddr, port: u16) -> Result<Value, Failure> {
    let (mut tally, began) = (Tally::default(), Instant::now());
    let open = open_all(args, address, port, &mut tally).await;
    let (opened, open_ms) = (open.len(), began.elapsed().as_millis());
    if args.hold {
        eprintln!("open: {opened}, failed: {}", tally.failed);
        Until::TOLD.wait().await?;
    }
    let exchange = Arc::new(Exchange { mode: args.mode, bytes: args.bytes, rate: args.rate });
    let patience = Duration::from_millis(args.timeout);
    let mut under_way = JoinSet::new();
    for (stream, banner) in open {
        let exchange = Arc::clone(&exchange);
        under_way.spawn(async move {
            let began = Instant::now();
            let done = tokio::time::timeout(patience, exchange.run(stream, banner)).await;
            let done =
                done.unwrap_or_else(|_| Err(format!("not done within {} ms", patience.as_millis()).into()));
            (began.elapsed(), done)
        });
    }
    while let Some(done) = under_way.join_next().await {
        match done? {
            (took, Ok(outcome)) => {
                *tally.by.entry(outcome.by).or_default() += 1;
                tally.bytes += outcome.bytes;
                tally.micros.push(u64::try_from(took.as_micros())?);
                tally.told = outcome.told;
            }
            (_, Err(error)) => tally.fail(error.to_string()),
        }
    }
    tally.micros.sort_unstable();
    Ok(json!({
        "connections": args.connections,
        "opened": opened,
        "open_ms": open_ms,
        "ok": tally.micros.len(),
        "failed": tally.failed,
        "failures": tally.failures,
        "by": tally.by,
        "bytes": tally.bytes,
        "slowest_ms": tally.micros.last().map(|micros| *micros / 1000),
        "ms": began.elapsed().as_millis(),
        // What the last one told.
        "told": tally.told,
    }))
}

/// Opens the connections, each with its server's banner if it has one: only then it is known to have reached a server.
async fn open_all(args: &Args, address: IpAddr, port: u16, tally: &mut Tally) -> Vec<(TcpStream, String)> {
    let patience = Duration::from_millis(args.timeout);
    let (turns, mode) = (Arc::new(Semaphore::new(AT_ONCE)), args.mode);
    let mut under_way = JoinSet::new();
    for _ in 0..args.connections {
        let turns = Arc::clone(&turns);
        under_way.spawn(async move {
            let _turn = turns.acquire().await?;
            let open = async {
                let mut stream = dial(address, port, patience).await?;
                let banner =
                    if mode.has_banner() { exchange::banner(&mut stream).await? } else { String::new() };
                Ok::<_, Failure>((stream, banner))
            };
            tokio::time::timeout(patience, open)
                .await
                .map_err(|_| format!("no banner within {} ms", patience.as_millis()))?
        });
    }
    let mut open = Vec::new();
    while let Some(opened) = under_way.join_next().await {
        match opened {
            Ok(Ok(connection)) => open.push(connection),
            Ok(Err(error)) => tally.fail(error.to_string()),
            Err(error) => tally.fail(error.to_string()),
        }
    }
    open
}

#[cfg(test)]
mod tests;
