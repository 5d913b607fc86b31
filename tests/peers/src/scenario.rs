//! What is measured: which load, for how long, and which figures come of it.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::Result;
use crate::load::{Clients, Counts, h2c, http1, paced, streams, udp};
use crate::process::{cpu_ns, rss};
use crate::systems::Running;

/// The load before it counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// After the load, before memory is looked at.
const COOL_DOWN: Duration = Duration::from_secs(1);
/// Services in the scenario with many.
pub(crate) const MANY_SERVICES: u16 = 5000;
/// Connections that are held idle.
const IDLE_CONNECTIONS: usize = 1000;
/// Requests a second, and the connections they come on, where the rate is fixed.
const RATE: u32 = 2000;
const RATE_CONNECTIONS: u32 = 20;
const MIB: f64 = 1_048_576.0;

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// HTTP/1.1, small bodies, 64 connections.
    Http1KeepAlive,
    /// The same with 256.
    Http1KeepAlive256,
    /// The same with 64, spread over 5,000 Services.
    Http1KeepAlive5000,
    /// HTTP/1.1, a new connection for each request.
    Http1Connect,
    /// Unary gRPC over HTTP/2 in the clear, in and out.
    H2c,
    /// HTTP/1.1, bodies of 1 MiB, up and down.
    Bodies1Mib,
    /// TCP: small exchanges.
    TcpSmall,
    /// TCP: as much as goes.
    TcpBulk,
    /// UDP: a datagram there, a datagram back.
    UdpEcho,
    /// HTTP/1.1 at a fixed rate.
    Latency2000,
    /// HTTP/1.1: connections that rest after one request.
    IdleConnections,
}

/// Metrics and their values.
pub(crate) type Figures = Vec<(&'static str, f64)>;

impl Scenario {
    /// All, as they are run.
    pub(crate) const ALL: [Self; 11] = [
        Self::Http1KeepAlive,
        Self::Http1KeepAlive256,
        Self::Http1KeepAlive5000,
        Self::Http1Connect,
        Self::H2c,
        Self::Bodies1Mib,
        Self::TcpSmall,
        Self::TcpBulk,
        Self::UdpEcho,
        Self::Latency2000,
        Self::IdleConnections,
    ];

    /// What `SCENARIO` says.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1KeepAlive => "http1-keepalive",
            Self::Http1KeepAlive256 => "http1-keepalive-256",
            Self::Http1KeepAlive5000 => "http1-keepalive-5000",
            Self::Http1Connect => "http1-connect",
            Self::H2c => "h2c",
            Self::Bodies1Mib => "bodies-1mib",
            Self::TcpSmall => "tcp-small",
            Self::TcpBulk => "tcp-bulk",
            Self::UdpEcho => "udp-echo",
            Self::Latency2000 => "latency-2000",
            Self::IdleConnections => "idle-connections",
        }
    }

    /// Services that are configured.
    pub(crate) fn services(self) -> u16 {
        if self == Self::Http1KeepAlive5000 { MANY_SERVICES } else { 1 }
    }

    /// Puts the load on `running` and returns what came of it.
    pub(crate) async fn run(self, running: &Running, lasting: Duration) -> Result<Figures> {
        let idle = running.pid.map(rss).transpose()?;
        let mut figures = match self {
            Self::Latency2000 => paced_figures(running, lasting)?,
            Self::IdleConnections => return resting(running).await,
            _ => self.closed_loop(running, lasting).await?,
        };
        sleep(COOL_DOWN).await;
        if let (Some(pid), Some(idle)) = (running.pid, idle) {
            figures.push(("rss_idle_mib", idle as f64 / MIB));
            figures.push(("rss_after_mib", rss(pid)? as f64 / MIB));
        }
        Ok(figures)
    }

    async fn closed_loop(self, running: &Running, lasting: Duration) -> Result<Figures> {
        let clients = self.clients(running);
        sleep(WARM_UP).await;
        let before = Books::look(running, &clients.counts)?;
        sleep(lasting).await;
        let after = Books::look(running, &clients.counts)?;
        let failed = clients.counts.failed.get();
        // A datagram may be lost; nothing else.
        if after.done == before.done || (failed > 0 && self != Self::UdpEcho) {
            let why = clients.counts.failure.take().unwrap_or_default();
            return Err(format!("{failed} failures, {} answers; {why}", after.done).into());
        }
        let (done, bytes) = ((after.done - before.done) as f64, (after.bytes - before.bytes) as f64);
        let seconds = (after.at - before.at).as_secs_f64();
        let mut figures = Figures::new();
        if running.pid.is_some() {
            let cpu_us = (after.cpu_ns - before.cpu_ns) as f64 / 1000.0;
            match self {
                Self::TcpBulk => figures.push(("cpu_us_per_mb", cpu_us / (bytes / 1e6))),
                _ => figures.push(("cpu_us_per_request", cpu_us / done)),
            }
            // Of the one core it has.
            figures.push(("cpu_share", cpu_us / 1e6 / seconds));
        }
        match self {
            Self::TcpBulk => figures.push(("megabytes_per_second", bytes / 1e6 / seconds)),
            _ => figures.push(("requests_per_second", done / seconds)),
        }
        if self == Self::UdpEcho {
            figures.push(("lost", failed as f64));
        }
        Ok(figures)
    }

    fn clients(self, running: &Running) -> Clients {
        let front = running.front;
        let (http, h2, small, bulk, datagrams) = (front.http, front.h2c, front.echo, front.bulk, front.udp);
        let host = |_| "svc-0.bench.svc".to_owned();
        match self {
            Self::Http1KeepAlive256 => {
                Clients::start(256, move |n, counts| http1::keep_alive(http, host(n), counts))
            }
            Self::Http1Connect => {
                Clients::start(32, move |n, counts| http1::connect_each(http, host(n), counts))
            }
            Self::Bodies1Mib => Clients::start(8, move |n, counts| http1::large(http, host(n), n, counts)),
            Self::H2c => Clients::start(4, move |n, counts| h2c::calls(h2, host(n), 16, counts)),
            Self::TcpSmall => Clients::start(64, move |_, counts| streams::small(small, counts)),
            Self::TcpBulk => Clients::start(4, move |_, counts| streams::bulk(bulk, counts)),
            Self::UdpEcho => Clients::start(64, move |_, counts| udp::echo(datagrams, counts)),
            Self::Http1KeepAlive5000 => {
                let many = front.many;
                Clients::start(64, move |n, counts| {
                    // Spread over all of them.
                    let service = u16::try_from(n).unwrap_or_default() * (MANY_SERVICES / 64);
                    let address = many.map_or(http, |first| ([127, 0, 0, 1], first + service).into());
                    http1::keep_alive(address, format!("svc-{service}.bench.svc"), counts)
                })
            }
            Self::Http1KeepAlive | Self::Latency2000 | Self::IdleConnections => {
                Clients::start(64, move |n, counts| http1::keep_alive(http, host(n), counts))
            }
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What all counters say at one time.
struct Books {
    at: Instant,
    cpu_ns: u64,
    done: u64,
    bytes: u64,
}

impl Books {
    fn look(running: &Running, counts: &Rc<Counts>) -> Result<Self> {
        let cpu_ns = running.pid.map_or(Ok(0), cpu_ns)?;
        Ok(Self { at: Instant::now(), cpu_ns, done: counts.done.get(), bytes: counts.bytes.get() })
    }
}

fn paced_figures(running: &Running, lasting: Duration) -> Result<Figures> {
    let run = |lasting| paced::run(running.front.http, "svc-0.bench.svc", RATE_CONNECTIONS, RATE, lasting);
    run(WARM_UP)?;
    let before = running.pid.map(cpu_ns).transpose()?;
    let mut took = run(lasting)?;
    let mut figures = Figures::new();
    if let (Some(pid), Some(before)) = (running.pid, before) {
        figures.push(("cpu_us_per_request", (cpu_ns(pid)? - before) as f64 / 1000.0 / took.len() as f64));
    }
    took.sort_unstable();
    let at = |share: usize| f64::from(took[(took.len() * share / 1000).min(took.len() - 1)]);
    figures.extend([("p50_us", at(500)), ("p99_us", at(990)), ("p999_us", at(999))]);
    Ok(figures)
}

/// Memory that connections cost which do nothing.
async fn resting(running: &Running) -> Result<Figures> {
    let Some(pid) = running.pid else { return Ok(Figures::new()) };
    let idle = rss(pid)?;
    let mut held = Vec::new();
    let (mut buffer, mut chunk) = (Vec::new(), [0; 4096]);
    for _ in 0..IDLE_CONNECTIONS {
        let mut stream = TcpStream::connect(running.front.http).await?;
        let request = http1::get("/", "svc-0.bench.svc", "");
        tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await?;
        http1::read_answer(&mut stream, &mut buffer, &mut chunk).await?;
        held.push(stream);
    }
    sleep(COOL_DOWN).await;
    let each = rss(pid)?.saturating_sub(idle) as f64 / 1024.0 / IDLE_CONNECTIONS as f64;
    Ok(vec![("rss_per_connection_kib", each)])
}
