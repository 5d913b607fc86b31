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

use weft_operator::apply::Writer;
use weft_operator::args::{Args, CleanupArgs, Command, LogFormat, RunArgs};
use weft_operator::cleanup::{self, Cleanup};
use weft_operator::context::Context;
use weft_operator::index::Index;
use weft_operator::lease::{Contact, Fence};
use weft_operator::outside::Network;
use weft_operator::publish::Publisher;
use weft_operator::serve::admin::Admin;
use weft_operator::serve::debug::Debug;
use weft_operator::serve::metrics::Metrics;
use weft_operator::serve::reader::ReaderKeys;
use weft_operator::{client, definition, run, serve};

type Failure = Box<dyn std::error::Error + Send + Sync>;

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
        Command::Run(run_args) => replica(args.namespace, run_args, began).await,
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

async fn replica(namespace: String, args: RunArgs, began: Instant) -> Result<(), Failure> {
    let metrics = Arc::new(Metrics::default());
    let client = client::for_reading(metrics.api_requests.clone()).await?;
    let writing = client::for_writing(metrics.api_requests.clone()).await?;
    let (stop, stopping) = watch::channel(false);
    let (serving_set, serving) = watch::channel(false);
    let fence = Fence::default();
    let index = Index::new(&namespace);
    let ctx = Context {
        writer: Writer::new(writing.clone(), fence.clone()),
        client,
        index: index.clone(),
        publisher: Publisher::default(),
        outside: Arc::new(Network),
        namespace: namespace.as_str().into(),
        pod: args.pod_name.as_str().into(),
        proxy_image: args.proxy_image.as_str().into(),
        smi_metrics: args.smi_metrics,
        metrics,
        contact: Contact::default(),
    };

    let mut work = tokio::spawn(run::replica(ctx.clone(), fence, stopping, run::LINGERING));
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

    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut work => return ended?.map_err(Failure::from),
    }
    tracing::info!("told to end");
    stop.send_replace(true);
    let _ = tokio::time::timeout(run::LONGEST_END, work).await;
    Ok(())
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
