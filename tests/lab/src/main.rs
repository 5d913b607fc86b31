//! What runs in the pods of the end-to-end tests: a rude server, a plain client, open-loop load, DNS queries and a
//! prober, in one static binary. It knows nothing of Weft but the header that names the node.
//!
//! Results go to stdout as JSON, one object a line; progress goes to stderr.

mod dns;
mod get;
mod http;
mod load;
mod probe;
mod resolve;
mod serve;
mod stop;

use clap::{Parser, Subcommand};

/// What any part may fail with; the lab only ever reports it as text.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Workloads of Weft's end-to-end tests.
#[derive(Parser)]
#[command(name = "weft-lab", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer HTTP/1.0, HTTP/1.1 and h2c with who answers and what was asked. Ends at once on SIGTERM.
    Serve(serve::Args),
    /// Ask a URL and print each answer.
    Get(get::Args),
    /// Send requests at a fixed rate, whatever the answers, and report every failure.
    Load(load::Args),
    /// Query names at a fixed rate and report every failure.
    Dns(dns::Args),
    /// Ask a URL over and over and print each change of who answers.
    Probe(probe::Args),
    /// Do nothing until told to end.
    Sleep,
}

#[tokio::main]
async fn main() {
    let done = match Args::parse().command {
        Command::Serve(args) => serve::run(args).await,
        Command::Get(args) => get::run(args).await,
        Command::Load(args) => load::run(args).await,
        Command::Dns(args) => dns::run(args).await,
        Command::Probe(args) => probe::run(args).await,
        Command::Sleep => stop::terminated().await.map_err(Into::into),
    };
    if let Err(error) = done {
        eprintln!("weft-lab: {error}");
        std::process::exit(1);
    }
}
