//! The access log: a line on standard output for each HTTP request, TCP connection and UDP session. Off unless asked for.
//!
//! Whoever carries traffic only makes the line and hands it to a thread of its own, which writes. When that cannot keep up,
//! lines are dropped and counted: traffic never waits for its log.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use clap::ValueEnum;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::metrics::Count;
use crate::tables::PortEntry;

/// Lines that may wait to be written.
const WAITING: usize = 8192;

/// How the lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// No lines.
    Off,
    /// Common Log Format, with the Service, the endpoint and the duration behind.
    Common,
    /// One JSON object a line.
    Json,
}

/// Where lines go.
#[derive(Debug)]
pub struct AccessLog {
    lines: Option<(Format, SyncSender<String>)>,
    /// Lines that could not be written in time.
    pub dropped: Count,
}

/// What happened.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When it began.
    pub time: Timestamp,
    /// `http`, `tcp` or `udp`.
    pub protocol: &'static str,
    /// Namespace of the Service.
    pub namespace: &'a str,
    /// Name of the Service.
    pub service: &'a str,
    /// Port number of the Service.
    pub port: u16,
    /// Who asked.
    #[serde(serialize_with = "canonical")]
    pub client: Option<SocketAddr>,
    /// Who answered; absent when nobody did.
    #[serde(serialize_with = "canonical")]
    pub endpoint: Option<SocketAddr>,
    /// How long it took, in seconds.
    pub duration: f64,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// What HTTP adds.
    #[serde(flatten)]
    pub http: Option<Http<'a>>,
    /// Why it went no further; absent when it was carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}

/// What an HTTP request adds to its line.
#[derive(Debug, Serialize)]
pub struct Http<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// The version, for example `HTTP/1.1`.
    pub version: String,
    /// The Host header or `:authority`.
    pub host: &'a str,
    /// The answer's status; 0: there was none.
    pub status: u16,
    /// Tries in all.
    pub tries: usize,
}

impl AccessLog {
    /// A log in `format`, with its own thread unless it is off.
    pub fn new(format: Format) -> std::io::Result<Self> {
        let lines = if format == Format::Off {
            None
        } else {
            let (sender, receiver) = sync_channel(WAITING);
            std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&receiver))?;
            Some((format, sender))
        };
        Ok(Self { lines, dropped: Count::default() })
    }

    /// Whether lines are wanted: without, nobody needs to gather what stands in them.
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Writes a line.
    pub fn write(&self, line: &Line<'_>) {
        let Some((format, sender)) = &self.lines else { return };
        let text = if *format == Format::Json {
            serde_json::to_string(line).unwrap_or_default()
        } else {
            common(line)
        };
        if sender.try_send(text).is_err() {
            self.dropped.inc();
        }
    }
}

impl<'a> Line<'a> {
    /// A line about `port` that ends now and took `duration`.
    pub fn new(protocol: &'static str, port: &'a PortEntry, duration: Duration) -> Self {
        Self {
            time: Timestamp::now().checked_sub(duration).unwrap_or_default(),
            protocol,
            namespace: &port.service.namespace,
            service: &port.service.name,
            port: port.port,
            client: None,
            endpoint: None,
            duration: duration.as_secs_f64(),
            received: 0,
            sent: 0,
            http: None,
            reason: None,
        }
    }
}

/// An IPv4 client of a socket for both families has a mapped address: written as everywhere else, without the `::ffff:`.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[allow(clippy::ref_option, reason = "serde gives a field as it stands")]
fn canonical<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    address.map(plain).serialize(serializer)
}

/// Common Log Format, and behind it: `"namespace/service:port" "endpoint" seconds "reason"`.
fn common(line: &Line<'_>) -> String {
    let mut text = String::with_capacity(160);
    match line.client {
        Some(client) => write!(text, "{}", plain(client).ip()),
        None => write!(text, "-"),
    }
    .unwrap_or_default();
    let time = line.time.strftime("%d/%b/%Y:%H:%M:%S %z");
    let _ = write!(text, " - - [{time}] ");
    match &line.http {
        Some(http) => {
            let path = http.path.escape_default();
            let _ = write!(text, "\"{} {path} {}\" {} {}", http.method, http.version, http.status, line.sent);
        }
        None => {
            let _ = write!(text, "\"{}\" - {}", line.protocol.to_ascii_uppercase(), line.sent);
        }
    }
    let endpoint = line.endpoint.map_or_else(|| "-".to_owned(), |endpoint| plain(endpoint).to_string());
    let (namespace, service, port, reason) =
        (line.namespace, line.service, line.port, line.reason.unwrap_or("-"));
    let _ =
        write!(text, " \"{namespace}/{service}:{port}\" \"{endpoint}\" {:.6} \"{reason}\"", line.duration);
    text
}

/// Writes until every sender is gone; flushes whenever nothing waits.
fn write_all(lines: &Receiver<String>) {
    let mut out = std::io::BufWriter::new(std::io::stdout());
    while let Ok(line) = lines.recv() {
        let mut next = Some(line);
        while let Some(line) = next {
            // Nobody reads it any more: there is nothing better to do than go on.
            let _ = writeln!(out, "{line}");
            next = lines.try_recv().ok();
        }
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(http: bool) -> Line<'static> {
        let ask = Http {
            method: "GET",
            path: "/a?b=\"c\"",
            version: "HTTP/1.1".into(),
            host: "cart",
            status: 200,
            tries: 2,
        };
        Line {
            time: Timestamp::from_second(1_700_000_000).unwrap(),
            protocol: if http { "http" } else { "tcp" },
            namespace: "shop",
            service: "cart",
            port: 80,
            client: Some(([10, 0, 0, 7], 4000).into()),
            endpoint: http.then(|| ([10, 0, 1, 1], 8080).into()),
            duration: 0.0125,
            received: 3,
            sent: 1234,
            http: http.then_some(ask),
            reason: (!http).then_some("no ready endpoint"),
        }
    }

    #[test]
    fn the_common_format() {
        insta::assert_snapshot!(common(&line(true)), @r#"10.0.0.7 - - [14/Nov/2023:22:13:20 +0000] "GET /a?b=\"c\" HTTP/1.1" 200 1234 "shop/cart:80" "10.0.1.1:8080" 0.012500 "-""#);
        insta::assert_snapshot!(common(&line(false)), @r#"10.0.0.7 - - [14/Nov/2023:22:13:20 +0000] "TCP" - 1234 "shop/cart:80" "-" 0.012500 "no ready endpoint""#);
    }

    #[test]
    fn an_address_is_written_as_headers_and_edges_have_it() {
        let mapped = |text: &str| Some(SocketAddr::new(text.parse().unwrap(), 52622));
        let line = Line {
            client: mapped("::ffff:10.244.1.226"),
            endpoint: mapped("::ffff:10.244.2.3"),
            ..line(true)
        };
        let value: serde_json::Value = serde_json::from_str(&serde_json::to_string(&line).unwrap()).unwrap();
        assert_eq!(
            (&value["client"], &value["endpoint"]),
            (&"10.244.1.226:52622".into(), &"10.244.2.3:52622".into())
        );
        assert!(common(&line).starts_with("10.244.1.226 - - "), "{}", common(&line));
        assert!(common(&line).contains(r#" "10.244.2.3:52622" "#), "{}", common(&line));
        let line = Line { client: mapped("fd00::7"), endpoint: None, ..line };
        let value: serde_json::Value = serde_json::from_str(&serde_json::to_string(&line).unwrap()).unwrap();
        assert_eq!(value["client"], "[fd00::7]:52622");
        assert!(value["endpoint"].is_null());
    }

    #[test]
    fn json_is_one_flat_object() {
        let value: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&line(true)).unwrap()).unwrap();
        assert_eq!(
            (&value["status"], &value["service"], &value["tries"]),
            (&200.into(), &"cart".into(), &2.into())
        );
        assert_eq!(value["time"], "2023-11-14T22:13:20Z");
        assert!(value["reason"].is_null());
    }
}
