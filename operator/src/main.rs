//! Wires the operator together and waits for its end.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use weft_operator::apply::Writer;
use weft_operator::args::{Args, Command, LogFormat, RunArgs};
use weft_operator::context::Context;
use weft_operator::index::{self, Index};
use weft_operator::lease::{self, Fence};
use weft_operator::publish::Publisher;
use weft_operator::serve::admin::Admin;
use weft_operator::serve::debug::Debug;
use weft_operator::serve::metrics::Metrics;
use weft_operator::{cleanup, definition, reconcile, serve};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Name of the Lease; the chart makes it.
const LEASE: &str = "weft-operator";

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = start_log(&args) {
        eprintln!("--log-level {:?}: {error}", args.log_level);
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(start(args)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot go on");
            ExitCode::FAILURE
        }
    }
}

fn start_log(args: &Args) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(&args.log_level)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

async fn start(args: Args) -> Result<(), Failure> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider is installed twice")?;
    let client = Client::try_default().await?;
    match args.command {
        Command::Run(run_args) => run(client, args.namespace, run_args).await,
        Command::ApplyCrds { timeout_seconds } => {
            Ok(definition::apply(client, Duration::from_secs(timeout_seconds)).await?)
        }
        Command::Cleanup { timeout_seconds } => {
            Ok(cleanup::run(client, &args.namespace, Duration::from_secs(timeout_seconds)).await?)
        }
    }
}

async fn run(client: Client, namespace: String, args: RunArgs) -> Result<(), Failure> {
    let (stop, stopping) = watch::channel(false);
    let (leading_set, leading) = watch::channel(false);
    let (serving_set, serving) = watch::channel(false);
    let fence = Fence::default();
    let index = Index::new(&namespace);
    let ctx = Context {
        writer: Writer::new(client.clone(), fence.clone()),
        client,
        index: index.clone(),
        publisher: Publisher::default(),
        namespace: namespace.as_str().into(),
        pod: args.pod_name.as_str().into(),
        proxy_image: args.proxy_image.as_str().into(),
        smi_metrics: args.smi_metrics,
        metrics: Arc::new(Metrics::default()),
    };

    index::watch::start(&index, &ctx.client);
    tokio::spawn(ctx.publisher.clone().run(index.clone(), Arc::clone(&ctx.metrics)));
    let debug = Debug { index: index.clone(), publisher: ctx.publisher.clone() };
    let loopback = TcpListener::bind((Ipv4Addr::LOCALHOST, args.debug_port)).await?;
    tokio::spawn(serve::http::serve(loopback, move |request| debug.answer(request)));
    let admin = Admin { index, publisher: ctx.publisher.clone(), metrics: Arc::clone(&ctx.metrics), serving };
    let listener = serve::bind(args.admin_port).await?;
    tokio::spawn(serve::http::serve(listener, move |request| admin.answer(request)));
    tokio::spawn(serve::config_stream(ctx.clone(), args.config_port, serving_set));
    if ctx.smi_metrics {
        tokio::spawn(serve::traffic::serve(ctx.clone(), args.metrics_api_port));
    }
    let leader = tokio::spawn(lead(ctx.clone(), leading));
    let election = {
        let (client, stopping) = (ctx.client.clone(), stopping.clone());
        tokio::spawn(async move {
            lease::take_part(client, &namespace, LEASE, &args.pod_name, fence, leading_set, stopping).await;
        })
    };

    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        ended = leader => return Err(format!("the leader's task ended: {ended:?}").into()),
    }
    tracing::info!("told to end");
    stop.send_replace(true);
    // The Lease is given back, so that another replica takes over within its next look.
    let _ = tokio::time::timeout(Duration::from_secs(5), election).await;
    Ok(())
}

/// Reconciles while this replica leads.
async fn lead(ctx: Context, mut leading: watch::Receiver<bool>) {
    loop {
        if leading.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        ctx.metrics.leading.set(1);
        // Dropped when the lead is lost: whatever was under way stops at its next await, and the fence stops its writes.
        tokio::select! {
            () = reconcile::run(ctx.clone()) => {}
            _ = leading.wait_for(|leads| !*leads) => {}
        }
        ctx.metrics.leading.set(0);
    }
}
