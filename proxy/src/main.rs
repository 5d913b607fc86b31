//! Wires the proxy together and waits for its end.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use weft_proxy::access_log::AccessLog;
use weft_proxy::admin::Admin;
use weft_proxy::args::{Args, LogFormat};
use weft_proxy::drain::{self, Drain};
use weft_proxy::listen::{Carriers, Listeners, start_worker};
use weft_proxy::metrics::Metrics;
use weft_proxy::sync::{Operator, Sync};
use weft_proxy::tables::Tables;
use weft_proxy::tables::apply::Applier;

/// A twentieth to an eighth of a request's cost is memory taken and given back: see `docs/performance.md`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error + Send + std::marker::Sync>;

fn main() -> ExitCode {
    let began = Instant::now();
    let args = Args::parse();
    start_log(&args);
    match start(args, began) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot run");
            ExitCode::FAILURE
        }
    }
}

fn start_log(args: &Args) {
    let filter = EnvFilter::try_new(&args.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

fn start(args: Args, began: Instant) -> Result<(), Failure> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider is installed twice")?;
    // Every listener and connection is a descriptor; the soft limit is often 1024.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let threads = match args.worker_threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n,
    };
    let workers = (0..threads).map(start_worker).collect::<Result<Vec<_>, _>>()?;
    // Whatever is not traffic has threads of its own: configuration here, health below, so that it can tell when the
    // workers are stuck.
    let rest = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let health = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("admin")
        .enable_all()
        .build()?;
    let ended = rest.block_on(run(args, &health, workers, began));
    health.shutdown_background();
    rest.shutdown_timeout(Duration::from_millis(100));
    ended
}

async fn run(
    args: Args,
    health: &tokio::runtime::Runtime,
    workers: Vec<tokio::runtime::Handle>,
    began: Instant,
) -> Result<(), Failure> {
    let tables = Arc::new(Tables::default());
    let metrics = Arc::new(Metrics::default());
    let access_log = AccessLog::new(args.access_log)?;
    let carriers = Carriers::new(Arc::clone(&tables), &args.node_name, &workers, access_log)?;
    let listeners = Arc::new(Listeners::new(carriers, Arc::clone(&metrics)));
    let applier = Applier::new(tables, Arc::clone(&listeners), Arc::clone(&metrics));
    let (sync, view) = Sync::new(applier, Arc::clone(&metrics), &args.snapshot_dir);

    tokio::spawn(tell_start(view.complete.clone(), Arc::clone(&metrics), began));
    let (draining_set, draining) = watch::channel(false);
    let offered = view.offered.clone();
    // Beside health, not traffic: a turn looks at every edge.
    let edges = Arc::clone(&metrics.edges);
    health.spawn(async move { edges.keep().await });
    let admin = Admin { sync: view, listeners: Arc::clone(&listeners), metrics, draining };
    let admin_listener = bind_admin(args.admin_port)?;
    health.spawn(admin.serve(admin_listener, workers));

    let operator = Operator {
        url: args.operator_url,
        token_path: args.token_path,
        ca_path: args.ca_path,
        node: args.node_name,
        pod: args.pod_name,
    };
    tokio::spawn(sync.run(operator));

    let drain = Drain {
        offered: Duration::from_secs(args.offered_seconds),
        accept_window: Duration::from_secs(args.accept_window_seconds),
        deadline: Duration::from_secs(args.drain_deadline_seconds),
    };
    drain::until_over(drain, listeners, offered, draining_set).await?;
    Ok(())
}

/// Notes how long it took until a full configuration was in force.
async fn tell_start(mut complete: watch::Receiver<bool>, metrics: Arc<Metrics>, began: Instant) {
    if complete.wait_for(|complete| *complete).await.is_ok() {
        metrics.start.set(began.elapsed().as_secs_f64());
    }
}

/// Bound here, so that a port that cannot be had ends the process with a message.
fn bind_admin(port: u16) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        .or_else(|_| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
