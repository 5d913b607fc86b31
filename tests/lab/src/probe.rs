//! Asks a URL over and over on one connection and prints each change of who answers, with the time: how long a change of
//! endpoints takes to reach the traffic.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::Failure;
use crate::http::{Connection, Shape, Target};
use crate::resolve::Resolver;
use crate::serve::Account;
use crate::stop::Until;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// `http://host[:port][/path]`
    url: String,
    /// Milliseconds between requests.
    #[arg(long, default_value_t = 2)]
    every_ms: u64,
    #[command(flatten)]
    until: Until,
}

/// Probes until told to end.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let target = Target::parse(&args.url)?;
    let resolver = Resolver::strict()?;
    let shape = Shape::get(&target);
    let mut tick = tokio::time::interval(Duration::from_millis(args.every_ms));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut connection, mut last, mut last_sent, mut asked) = (None, Value::Null, 0, 0_u64);
    let end = args.until.wait();
    tokio::pin!(end);
    loop {
        tokio::select! {
            _ = tick.tick() => (),
            ended = &mut end => { ended?; break },
        }
        let sent = unix_micros();
        let answered = who(&resolver, &target, &shape, &mut connection).await;
        let now = unix_micros();
        asked += 1;
        let answer = match answered {
            Ok(pod) => json!({ "pod": pod }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        if answer != last {
            let change = json!({
                // When the last request left that had the answer before.
                "before_us": last_sent,
                "sent_us": sent,
                "answered_us": now,
                "asked": asked,
                "answer": answer,
            });
            println!("{change}");
            last = answer;
        }
        last_sent = sent;
    }
    println!("{}", json!({ "asked": asked }));
    Ok(())
}

async fn who(
    resolver: &Resolver,
    target: &Target,
    shape: &Shape,
    kept: &mut Option<Connection>,
) -> Result<String, Failure> {
    let patience = Duration::from_secs(2);
    let open = match kept.take() {
        Some(connection) => connection.if_usable().await,
        None => None,
    };
    let mut connection = if let Some(connection) = open {
        connection
    } else {
        let addresses = resolver.addresses(&target.host).await?;
        let address = *addresses.first().ok_or("the name has no address")?;
        Connection::open(address, target.port, false, patience).await?
    };
    let answer = tokio::time::timeout(patience, connection.ask(shape)).await??;
    *kept = Some(connection);
    if answer.status != hyper::StatusCode::OK {
        return Err(format!("status {}", answer.status.as_u16()).into());
    }
    Ok(serde_json::from_slice::<Account>(answer.text())?.pod)
}

fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
