//! A UDP client: datagrams from several sources, each answered or given up for lost; tells by whom, and whether a source kept
//! its server.

pub(crate) mod serve;
mod source;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Failure;
use crate::resolve::Resolver;
use crate::stop::Until;
use source::{Plan, Source};

#[derive(clap::Args, Clone)]
pub(crate) struct Args {
    /// `HOST:PORT`
    to: String,
    /// Sockets to send from.
    #[arg(long, default_value_t = 1)]
    sources: u32,
    /// Datagrams that each source sends, one after the other; without it until told to end.
    #[arg(short = 'n', long)]
    count: Option<u64>,
    /// Bytes of a datagram.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Answers that each datagram gets.
    #[arg(long, default_value_t = 1)]
    replies: u32,
    /// Milliseconds between a source's datagrams.
    #[arg(long, default_value_t = 0)]
    every_ms: u64,
    /// Milliseconds after which an answer is lost.
    #[arg(long, default_value_t = 1000)]
    timeout: u64,
    #[command(flatten)]
    until: Until,
}

/// Prints one report.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let (host, port) = args.to.rsplit_once(':').ok_or("HOST:PORT is wanted")?;
    let port = port.parse()?;
    let to = SocketAddr::new(Resolver::of_pod()?.address(host).await?, port);
    println!("{}", report(&args, to).await?);
    Ok(())
}

async fn report(args: &Args, to: SocketAddr) -> Result<Value, Failure> {
    let plan = Plan {
        to,
        count: args.count.unwrap_or(u64::MAX),
        size: args.size,
        replies: args.replies,
        every: Duration::from_millis(args.every_ms),
        patience: Duration::from_millis(args.timeout),
        began: Instant::now(),
    };
    let (end, ended) = watch::channel(false);
    let mut under_way = JoinSet::new();
    for number in 0..args.sources {
        under_way.spawn(Source::open(number, plan.clone()).await?.run(ended.clone()));
    }
    if args.count.is_none() {
        args.until.wait().await?;
        let _ = end.send(true);
    }
    Ok(describe(&under_way.join_all().await))
}

fn describe(sources: &[Source]) -> Value {
    let sum = |of: fn(&Source) -> u64| sources.iter().map(of).sum::<u64>();
    let mut by = BTreeMap::<&str, u64>::new();
    for source in sources {
        for (name, answers) in &source.by {
            *by.entry(name).or_default() += answers;
        }
    }
    let seconds = |at: Option<Duration>| at.map(|at| at.as_secs_f64());
    json!({
        "sent": sum(|source| source.sent),
        "received": sum(|source| source.received),
        "lost": sum(|source| source.lost),
        // Answers that came after their time, or a second time.
        "late": sum(|source| source.late),
        // Answers that are not what was sent.
        "wrong": sum(|source| source.wrong),
        // Sends and receives that failed at once, as when nobody listens.
        "refused": sum(|source| source.refused),
        "last_error": sources.iter().find_map(|source| source.last_error.clone()),
        "last_lost_s": seconds(sources.iter().filter_map(|source| source.last_lost_at).max()),
        "by": by,
        // How often a source was answered by another server than the time before.
        "moves": sum(|source| source.moves),
        "sources": sources.iter().map(|source| json!({
            "last": source.last_by,
            "moves": source.moves,
            "by": source.by,
        })).collect::<Vec<_>>(),
        "slowest_ms": sources.iter().map(|source| source.slowest).max().unwrap_or_default().as_millis(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn server(replies: u32) -> SocketAddr {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(serve::answer(socket, replies, "pod-1".into()));
        address
    }

    fn args(sources: u32, size: usize, replies: u32) -> Args {
        Args {
            to: String::new(),
            sources,
            count: Some(5),
            size,
            replies,
            every_ms: 0,
            timeout: 500,
            until: Until::TOLD,
        }
    }

    #[tokio::test]
    async fn datagrams_come_back_whole_from_one_server() {
        for size in [18, 512, 1400] {
            let report = report(&args(3, size, 1), server(1).await).await.unwrap();
            assert_eq!((&report["sent"], &report["received"]), (&json!(15), &json!(15)), "{report}");
            assert_eq!((&report["by"]["pod-1"], &report["moves"]), (&json!(15), &json!(0)), "{report}");
            assert_eq!(report["wrong"], 0, "{report}");
        }
    }

    #[tokio::test]
    async fn one_datagram_may_have_many_answers_and_a_missing_one_is_lost() {
        let report_of_all = report(&args(1, 64, 20), server(20).await).await.unwrap();
        assert_eq!(report_of_all["received"], 100, "{report_of_all}");
        let report_of_some = report(&args(1, 64, 3), server(2).await).await.unwrap();
        assert_eq!(
            (&report_of_some["received"], &report_of_some["lost"]),
            (&json!(10), &json!(5)),
            "{report_of_some}"
        );
    }

    #[tokio::test]
    async fn nobody_there_is_told() {
        let address = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let report = report(&args(1, 64, 1), address).await.unwrap();
        assert_eq!((&report["received"], &report["lost"]), (&json!(0), &json!(5)), "{report}");
        assert!(report["refused"].as_u64().unwrap() > 0, "{report}");
    }
}
