//! Open-loop load: requests leave at fixed times, whatever became of those before, and a late answer counts from the time
//! its request should have left. Nothing is retried that a server may have looked at, so that every failure a client could see is
//! seen; what it said goodbye to before is sent again, as every client does, and counted.

mod clients;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Failure;
use crate::http::{Shape, Target};
use crate::stop::Until;

use clients::{Addresses, Client};
use tally::Tally;

/// How often who waits for an answer looks at the clock.
const LOOK: Duration = Duration::from_millis(50);

#[derive(clap::Args, Clone)]
pub(crate) struct Args {
    /// `http://host[:port][/path]`
    url: String,
    /// Requests a second, for each mode.
    #[arg(long, default_value_t = 100)]
    rps: u32,
    #[arg(long, value_enum, default_value_t = Mode::KeepAlive)]
    mode: Mode,
    /// Connections a keep-alive client holds; more are opened when all are busy.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    #[arg(long, default_value = "GET")]
    method: Method,
    /// The `app` that must have answered, or several of which one must.
    #[arg(long, value_delimiter = ',', required = true)]
    expect: Vec<String>,
    /// Milliseconds an answer may take, as far as this process ran meanwhile: one that TCP had to send three times comes too late.
    #[arg(long, default_value_t = 2500)]
    timeout: u64,
    #[command(flatten)]
    until: Until,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// A connection for each request.
    NewConnection,
    /// Connections are used again.
    KeepAlive,
    /// Connections of HTTP/2 in the clear are used again, for one request at a time.
    H2c,
    /// The first two side by side, each at the full rate.
    Both,
    /// All three.
    All,
}

impl Mode {
    /// What it is called in the report.
    fn name(self) -> &'static str {
        match self {
            Self::NewConnection => "new-connection",
            Self::H2c => "h2c",
            Self::KeepAlive | Self::Both | Self::All => "keep-alive",
        }
    }
}

/// Runs until told to end, then prints one report for each mode, as a JSON array.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let target = Target::parse(&args.url)?;
    let addresses = Addresses::start(&target).await?;
    let modes: &[Mode] = match args.mode {
        Mode::All => &[Mode::NewConnection, Mode::KeepAlive, Mode::H2c],
        Mode::Both => &[Mode::NewConnection, Mode::KeepAlive],
        Mode::NewConnection => &[Mode::NewConnection],
        Mode::KeepAlive => &[Mode::KeepAlive],
        Mode::H2c => &[Mode::H2c],
    };
    let (end, ended) = tokio::sync::watch::channel(false);
    let mut runs = Vec::new();
    for &mode in modes {
        let h2c = mode == Mode::H2c;
        let shape = Shape { method: args.method.clone(), h2c, ..Shape::get(&target) };
        let keep = (mode != Mode::NewConnection).then_some(args.connections);
        let patience = Duration::from_millis(args.timeout);
        let client = Arc::new(Client::new(Arc::clone(&addresses), target.port, shape, keep));
        let tally = Tally::new(mode.name(), &args.expect);
        let run = drive(args.rps, patience, Arc::clone(&client), Arc::new(tally), ended.clone());
        runs.push((client, tokio::spawn(run)));
    }
    args.until.wait().await?;
    let _ = end.send(true);
    let mut reports = Vec::new();
    for (client, run) in runs {
        let mut report = run.await?.report();
        report["resent"] = json!(client.resent());
        report["dns_failures"] = json!(addresses.failures());
        reports.push(report);
    }
    println!("{}", json!(reports));
    Ok(())
}

/// Sends a request at each point of time of the schedule, and waits for those under way when it is over.
async fn drive(
    rps: u32,
    patience: Duration,
    client: Arc<Client>,
    tally: Arc<Tally>,
    mut ended: tokio::sync::watch::Receiver<bool>,
) -> Arc<Tally> {
    let began = Instant::now();
    let mut under_way = JoinSet::new();
    let mut told = began;
    for number in 0_u32.. {
        let intended = began + Duration::from_secs(1) * number / rps;
        tokio::select! {
            () = tokio::time::sleep_until(intended) => (),
            _ = ended.wait_for(|ended| *ended) => break,
        }
        let (client, tally_of_one) = (Arc::clone(&client), Arc::clone(&tally));
        under_way.spawn(async move {
            let late = intended.elapsed();
            let outcome = tokio::select! {
                biased;
                outcome = client.ask() => outcome,
                () = lost(patience) => Err(format!("timeout: {} ms", patience.as_millis()).into()),
            };
            tally_of_one.count(intended - began, late, intended.elapsed(), &outcome);
        });
        while under_way.try_join_next().is_some() {}
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            eprintln!("{:>6.1} s  {}", began.elapsed().as_secs_f64(), tally.progress());
        }
    }
    while under_way.join_next().await.is_some() {}
    tally
}

/// Waits for `patience` of the time in which this process runs. While the whole machine stands still nobody can answer, and what has
/// come by the end of that is read before the next look at the clock.
async fn lost(patience: Duration) {
    let looks = patience.as_millis().div_ceil(LOOK.as_millis());
    for _ in 0..looks {
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers `good` times on each connection, then closes it without an answer.
    async fn server(good: usize, answer: &'static str) -> u16 {
        server_that_stands(good, answer, None).await
    }

    /// The same, at work for a while on each answer. Before the first all of this thread stands still for so long.
    async fn server_that_stands(good: usize, answer: &'static str, still: Option<Duration>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let first = Arc::new(std::sync::Once::new());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let first = Arc::clone(&first);
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    for _ in 0..good {
                        if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                            return;
                        }
                        if let Some(still) = still {
                            first.call_once(|| std::thread::sleep(still));
                            tokio::time::sleep(WORK).await;
                        }
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                    let _ = stream.read(&mut buffer).await;
                });
            }
        });
        port
    }

    /// Longer than it takes to look at the clock after a standstill.
    const WORK: Duration = Duration::from_millis(50);

    const GOOD: &str = "HTTP/1.1 200 OK\r\nx-weft-node: node1\r\ncontent-length: 107\r\n\r\n\
        {\"app\":\"lab\",\"pod\":\"p1\",\"node\":\"n\",\"port\":1,\"method\":\"GET\",\"path\":\"/\",\"version\":\"HTTP/1.1\",\"headers\":{ }}  ";

    async fn load(port: u16, keep: Option<usize>) -> serde_json::Value {
        let target = Target::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
        let shape = Shape::get(&target);
        let addresses = Addresses::fixed("127.0.0.1".parse().unwrap());
        let patience = Duration::from_millis(300);
        let client = Client::new(addresses, port, shape, keep);
        let (end, ended) = tokio::sync::watch::channel(false);
        let tally = Arc::new(Tally::new("keep-alive", &["lab".to_owned(), "other".to_owned()]));
        let run = tokio::spawn(drive(200, patience, Arc::new(client), tally, ended));
        tokio::time::sleep(Duration::from_millis(500)).await;
        end.send(true).unwrap();
        run.await.unwrap().report()
    }

    #[tokio::test]
    async fn good_answers_are_counted_by_pod_and_node() {
        let report = load(server(usize::MAX, GOOD).await, Some(2)).await;
        assert_eq!(report["failed"], 0, "{report}");
        assert_eq!(report["pods"]["p1"], report["sent"]);
        assert_eq!(report["apps"], json!({ "lab": report["sent"] }));
        assert_eq!(report["weft_nodes"]["node1"], report["sent"]);
    }

    #[tokio::test]
    async fn connections_that_the_server_cuts_are_failures() {
        let report = load(server(1, GOOD).await, Some(1)).await;
        assert!(report["failed"].as_u64().unwrap() > 0, "{report}");
        let report = load(server(0, GOOD).await, None).await;
        assert_eq!(report["failed"], report["sent"], "{report}");
    }

    #[tokio::test]
    async fn what_is_never_answered_is_a_failure() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let report = load(silent.local_addr().unwrap().port(), Some(1)).await;
        assert_eq!(report["failed"], report["sent"], "{report}");
        assert_eq!(report["failures"][0]["what"], "timeout: 300 ms");
    }

    #[tokio::test]
    async fn a_time_in_which_nothing_runs_is_nobodys_failure() {
        // Client and server are of one thread: what it sleeps here they do.
        let still = Duration::from_millis(600);
        let report = load(server_that_stands(usize::MAX, GOOD, Some(still)).await, Some(1)).await;
        assert_eq!(report["failed"], 0, "{report}");
        assert!(report["max_ms"].as_f64().unwrap() >= 600.0, "{report}");
    }

    #[tokio::test]
    async fn other_answers_than_the_expected_are_failures() {
        let wrong = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nnope\n";
        let report = load(server(usize::MAX, wrong).await, Some(1)).await;
        assert_eq!(report["failed"], report["sent"], "{report}");
        assert_eq!(report["failures"][0]["what"], "status 503: nope");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_failure() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let report = load(port, None).await;
        assert!(report["sent"].as_u64().unwrap() > 50, "open loop: {report}");
        assert_eq!(report["failed"], report["sent"]);
    }
}
