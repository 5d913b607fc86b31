//! The proxies, each set up as its users would: one worker, metrics on, access log off, forwarding headers as it adds them,
//! upstream connections kept. A file for each says how.

mod envoy;
mod haproxy;
mod nginx;
mod traefik;
mod weft;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::ports::{BACKEND_BULK, BACKEND_ECHO, BACKEND_H2C, BACKEND_HTTP, BACKEND_UDP, MANY, front, local};
use crate::scenario::Scenario;
use crate::{Result, Run, load, process};

/// How long one may take to answer; with thousands of Services some take their time.
const START: Duration = Duration::from_secs(120);
/// The core they run on.
const CORE: &str = "0";

/// Who carries the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// Nobody: clients call the backend.
    Direct,
    /// Weft's node proxy.
    Weft,
    /// Envoy.
    Envoy,
    /// `HAProxy`.
    Haproxy,
    /// nginx.
    Nginx,
    /// Traefik 3.
    Traefik,
}

/// Where clients call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Front {
    /// HTTP/1.1.
    pub(crate) http: SocketAddr,
    /// HTTP/2.
    pub(crate) h2c: SocketAddr,
    /// TCP that echoes.
    pub(crate) echo: SocketAddr,
    /// TCP that sends.
    pub(crate) bulk: SocketAddr,
    /// UDP that echoes.
    pub(crate) udp: SocketAddr,
    /// The first of many ports, where Services have ports of their own instead of names.
    pub(crate) many: Option<u16>,
}

/// How to start one: the program and its arguments, with its files written.
struct Start {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Start {
    fn new(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program: program.into(), arguments, environment: Vec::new() }
    }
}

/// One that runs.
pub(crate) struct Running {
    /// Its process; none when there is no proxy.
    pub(crate) pid: Option<u32>,
    /// Where clients call.
    pub(crate) front: Front,
    child: Option<Child>,
    log: PathBuf,
}

impl System {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 6] =
        [Self::Direct, Self::Weft, Self::Envoy, Self::Haproxy, Self::Nginx, Self::Traefik];

    /// What `SYSTEMS` and the figures say.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Weft => "weft",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
        }
    }

    /// Whether there is something to measure.
    pub(crate) fn can(self, scenario: Scenario) -> bool {
        match self {
            Self::Direct => !matches!(scenario, Scenario::IdleConnections | Scenario::Http1KeepAlive5000),
            // It carries no datagrams.
            Self::Haproxy => scenario != Scenario::UdpEcho,
            _ => true,
        }
    }

    /// Starts it for `scenario`, and waits until it answers.
    pub(crate) async fn start(self, scenario: Scenario, args: &Run) -> Result<Running> {
        let services = scenario.services();
        // Another program must find its files from wherever it runs.
        let work = std::path::absolute(&args.work)?;
        let start = match self {
            Self::Direct => return Ok(Running::direct()),
            Self::Weft => weft::prepare(&args.weft, &work, services)?,
            Self::Envoy => envoy::prepare(&args.envoy, &work, services)?,
            Self::Haproxy => haproxy::prepare(&work, services)?,
            Self::Nginx => nginx::prepare(&work, services)?,
            Self::Traefik => traefik::prepare(&args.traefik, &work, services)?,
        };
        let log = work.join(format!("{}.log", self.name()));
        let (out, err) = (File::create(&log)?, File::options().append(true).open(&log)?);
        let child = Command::new("taskset")
            .args(["--cpu-list", CORE])
            .arg(&start.program)
            .args(&start.arguments)
            .envs(start.environment)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", start.program.display()))?;
        let many = (self == Self::Weft && services > 1).then_some(MANY);
        let mut running = Running { pid: child.id(), front: Front::of_proxy(many), child: Some(child), log };
        running.answers(services).await?;
        Ok(running)
    }
}

impl Front {
    fn of_proxy(many: Option<u16>) -> Self {
        Self::of(front, many)
    }

    fn of(port: fn(u16) -> u16, many: Option<u16>) -> Self {
        Self {
            http: local(port(BACKEND_HTTP)),
            h2c: local(port(BACKEND_H2C)),
            echo: local(port(BACKEND_ECHO)),
            bulk: local(port(BACKEND_BULK)),
            udp: local(port(BACKEND_UDP)),
            many,
        }
    }
}

impl Running {
    fn direct() -> Self {
        Self { pid: None, front: Front::of(|port| port, None), child: None, log: PathBuf::new() }
    }

    /// Waits until the last Service answers: the last by name, for that is how Weft opens them.
    async fn answers(&mut self, services: u16) -> Result {
        let last = (0..services).max_by_key(u16::to_string).unwrap_or_default();
        let address = self.front.many.map_or(self.front.http, |first| local(first + last));
        let request = load::http1::get("/", &format!("svc-{last}.bench.svc"), "Connection: close\r\n");
        let asked = async {
            loop {
                if let Ok(mut stream) = TcpStream::connect(address).await {
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await;
                    if load::http1::read_answer(&mut stream, &mut Vec::new(), &mut [0; 4096]).await.is_ok() {
                        return;
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = async {
            match &mut self.child {
                Some(child) => child.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answered = timeout(START, asked) => {
                answered.map_err(|_| format!("does not answer; see {}", self.log.display()))?;
                Ok(())
            }
            ended = ended => Err(format!("ended with {}; see {}", ended?, self.log.display()).into()),
        }
    }

    /// Ends it, and tells where its log is.
    pub(crate) async fn stop(mut self) -> Result<String> {
        if let (Some(child), Some(pid)) = (&mut self.child, self.pid) {
            // Its children, too: workers of nginx outlive their master otherwise, and keep its ports.
            let all = process::family(pid).into_iter().map(|pid| pid.to_string());
            Command::new("kill").arg("-KILL").args(all).status().await?;
            child.wait().await?;
        }
        Ok(format!("its log: {}", self.log.display()))
    }
}

/// Writes a file of a configuration.
fn write(path: &Path, content: &str) -> Result<String> {
    std::fs::write(path, content)?;
    Ok(path.display().to_string())
}
