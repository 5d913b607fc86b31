//! The gRPC client: makes calls and prints a line of JSON for each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::stream;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use super::MESSAGE_LIMIT;
use super::v1::echo_client::EchoClient;
use super::v1::{Failing, Reply, Say};
use crate::bulk::{Digest, whole};
use crate::get::texts;
use crate::http::{Target, connection::dial};
use crate::resolve::Resolver;
use crate::stop::Until;
use crate::{Failure, http::explain};

#[derive(clap::Args, Clone)]
pub(crate) struct Args {
    /// `http://host[:port]`
    #[arg(long)]
    url: String,
    #[arg(long, value_enum, default_value_t = Mode::Unary)]
    mode: Mode,
    /// How many calls, one after the other.
    #[arg(short = 'n', long, default_value_t = 1)]
    count: u32,
    /// Messages of a stream.
    #[arg(long, default_value_t = 3)]
    messages: u32,
    /// Bytes of each message's payload.
    #[arg(long, default_value_t = 10)]
    size: usize,
    /// Milliseconds the server takes for each reply.
    #[arg(long, default_value_t = 0)]
    pub(super) pause_ms: u32,
    /// A channel for each call.
    #[arg(long)]
    new_connection: bool,
    /// With `--mode bidi`: after half of the messages wait to be told on standard input.
    #[arg(long)]
    hold: bool,
    /// With `--mode fail`: the status code.
    #[arg(long, default_value_t = 13)]
    pub(super) code: u32,
    /// With `--mode fail`: the message.
    #[arg(long, default_value = "as asked")]
    message: String,
    /// With `--mode fail`: trailing metadata, `name=value`; may be given again.
    #[arg(long = "trailer", value_name = "NAME=VALUE", value_parser = parse_pair)]
    trailers: Vec<(String, String)>,
    /// Metadata, `name=value`; may be given again.
    #[arg(long = "metadata", value_name = "NAME=VALUE", value_parser = parse_pair)]
    metadata: Vec<(String, String)>,
    /// Milliseconds a call may take; the server is told as well.
    #[arg(long, default_value_t = 5000)]
    pub(super) timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Mode {
    Unary,
    /// Server streaming.
    Server,
    /// Client streaming.
    Client,
    /// Bidirectional streaming.
    Bidi,
    /// A call that fails as asked.
    Fail,
}

fn parse_pair(text: &str) -> Result<(String, String), Failure> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is wanted")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What came of a call.
#[derive(Default)]
struct Outcome {
    headers: MetadataMap,
    replies: Vec<Reply>,
    trailers: MetadataMap,
}

/// Calls; failures are printed, and no reason to fail.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut kept = None;
    for _ in 0..args.count {
        let began = Instant::now();
        let mut line = match open(&args, kept.take()).await {
            Ok(client) => {
                let line = call(&args, client.clone()).await;
                kept = Some(client).filter(|_| !args.new_connection);
                line
            }
            Err(error) => json!({ "error": error.to_string() }),
        };
        line["ms"] = json!(began.elapsed().as_secs_f64() * 1000.0);
        println!("{line}");
    }
    Ok(())
}

async fn open(args: &Args, kept: Option<EchoClient<Channel>>) -> Result<EchoClient<Channel>, Failure> {
    if let Some(client) = kept {
        return Ok(client);
    }
    let (target, patience) = (Target::parse(&args.url)?, Duration::from_millis(args.timeout));
    let resolver = Resolver::of_pod()?;
    let endpoint = Endpoint::from_shared(args.url.clone())?.connect_timeout(patience);
    // The name is asked for by the pod's own resolver, without retries, and anew for each connection.
    let connector = tower::service_fn(move |_| {
        let (target, resolver) = (target.clone(), resolver.clone());
        async move {
            let address = resolver.address(&target.host).await?;
            Ok::<_, Failure>(TokioIo::new(dial(address, target.port, patience).await?))
        }
    });
    let channel =
        endpoint.connect_with_connector(connector).await.map_err(|error| explain("channel", &error))?;
    Ok(EchoClient::new(channel)
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT))
}

/// Makes one call and describes it.
async fn call(args: &Args, client: EchoClient<Channel>) -> Value {
    let mut outcome = Outcome::default();
    let patience = Duration::from_millis(args.timeout);
    // Over which a channel knows no deadline of its own: that of a stream's messages.
    let made = tokio::time::timeout(patience, make(args, client, &mut outcome)).await;
    let status = match made {
        Ok(Ok(())) => Status::ok(""),
        Ok(Err(status)) => status,
        Err(_) => Status::deadline_exceeded(format!("not done within {} ms, by the client", args.timeout)),
    };
    describe(&outcome, &status)
}

async fn make(args: &Args, mut client: EchoClient<Channel>, outcome: &mut Outcome) -> Result<(), Status> {
    let say = |number: u32| Say {
        text: format!("message {number}"),
        payload: whole(args.size),
        replies: args.messages,
        pause_ms: args.pause_ms,
    };
    let (half, hold) = (args.messages / 2, args.hold);
    let first: Vec<_> = (1..=half).map(say).collect();
    let second: Vec<_> = (half + 1..=args.messages).map(say).collect();
    match args.mode {
        Mode::Unary => outcome.one(client.unary(request(args, say(1))?).await?),
        Mode::Server => return outcome.all(client.server_stream(request(args, say(1))?).await?).await,
        Mode::Client => {
            let all = stream::iter(first.into_iter().chain(second));
            outcome.one(client.client_stream(request(args, all)?).await?);
        }
        Mode::Bidi => {
            let held = stream::once(async move {
                if hold {
                    eprintln!("holding");
                    // Whatever ends the wait, the call goes on.
                    let _ = Until::TOLD.wait().await;
                }
                stream::iter(second)
            });
            let all = futures::StreamExt::chain(stream::iter(first), futures::StreamExt::flatten(held));
            return outcome.all(client.bidirectional_stream(request(args, all)?).await?).await;
        }
        Mode::Fail => {
            let failing = Failing {
                code: args.code,
                message: args.message.clone(),
                trailers: args.trailers.iter().cloned().collect(),
            };
            outcome.one(client.fail(request(args, failing)?).await?);
        }
    }
    Ok(())
}

fn request<T>(args: &Args, message: T) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_millis(args.timeout));
    for (name, value) in &args.metadata {
        let bad = |what: &str| Status::invalid_argument(format!("{what} of the metadata {name}={value}"));
        let key: tonic::metadata::AsciiMetadataKey = name.parse().map_err(|_| bad("name"))?;
        request.metadata_mut().append(key, value.parse().map_err(|_| bad("value"))?);
    }
    Ok(request)
}

impl Outcome {
    fn one(&mut self, response: Response<Reply>) {
        let (metadata, reply, _) = response.into_parts();
        self.headers = metadata;
        self.replies.push(reply);
    }

    async fn all(&mut self, response: Response<Streaming<Reply>>) -> Result<(), Status> {
        let (metadata, mut replies, _) = response.into_parts();
        self.headers = metadata;
        while let Some(reply) = replies.message().await? {
            self.replies.push(reply);
        }
        self.trailers = replies.trailers().await?.unwrap_or_default();
        Ok(())
    }
}

fn describe(outcome: &Outcome, status: &Status) -> Value {
    let mut by = BTreeMap::<&str, u64>::new();
    for reply in &outcome.replies {
        *by.entry(&reply.pod).or_default() += 1;
    }
    let replies = outcome.replies.iter().map(|reply| {
        let mut digest = Digest::new();
        digest.update(&reply.payload);
        json!({
            "number": reply.number,
            "text": reply.text,
            "bytes": digest.bytes(),
            "intact": digest.hex() == Digest::of_pattern(digest.bytes()),
            "received_messages": reply.received_messages,
            "received_bytes": reply.received_bytes,
        })
    });
    let first = outcome.replies.first();
    // A failure's trailing metadata is in its status.
    let trailers = if status.code() == tonic::Code::Ok { &outcome.trailers } else { status.metadata() };
    json!({
        "status": status.code() as i32,
        "code": format!("{:?}", status.code()),
        "message": status.message(),
        "app": first.map(|reply| &reply.app),
        "pod": first.map(|reply| &reply.pod),
        "by": by,
        "replies": replies.collect::<Vec<_>>(),
        "received_metadata": first.map(|reply| &reply.metadata),
        "headers": texts(&outcome.headers.clone().into_headers()),
        "trailers": texts(&trailers.clone().into_headers()),
    })
}

#[cfg(test)]
pub(super) async fn one_call(url: &str, mode: Mode, change: impl FnOnce(&mut Args)) -> Value {
    let mut args = Args {
        url: url.to_owned(),
        mode,
        count: 1,
        messages: 4,
        size: 100_000,
        pause_ms: 0,
        new_connection: false,
        hold: false,
        code: 13,
        message: "as asked".to_owned(),
        trailers: vec![("x-why".to_owned(), "a test".to_owned())],
        metadata: vec![("x-who".to_owned(), "me".to_owned())],
        timeout: 5000,
    };
    change(&mut args);
    match open(&args, None).await {
        Ok(client) => call(&args, client).await,
        Err(error) => json!({ "error": error.to_string() }),
    }
}
