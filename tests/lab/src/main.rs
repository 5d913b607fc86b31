//! What runs in the pods of the end-to-end tests: rude servers and plain clients of every protocol, open-loop load, DNS queries
//! and a prober, in one static binary. It knows nothing of Weft but the header that names the node.
//!
//! Results go to stdout as JSON, one object a line; progress goes to stderr.

mod bulk;
mod dns;
mod get;
mod grpc;
mod http;
mod identity;
mod load;
mod pretend;
mod probe;
mod raw;
mod resolve;
mod serve;
mod slow_headers;
mod stop;
mod tcp;
mod udp;
mod ws;

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
    /// Answer HTTP/1.0, HTTP/1.1, h2c and on /ws WebSocket, with who answers and what was asked, or as the query wishes.
    Serve(serve::Args),
    /// Ask a URL and print each answer.
    Get(get::Args),
    /// Have messages echoed over a WebSocket.
    Ws(ws::Args),
    /// Hold connections whose requests never end.
    SlowHeaders(slow_headers::Args),
    /// Answer gRPC calls of every form.
    GrpcServe(grpc::serve::Args),
    /// Make gRPC calls and print each outcome.
    Grpc(grpc::client::Args),
    /// Answer TCP connections: echo, read, write, wait for the client's end.
    TcpServe(tcp::serve::Args),
    /// Open TCP connections and report what came of them.
    Tcp(tcp::Args),
    /// Send datagrams back.
    UdpServe(udp::serve::Args),
    /// Send datagrams and report what came back.
    Udp(udp::Args),
    /// Send requests at a fixed rate, whatever the answers, and report every failure.
    Load(load::Args),
    /// Query names at a fixed rate and report every failure.
    Dns(dns::Args),
    /// Ask a URL over and over and print each change of who answers.
    Probe(probe::Args),
    /// Pretend to be a proxy with a fault.
    PretendProxy(pretend::Args),
    /// Do nothing until told to end.
    Sleep,
}

#[tokio::main]
async fn main() {
    let done = match Args::parse().command {
        Command::Serve(args) => serve::run(args).await,
        Command::Get(args) => get::run(args).await,
        Command::Ws(args) => ws::run(args).await,
        Command::SlowHeaders(args) => slow_headers::run(args).await,
        Command::GrpcServe(args) => grpc::serve::run(args).await,
        Command::Grpc(args) => grpc::client::run(args).await,
        Command::TcpServe(args) => tcp::serve::run(args).await,
        Command::Tcp(args) => tcp::run(args).await,
        Command::UdpServe(args) => udp::serve::run(args).await,
        Command::Udp(args) => udp::run(args).await,
        Command::Load(args) => load::run(args).await,
        Command::Dns(args) => dns::run(args).await,
        Command::Probe(args) => probe::run(args).await,
        Command::PretendProxy(args) => pretend::run(args).await,
        Command::Sleep => stop::terminated().await.map_err(Into::into),
    };
    if let Err(error) = done {
        eprintln!("weft-lab: {error}");
        std::process::exit(1);
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
