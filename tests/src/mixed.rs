//! Load of every kind at once: HTTP on new and on kept connections, HTTP/2 in the clear, gRPC calls, and TCP connections that
//! last. For whatever must be done under load without anybody noticing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::exec::PodRef;
use crate::protocols::{grpc, tcp};
use crate::servers::Server;
use crate::services::UserService;
use crate::stage::Stage;
use crate::traffic::{Load, LoadReport, Mode, reaches};
use crate::wait::{self, Seen, seconds};
use crate::{Result, mesh};

/// Milliseconds a server takes for a gRPC call: one after the other they are some 40 a second.
const PAUSE_MS: &str = "20";
/// gRPC calls of one command.
const CALLS: &str = "100";
/// TCP connections open at a time.
const CONNECTIONS: u64 = 10;
/// For so many seconds each is written to and read from: shorter than the drain of the tests' MeshConfig, so that no proxy that
/// goes has a reason to cut it.
const STREAM_SECONDS: u64 = 16;
/// Bytes a second on each.
const RATE: u64 = 2000;

/// A namespace with a server of every kind, and the load on it.
pub struct Mixed {
    loads: Vec<Load>,
    enough: Arc<AtomicBool>,
    calls: JoinHandle<Result<u64>>,
    streams: JoinHandle<Result<u64>>,
}

/// What came of it.
#[derive(Debug)]
pub struct MixedReport {
    /// HTTP, by mode.
    pub http: Vec<LoadReport>,
    /// gRPC calls that went well.
    pub calls: u64,
    /// TCP connections that were carried to their end.
    pub streams: u64,
}

/// Requests a second of all modes together: `WEFT_LOAD_RPS`, for the full length of a test, or few enough for two cores that do
/// other things as well.
pub fn total_rps() -> u32 {
    std::env::var("WEFT_LOAD_RPS").ok().and_then(|text| text.parse().ok()).unwrap_or(150)
}

impl Mixed {
    /// A stage on which it can be started.
    pub async fn stage(cluster: &Cluster, namespace: &str) -> Result<Stage> {
        mesh::installed(cluster).await?;
        Self::stage_on(cluster, namespace).await
    }

    /// The same on the mesh that is there.
    pub async fn stage_on(cluster: &Cluster, namespace: &str) -> Result<Stage> {
        let servers = [Server::new("web", 2), Server::grpc("calls", 2), Server::tcp("streams", 2)];
        let services = [
            UserService::http("web", "web"),
            UserService::grpc("calls", "calls"),
            UserService::new("streams", "streams").tcp("echo", 9000, "echo").ask("traffic-type", "tcp"),
        ];
        Stage::on_what_is_there(cluster, namespace, &servers, &services).await
    }

    /// Starts it once everything answers: HTTP from the first node and from the last, gRPC from the first, TCP from the last.
    pub async fn start(stage: &Stage) -> Result<Self> {
        let (cluster, client) = (&stage.cluster, stage.client());
        let last = stage.clients.last().unwrap_or(client);
        let callers = if last.name == client.name { vec![client] } else { vec![client, last] };
        for client in &callers {
            reaches(cluster, client, &stage.url("web", "/"), "web", seconds(30)).await?;
        }
        let (calls, streams) = (stage.url("calls", ""), format!("{}:9000", stage.host("streams")));
        wait::until("a call is answered", seconds(30), async || {
            let call = grpc(cluster, client, &calls, &[]).await?.pop().ok_or("no call was made")?;
            Ok(Seen::when(call.status == Some(0), (), || format!("{call:?}")))
        })
        .await?;
        wait::until("a connection is served", seconds(30), async || {
            let report = tcp(cluster, client, &streams, &["--timeout", "2000"]).await?;
            Ok(Seen::when(report.ok == 1, (), || format!("{report:?}")))
        })
        .await?;
        let rps = total_rps() / 3 / u32::try_from(callers.len())?;
        let mut loads = Vec::new();
        for client in callers {
            loads.push(Load::start(cluster, client, &stage.url("web", "/"), "web", rps, Mode::All).await?);
        }
        let enough = Arc::new(AtomicBool::new(false));
        let calls = tokio::spawn(call(cluster.clone(), client.clone(), calls, Arc::clone(&enough)));
        let streams = tokio::spawn(stream(cluster.clone(), last.clone(), streams, Arc::clone(&enough)));
        Ok(Self { loads, enough, calls, streams })
    }

    /// Waits until `so_long` of it has passed.
    pub async fn let_run(&self, so_long: Duration) -> Result {
        // Side by side: what has passed for one has for all.
        self.loads[0].let_run(so_long).await
    }

    /// Ends it and fails unless everything went well, and there was some of each kind.
    pub async fn stop_without_failures(self) -> Result<MixedReport> {
        self.enough.store(true, Relaxed);
        let mut http = Vec::new();
        for load in self.loads {
            http.extend(load.stop_without_failures(100).await?);
        }
        let report = MixedReport { http, calls: self.calls.await??, streams: self.streams.await?? };
        eprintln!("  grpc: {} calls; tcp: {} connections to their end", report.calls, report.streams);
        assert!(report.calls >= 100 && report.streams >= CONNECTIONS, "{report:?}");
        Ok(report)
    }
}

/// gRPC calls on one channel, one after the other, until there are enough.
async fn call(cluster: Cluster, client: PodRef, url: String, enough: Arc<AtomicBool>) -> Result<u64> {
    let mut well = 0;
    while !enough.load(Relaxed) {
        let calls = grpc(&cluster, &client, &url, &["-n", CALLS, "--pause-ms", PAUSE_MS]).await?;
        let bad: Vec<_> = calls.iter().filter(|call| call.status != Some(0)).collect();
        if !bad.is_empty() {
            return Err(format!("{} of {} gRPC calls failed: {:?}", bad.len(), calls.len(), bad[0]).into());
        }
        well += calls.len() as u64;
    }
    Ok(well)
}

/// TCP connections that last, in two sets of different lengths, so that at any time some are young and some are old.
async fn stream(cluster: Cluster, client: PodRef, to: String, enough: Arc<AtomicBool>) -> Result<u64> {
    let set = async |seconds: u64| -> Result<u64> {
        let mut well = 0;
        while !enough.load(Relaxed) {
            let args = [CONNECTIONS / 2, RATE * seconds, RATE].map(|number| number.to_string());
            let [connections, bytes, rate] = args.each_ref().map(String::as_str);
            let args = [
                &["--mode", "echo", "--connections", connections][..],
                &["--bytes", bytes, "--rate", rate, "--timeout", "30000"],
            ];
            let report = tcp(&cluster, &client, &to, &args.concat()).await?;
            if report.failed > 0 {
                return Err(format!("TCP connections of {seconds} s were cut: {report:?}").into());
            }
            well += report.ok;
        }
        Ok(well)
    };
    let (long, short) = tokio::join!(set(STREAM_SECONDS), set(STREAM_SECONDS / 2 + 1));
    Ok(long? + short?)
}
