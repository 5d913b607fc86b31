//! Wires the operator together and waits for its end.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use hyper::Request;
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use weft_crds::MeshConfig;
use weft_operator::apply::Writer;
use weft_operator::args::{Args, CleanupArgs, Command, LogFormat, RunArgs};
use weft_operator::cleanup::{self, Cleanup};
use weft_operator::context::Context;
use weft_operator::index::{self, Index};
use weft_operator::lease::{self, Fence};
use weft_operator::publish::Publisher;
use weft_operator::serve::admin::Admin;
use weft_operator::serve::debug::Debug;
use weft_operator::serve::metrics::Metrics;
use weft_operator::serve::reader::ReaderKeys;
use weft_operator::{client, definition, reconcile, serve};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long a removal that is under way holds up our end: longer than it may take, shorter than the pod's grace period.
const REMOVAL: Duration = Duration::from_secs(50);
/// How long giving the Lease back may take.
const RESIGNATION: Duration = Duration::from_secs(6);

fn main() -> ExitCode {
    let began = Instant::now();
    let args = Args::parse();
    if let Err(error) = start_log(&args) {
        eprintln!("--log-level {:?}: {error}", args.log_level);
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(start(args, began)));
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

async fn start(args: Args, began: Instant) -> Result<(), Failure> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider is installed twice")?;
    match args.command {
        Command::Run(run_args) => run(args.namespace, run_args, began).await,
        Command::ApplyCrds { timeout_seconds } => {
            let client = client::for_reading(Counter::default()).await?;
            Ok(definition::apply(client, Duration::from_secs(timeout_seconds)).await?)
        }
        Command::Cleanup(CleanupArgs { timeout_seconds, force, pod_name }) => {
            let client = client::for_reading(Counter::default()).await?;
            let writing = client::for_writing(Counter::default()).await?;
            let patience = Duration::from_secs(timeout_seconds);
            let (namespace, me) = (&*args.namespace, &*pod_name);
            Ok(Cleanup { client, writing, namespace, me, patience, force }.run().await?)
        }
    }
}

async fn run(namespace: String, args: RunArgs, began: Instant) -> Result<(), Failure> {
    let metrics = Arc::new(Metrics::default());
    let client = client::for_reading(metrics.api_requests.clone()).await?;
    let writing = client::for_writing(metrics.api_requests.clone()).await?;
    let (stop, stopping) = watch::channel(false);
    let (leading_set, leading) = watch::channel(false);
    let (serving_set, serving) = watch::channel(false);
    let fence = Fence::default();
    let index = Index::new(&namespace);
    let ctx = Context {
        writer: Writer::new(writing.clone(), fence.clone()),
        client,
        index: index.clone(),
        publisher: Publisher::default(),
        namespace: namespace.as_str().into(),
        pod: args.pod_name.as_str().into(),
        proxy_image: args.proxy_image.as_str().into(),
        smi_metrics: args.smi_metrics,
        metrics,
    };

    index::watch::start(&index, &ctx.client);
    tokio::spawn(ctx.publisher.clone().run(index.clone(), Arc::clone(&ctx.metrics)));
    let keys = ReaderKeys::default();
    serve_debug(&ctx, keys.clone(), args.debug_port).await?;
    tokio::spawn(tell_start(ctx.clone(), serving.clone(), began));
    tokio::spawn(serve::dns::serve(index.clone(), serve::dns::bind(args.dns_port).await?));
    let admin = Admin { index, publisher: ctx.publisher.clone(), metrics: Arc::clone(&ctx.metrics), serving };
    let listener = serve::bind(args.admin_port).await?;
    let answer = move |request| std::future::ready(admin.answer(&request));
    tokio::spawn(serve::http::serve(listener, answer));
    tokio::spawn(serve::config_stream(ctx.clone(), args.config_port, serving_set, keys));
    if ctx.smi_metrics {
        tokio::spawn(serve::traffic::serve(ctx.clone(), args.metrics_api_port));
    }
    tokio::spawn(cleanup::stand_in(ctx.clone(), writing));
    let leader = tokio::spawn(lead(ctx.clone(), leading.clone()));
    let election = {
        let (client, stopping) = (ctx.client.clone(), stopping.clone());
        tokio::spawn(async move {
            lease::take_part(client, &namespace, lease::NAME, &args.pod_name, fence, leading_set, stopping)
                .await;
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
    finish_removal(&ctx, leading).await;
    stop.send_replace(true);
    // The Lease is given back, so that another replica takes over at once.
    let _ = tokio::time::timeout(RESIGNATION, election).await;
    Ok(())
}

/// A leader that removes a mesh finishes first: with it may go the last who has the right to.
async fn finish_removal(ctx: &Context, mut leading: watch::Receiver<bool>) {
    let mut mesh = ctx.index.mesh();
    let removing = |mesh: &Option<Arc<MeshConfig>>| {
        mesh.as_ref().is_some_and(|mesh| mesh.metadata.deletion_timestamp.is_some())
    };
    if !*leading.borrow() || !removing(&mesh.borrow()) {
        return;
    }
    tracing::info!("finishing the removal first");
    let finished = async {
        tokio::select! {
            _ = mesh.wait_for(|mesh| !removing(mesh)) => {}
            _ = leading.wait_for(|leads| !*leads) => {}
        }
    };
    if tokio::time::timeout(REMOVAL, finished).await.is_err() {
        tracing::warn!("the removal is not finished; whoever leads next goes on with it");
    }
}

async fn serve_debug(ctx: &Context, keys: ReaderKeys, port: u16) -> Result<(), Failure> {
    let debug = Arc::new(Debug {
        index: ctx.index.clone(),
        publisher: ctx.publisher.clone(),
        metrics: Arc::clone(&ctx.metrics),
        keys,
        pod: Arc::clone(&ctx.pod),
    });
    let loopback = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let answer = move |request: Request<Incoming>| {
        let debug = Arc::clone(&debug);
        let (parts, _) = request.into_parts();
        async move { debug.answer(&parts.method, &parts.uri).await }
    };
    tokio::spawn(serve::http::serve(loopback, answer));
    Ok(())
}

/// Notes how long it took until a proxy that came would have been given everything.
async fn tell_start(ctx: Context, mut serving: watch::Receiver<bool>, began: Instant) {
    let mut versions = ctx.publisher.versions();
    let complete = versions.wait_for(|version| *version > 0).await.is_ok();
    let serves = serving.wait_for(|serving| *serving).await.is_ok();
    if complete && serves {
        let took = began.elapsed().as_secs_f64();
        ctx.metrics.start.set(took);
        tracing::info!(
            seconds = took,
            resources = ctx.publisher.resources(),
            "serving a complete configuration"
        );
    }
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
