//! The gRPC server. It ends at once on SIGTERM.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tonic::metadata::{KeyAndValueRef, MetadataKey, MetadataMap};
use tonic::{Code, Request, Response, Status, Streaming};

use super::MESSAGE_LIMIT;
use super::v1::echo_server::{Echo, EchoServer};
use super::v1::{Failing, Reply, Say};
use crate::identity::Identity;
use crate::serve::listen;
use crate::{Failure, stop};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Ports to listen on.
    #[arg(long, value_delimiter = ',', default_value = "50051")]
    port: Vec<u16>,
    #[command(flatten)]
    identity: Identity,
}

/// Serves until SIGTERM.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let identity = Arc::new(args.identity.clone());
    for &port in &args.port {
        tokio::spawn(accept(listen(port).await?, Arc::clone(&identity)));
    }
    eprintln!("weft-lab: {} speaks gRPC on {:?}", identity.app, args.port);
    stop::terminated().await?;
    std::process::exit(0)
}

pub(super) async fn accept(listener: TcpListener, identity: Arc<Identity>) {
    let echo = EchoServer::new(Server(identity))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(echo.clone());
        tokio::spawn(async move {
            // A client that goes away is its own affair.
            let _ = auto::Builder::new(TokioExecutor::new())
                .http2_only()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

struct Server(Arc<Identity>);

/// What was received in a call so far.
#[derive(Default, Clone, Copy)]
struct Received {
    messages: u32,
    bytes: u64,
}

impl Received {
    fn add(&mut self, say: &Say) {
        self.messages += 1;
        self.bytes += say.payload.len() as u64;
    }
}

/// Makes the replies of one call.
#[derive(Clone)]
struct Replies {
    who: Arc<Identity>,
    metadata: HashMap<String, String>,
}

impl Replies {
    fn reply(&self, number: u32, say: Say, received: Received) -> Reply {
        Reply {
            app: self.who.app.clone(),
            pod: self.who.pod.clone(),
            node: self.who.node.clone(),
            number,
            text: say.text,
            payload: say.payload,
            received_messages: received.messages,
            received_bytes: received.bytes,
            metadata: self.metadata.clone(),
        }
    }

    /// The end of a stream that went well. Only a status can carry trailing metadata, so it ends with one that is no error.
    fn end(&self, replies: u32) -> Status {
        let mut trailers = MetadataMap::new();
        trailers.insert("x-lab-replies", replies.into());
        if let Ok(name) = self.who.name().parse() {
            trailers.insert("x-lab-pod", name);
        }
        Status::with_metadata(Code::Ok, "", trailers)
    }
}

impl Server {
    fn replies<T>(&self, request: &Request<T>) -> Replies {
        let text = |pair| match pair {
            KeyAndValueRef::Ascii(key, value) => {
                (key.to_string(), value.to_str().unwrap_or_default().to_owned())
            }
            KeyAndValueRef::Binary(key, _) => (key.to_string(), String::new()),
        };
        Replies { who: Arc::clone(&self.0), metadata: request.metadata().iter().map(text).collect() }
    }
}

type ReplyStream = Pin<Box<dyn Stream<Item = Result<Reply, Status>> + Send>>;

async fn pause(say: &Say) {
    tokio::time::sleep(Duration::from_millis(say.pause_ms.into())).await;
}

#[tonic::async_trait]
impl Echo for Server {
    async fn unary(&self, request: Request<Say>) -> Result<Response<Reply>, Status> {
        let replies = self.replies(&request);
        let say = request.into_inner();
        pause(&say).await;
        let mut received = Received::default();
        received.add(&say);
        Ok(Response::new(replies.reply(1, say, received)))
    }

    type ServerStreamStream = ReplyStream;

    async fn server_stream(&self, request: Request<Say>) -> Result<Response<ReplyStream>, Status> {
        let replies = self.replies(&request);
        let say = request.into_inner();
        let (count, end) = (say.replies, replies.end(say.replies));
        let mut received = Received::default();
        received.add(&say);
        let all = stream::iter(1..=count).then(move |number| {
            let (replies, say) = (replies.clone(), say.clone());
            async move {
                pause(&say).await;
                Ok(replies.reply(number, say, received))
            }
        });
        Ok(Response::new(Box::pin(all.chain(stream::iter([Err(end)])))))
    }

    async fn client_stream(&self, request: Request<Streaming<Say>>) -> Result<Response<Reply>, Status> {
        let replies = self.replies(&request);
        let (mut said, mut received, mut last) = (request.into_inner(), Received::default(), Say::default());
        while let Some(say) = said.message().await? {
            received.add(&say);
            last = say;
        }
        pause(&last).await;
        Ok(Response::new(replies.reply(1, last, received)))
    }

    type BidirectionalStreamStream = ReplyStream;

    async fn bidirectional_stream(
        &self,
        request: Request<Streaming<Say>>,
    ) -> Result<Response<ReplyStream>, Status> {
        let replies = self.replies(&request);
        let first = Some((request.into_inner(), Received::default()));
        let all = stream::unfold(first, move |state| {
            let replies = replies.clone();
            async move {
                let (mut said, mut received) = state?;
                match said.message().await {
                    Ok(Some(say)) => {
                        pause(&say).await;
                        received.add(&say);
                        Some((Ok(replies.reply(received.messages, say, received)), Some((said, received))))
                    }
                    Ok(None) => Some((Err(replies.end(received.messages)), None)),
                    Err(status) => Some((Err(status), None)),
                }
            }
        });
        Ok(Response::new(Box::pin(all)))
    }

    async fn fail(&self, request: Request<Failing>) -> Result<Response<Reply>, Status> {
        let failing = request.into_inner();
        let mut trailers = self.replies(&Request::new(())).end(0).metadata().clone();
        for (key, value) in failing.trailers {
            if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
                trailers.insert(key, value);
            }
        }
        let code = i32::try_from(failing.code).map_or(Code::Unknown, Code::from_i32);
        Err(Status::with_metadata(code, failing.message, trailers))
    }
}
