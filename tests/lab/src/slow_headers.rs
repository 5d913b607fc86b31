//! Connections that never finish their request: each sends a byte of a header now and then. Reports how long the server put
//! up with them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Failure;
use crate::http::{Target, connection::dial};
use crate::resolve::Resolver;
use crate::stop::Until;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// `http://host[:port][/path]`
    url: String,
    #[arg(long, default_value_t = 100)]
    connections: u32,
    /// Milliseconds between bytes.
    #[arg(long, default_value_t = 200)]
    every_ms: u64,
    #[command(flatten)]
    until: Until,
}

#[derive(Default)]
struct Counts {
    opened: u32,
    refused: u32,
    /// How long each connection lived that the server ended.
    ended_after: Vec<Duration>,
    /// What the server said to the first of them.
    last_words: Option<String>,
}

/// Holds the connections until told to end, then prints the counts.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let target = Target::parse(&args.url)?;
    let address = Resolver::of_pod()?.address(&target.host).await?;
    let counts = Arc::new(Mutex::new(Counts::default()));
    let (end, ended) = watch::channel(false);
    let mut all = JoinSet::new();
    for _ in 0..args.connections {
        let (target, counts, mut ended) = (target.clone(), Arc::clone(&counts), ended.clone());
        all.spawn(async move {
            let Ok(stream) = dial(address, target.port, Duration::from_secs(5)).await else {
                lock(&counts).refused += 1;
                return;
            };
            lock(&counts).opened += 1;
            let began = Instant::now();
            tokio::select! {
                words = linger(stream, &target, Duration::from_millis(args.every_ms)) => {
                    let mut counts = lock(&counts);
                    counts.ended_after.push(began.elapsed());
                    counts.last_words.get_or_insert(words);
                }
                _ = ended.wait_for(|ended| *ended) => (),
            }
        });
    }
    let told = tell(&counts);
    tokio::select! {
        ended = args.until.wait() => ended?,
        () = told => (),
    }
    let _ = end.send(true);
    while all.join_next().await.is_some() {}
    let counts = lock(&counts);
    let seconds = |duration: Option<&Duration>| duration.map(Duration::as_secs_f64);
    println!(
        "{}",
        json!({
            "opened": counts.opened,
            "refused": counts.refused,
            "ended_by_server": counts.ended_after.len(),
            "first_ended_after_s": seconds(counts.ended_after.iter().min()),
            "last_ended_after_s": seconds(counts.ended_after.iter().max()),
            "last_words": counts.last_words,
        })
    );
    Ok(())
}

/// Progress, for ever.
async fn tell(counts: &Mutex<Counts>) {
    let mut every = tokio::time::interval(Duration::from_millis(200));
    loop {
        every.tick().await;
        let counts = lock(counts);
        eprintln!("opened {}, ended by server {}", counts.opened, counts.ended_after.len());
    }
}

fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a request that has no end until the server hangs up; what the server said.
async fn linger(stream: tokio::net::TcpStream, target: &Target, every: Duration) -> String {
    let (mut reader, mut writer) = stream.into_split();
    let write = async {
        let head = format!("GET {} HTTP/1.1\r\nHost: {}\r\nX-Slow: ", target.path, target.authority());
        for byte in head.bytes().chain(std::iter::repeat(b'x')) {
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(every).await;
        }
        // The reader sees the end.
        std::future::pending::<()>().await;
    };
    let mut words = Vec::new();
    let read = async {
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            words.extend_from_slice(&buffer[..length]);
        }
    };
    tokio::select! {
        () = write => (),
        () = read => (),
    }
    String::from_utf8_lossy(&words).into_owned()
}
