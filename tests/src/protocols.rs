//! gRPC, WebSocket, TCP, UDP and raw bytes from client pods, and what came of them. [`crate::traffic`] has plain HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Result;
use crate::cluster::Cluster;
use crate::exec::{self, PodRef, Session};
use crate::traffic::clock;
use crate::wait::{self, Seen, seconds};

/// One line of `weft-lab grpc`.
#[derive(Debug, Clone, Deserialize)]
pub struct Call {
    /// The status code; absent when no call could be made.
    pub status: Option<i32>,
    /// Why none could be made.
    pub error: Option<String>,
    /// The status' message.
    #[serde(default)]
    pub message: String,
    /// The pod of the first reply.
    pub pod: Option<String>,
    /// What is told of each reply.
    #[serde(default)]
    pub replies: Vec<Reply>,
    /// The call's metadata as the server received it.
    pub received_metadata: Option<BTreeMap<String, String>>,
    /// Metadata before the replies.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Metadata behind them.
    #[serde(default)]
    pub trailers: BTreeMap<String, String>,
    /// How long it took.
    pub ms: f64,
}

/// One reply within a call.
#[derive(Debug, Clone, Deserialize)]
pub struct Reply {
    /// From 1.
    pub number: u32,
    /// Size of the payload.
    pub bytes: u64,
    /// Whether the payload is what was sent.
    pub intact: bool,
    /// Messages the server had received by then.
    pub received_messages: u32,
}

/// What `weft-lab ws` tells.
#[derive(Debug, Deserialize)]
pub struct WebSocket {
    /// Of the handshake; absent when there was none.
    pub status: Option<u16>,
    /// Headers of the handshake's answer.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Messages that came back.
    #[serde(default)]
    pub echoes: Vec<Echo>,
    /// Pings that were answered.
    #[serde(default)]
    pub pongs: u32,
    /// The code the server closed with.
    #[serde(default)]
    pub close: Value,
    /// What went wrong.
    pub error: Option<String>,
}

/// One message that came back.
#[derive(Debug, Deserialize)]
pub struct Echo {
    /// Of the message sent.
    pub size: u64,
    /// Text otherwise.
    pub binary: bool,
    /// Whether it is what was sent.
    pub intact: bool,
}

/// What `weft-lab tcp` tells.
#[derive(Debug, Deserialize)]
pub struct TcpReport {
    /// Connections that were open at once.
    pub opened: u64,
    /// Exchanges that went as they should.
    pub ok: u64,
    /// Those that did not, those that could not be opened included.
    pub failed: u64,
    /// Up to 20 failures.
    pub failures: Vec<String>,
    /// Exchanges by the server that told its name.
    pub by: BTreeMap<String, u64>,
    /// Bytes carried.
    pub bytes: u64,
    /// What the last server told.
    pub told: Value,
}

impl TcpReport {
    /// Fails unless all `connections` did as they should.
    pub fn assert_all(&self, connections: u64) {
        assert!(self.ok == connections && self.failed == 0, "not all {connections} went well: {self:?}");
    }
}

/// What `weft-lab udp` tells.
#[derive(Debug, Deserialize)]
pub struct UdpReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Answers received in time.
    pub received: u64,
    /// Answers that did not come in time.
    pub lost: u64,
    /// Answers that came late or twice.
    pub late: u64,
    /// Answers that are not what was sent.
    pub wrong: u64,
    /// When the last datagram left whose answer was lost, by the client's clock.
    pub last_lost_s: Option<f64>,
    /// Answers by server.
    pub by: BTreeMap<String, u64>,
    /// How often a source was answered by another server than the time before.
    pub moves: u64,
    /// Each source.
    pub sources: Vec<UdpSource>,
}

/// One source of datagrams.
#[derive(Debug, Deserialize)]
pub struct UdpSource {
    /// The server that answered last.
    pub last: Option<String>,
    /// How often another one answered than before.
    pub moves: u64,
}

/// What came back for bytes of `weft-lab get --raw-text`.
#[derive(Debug, Deserialize)]
pub struct Raw {
    /// What came back, as text.
    #[serde(default)]
    pub raw: String,
    /// `closed`, `quiet`, `nothing came`, or how the connection broke.
    #[serde(default)]
    pub ended: String,
    /// Why there was no connection.
    pub error: Option<String>,
}

impl Raw {
    /// The statuses of the answers that came, in order.
    pub fn statuses(&self) -> Vec<u16> {
        let heads = self.raw.match_indices("HTTP/1.").map(|(at, _)| &self.raw[at..]);
        heads.filter_map(|head| head.split(' ').nth(1)?.parse().ok()).collect()
    }

    /// What the lab's server told in the body of the first answer.
    pub fn told(&self) -> Result<Value> {
        let body = self.raw.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {self:?}"))?.1;
        let mut values = serde_json::Deserializer::from_str(body).into_iter();
        Ok(values.next().ok_or_else(|| format!("no body: {self:?}"))??)
    }
}

fn parse_last<T: DeserializeOwned>(text: &str) -> Result<T> {
    let line = text.lines().last().ok_or("nothing was printed")?;
    Ok(serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?)
}

/// Makes gRPC calls to `url` with further arguments of `weft-lab grpc`.
pub async fn grpc(cluster: &Cluster, client: &PodRef, url: &str, args: &[&str]) -> Result<Vec<Call>> {
    let command = [&["/weft-lab", "grpc", "--url", url], args].concat();
    let text = exec::run(cluster, client, &command).await?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Talks over a WebSocket to `url` with further arguments of `weft-lab ws`.
pub async fn websocket(cluster: &Cluster, client: &PodRef, url: &str, args: &[&str]) -> Result<WebSocket> {
    parse_last(&exec::run(cluster, client, &[&["/weft-lab", "ws", url], args].concat()).await?)
}

/// Opens TCP connections to `to` (`host:port`) with further arguments of `weft-lab tcp`.
pub async fn tcp(cluster: &Cluster, client: &PodRef, to: &str, args: &[&str]) -> Result<TcpReport> {
    parse_last(&exec::run(cluster, client, &[&["/weft-lab", "tcp", to], args].concat()).await?)
}

/// Sends datagrams to `to` (`host:port`) with further arguments of `weft-lab udp`.
pub async fn udp(cluster: &Cluster, client: &PodRef, to: &str, args: &[&str]) -> Result<UdpReport> {
    parse_last(&exec::run(cluster, client, &[&["/weft-lab", "udp", to], args].concat()).await?)
}

/// Writes bytes (escapes as in Rust) to a connection to the host and port of `url`.
pub async fn raw(cluster: &Cluster, client: &PodRef, url: &str, bytes: &str) -> Result<Raw> {
    parse_last(&exec::run(cluster, client, &["/weft-lab", "get", url, "--raw-text", bytes]).await?)
}

/// A command of the lab that goes on until it is told to end.
pub struct Running(Session);

impl Running {
    /// Starts `weft-lab` with `args` and waits until it has told `sign` on standard error.
    pub async fn start(cluster: &Cluster, client: &PodRef, args: &[&str], sign: &str) -> Result<Self> {
        let command: Vec<_> = ["/weft-lab"].iter().chain(args).map(ToString::to_string).collect();
        let running = Self(exec::start(cluster, client, &command).await?);
        wait::until(&format!("{} tells {sign}", args.join(" ")), seconds(60), async || {
            let told = running.0.told();
            Ok(Seen::when(told.contains(sign), (), || format!("{told}{}", running.0.printed())))
        })
        .await?;
        Ok(running)
    }

    /// What it told on standard error so far.
    pub fn told(&self) -> String {
        self.0.told()
    }

    /// The time by its own clock, for commands that tell it.
    pub fn clock(&self) -> f64 {
        clock(&self.0.told())
    }

    /// Waits until `so_long` has passed by its own clock.
    pub async fn let_run(&self, so_long: Duration) -> Result {
        let goal = self.clock() + so_long.as_secs_f64();
        wait::until("it goes on", so_long + seconds(10), async || {
            Ok(Seen::when(self.clock() >= goal, (), || self.0.told()))
        })
        .await
    }

    /// Tells it to end; its report.
    pub async fn stop<T: DeserializeOwned>(mut self) -> Result<T> {
        self.0.tell_to_end().await?;
        parse_last(&self.0.output().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_in_raw_bytes() {
        let raw = "HTTP/1.1 400 Bad Request\r\na: b\r\n\r\n{\"seen\":1}HTTP/1.1 200 OK\r\n\r\n";
        let raw = Raw { raw: raw.to_owned(), ended: String::new(), error: None };
        assert_eq!(raw.statuses(), [400, 200]);
        assert_eq!(raw.told().unwrap()["seen"], 1);
    }
}
