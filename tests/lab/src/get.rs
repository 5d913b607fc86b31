//! Asks a URL a number of times and prints each answer as a line of JSON.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::Failure;
use crate::http::{Answer, Connection, Shape, Target};
use crate::resolve::Resolver;

#[derive(clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Args {
    /// `http://host[:port][/path]`
    url: String,
    /// How many times.
    #[arg(short = 'n', long, default_value_t = 1)]
    count: u32,
    #[arg(long, default_value = "GET")]
    method: Method,
    /// Speak HTTP/1.0.
    #[arg(long)]
    http10: bool,
    /// Send no Host header.
    #[arg(long, conflicts_with_all = ["host", "h2c"])]
    no_host: bool,
    /// Another Host header than the URL's.
    #[arg(long)]
    host: Option<String>,
    /// Speak HTTP/2 without TLS, by prior knowledge.
    #[arg(long, conflicts_with = "http10")]
    h2c: bool,
    /// A connection for each request.
    #[arg(long)]
    new_connection: bool,
    /// Milliseconds an answer may take, the name's resolution included.
    #[arg(long, default_value_t = 5000)]
    timeout: u64,
}

/// Asks; answers of any status and failures alike are printed, and no reason to fail.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let target = Target::parse(&args.url)?;
    let resolver = Resolver::of_pod()?;
    let host =
        if args.no_host { None } else { Some(args.host.clone().unwrap_or_else(|| target.authority())) };
    let shape = Shape {
        method: args.method.clone(),
        path: target.path.clone(),
        host,
        http10: args.http10,
        h2c: args.h2c,
    };
    let patience = Duration::from_millis(args.timeout);
    let mut kept = None;
    for _ in 0..args.count {
        let began = Instant::now();
        let asked = ask(&resolver, &target, &shape, kept.take(), patience);
        let line = match tokio::time::timeout(patience, asked).await {
            Ok(Ok((connection, answer))) => {
                kept = Some(connection).filter(|_| !args.new_connection);
                describe(&answer)
            }
            Ok(Err(error)) => json!({ "error": error.to_string() }),
            Err(_) => json!({ "error": format!("no answer within {} ms", args.timeout) }),
        };
        let mut line = line;
        line["ms"] = json!(began.elapsed().as_secs_f64() * 1000.0);
        println!("{line}");
    }
    Ok(())
}

async fn ask(
    resolver: &Resolver,
    target: &Target,
    shape: &Shape,
    kept: Option<Connection>,
    patience: Duration,
) -> Result<(Connection, Answer), Failure> {
    let open = match kept {
        Some(connection) => connection.if_usable().await,
        None => None,
    };
    let mut connection = if let Some(connection) = open {
        connection
    } else {
        let addresses = resolver.addresses(&target.host).await?;
        let address = *fastrand::choice(&addresses).ok_or("the name has no address")?;
        Connection::open(address, target.port, shape.h2c, patience).await?
    };
    let answer = connection.ask(shape).await?;
    Ok((connection, answer))
}

fn describe(answer: &Answer) -> Value {
    let headers: BTreeMap<_, _> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let body = serde_json::from_slice::<Value>(&answer.body)
        .unwrap_or_else(|_| json!(String::from_utf8_lossy(&answer.body)));
    json!({
        "status": answer.status.as_u16(),
        "version": format!("{:?}", answer.version),
        "headers": headers,
        "body": body,
    })
}
