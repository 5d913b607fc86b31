//! A WebSocket client: sends messages of given sizes, and tells what came back.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::bulk::whole;
use crate::get::texts;
use crate::http::{Target, connection::dial};
use crate::resolve::Resolver;
use crate::stop::Until;
use crate::{Failure, http::explain};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// `ws://host[:port]/ws`
    url: String,
    /// How many rounds of messages.
    #[arg(short = 'n', long, default_value_t = 1)]
    count: u32,
    /// Sizes of the messages of a round, each once as text and once as binary.
    #[arg(long, value_delimiter = ',', default_value = "5")]
    sizes: Vec<u64>,
    /// Send a ping in each round as well.
    #[arg(long)]
    ping: bool,
    /// After the rounds keep the WebSocket open until told to end, then go through them once more.
    #[arg(long)]
    hold: bool,
    /// Milliseconds that connecting and each echo may take.
    #[arg(long, default_value_t = 5000)]
    timeout: u64,
}

type Socket = WebSocketStream<TcpStream>;

/// Prints one report.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let target = Target::parse(&args.url)?;
    let address = Resolver::of_pod()?.address(&target.host).await?;
    println!("{}", report(&args, &target, address).await?);
    Ok(())
}

async fn report(args: &Args, target: &Target, address: IpAddr) -> Result<Value, Failure> {
    let patience = Duration::from_millis(args.timeout);
    let stream = dial(address, target.port, patience).await?;
    let request = format!("ws://{}{}", target.authority(), target.path).into_client_request()?;
    let opened = tokio::time::timeout(patience, tokio_tungstenite::client_async(request, stream)).await;
    Ok(match opened {
        Ok(Ok((socket, response))) => {
            let mut report = talk(socket, args, patience).await;
            report["status"] = json!(response.status().as_u16());
            report["headers"] = json!(texts(response.headers()));
            report
        }
        Ok(Err(Error::Http(response))) => json!({
            "status": response.status().as_u16(),
            "headers": texts(response.headers()),
            "error": String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()),
        }),
        Ok(Err(error)) => json!({ "error": explain("handshake", &error).to_string() }),
        Err(_) => json!({ "error": format!("no handshake within {} ms", args.timeout) }),
    })
}

async fn talk(mut socket: Socket, args: &Args, patience: Duration) -> Value {
    let (mut echoes, mut pongs) = (Vec::new(), 0);
    let talked = async {
        for _ in 0..args.count {
            round(&mut socket, args, patience, &mut echoes, &mut pongs).await?;
        }
        if args.hold {
            eprintln!("holding");
            Until::TOLD.wait().await?;
            round(&mut socket, args, patience, &mut echoes, &mut pongs).await?;
        }
        Ok::<_, Failure>(())
    }
    .await;
    let close = match &talked {
        Ok(()) => close(&mut socket, patience).await,
        Err(_) => Value::Null,
    };
    json!({
        "echoes": echoes,
        "pongs": pongs,
        // The code the server closed with, whoever began.
        "close": close,
        "error": talked.err().map(|error| error.to_string()),
    })
}

async fn round(
    socket: &mut Socket,
    args: &Args,
    patience: Duration,
    echoes: &mut Vec<Value>,
    pongs: &mut u32,
) -> Result<(), Failure> {
    for &size in &args.sizes {
        for binary in [false, true] {
            let message = if binary {
                Message::binary(whole(usize::try_from(size)?))
            } else {
                Message::text("x".repeat(usize::try_from(size)?))
            };
            let (began, wanted) = (Instant::now(), message.clone());
            socket.send(message).await?;
            let echo = next(socket, patience).await?;
            echoes.push(json!({
                "binary": binary,
                "size": size,
                "intact": echo == wanted,
                "ms": began.elapsed().as_secs_f64() * 1000.0,
            }));
        }
    }
    if args.ping {
        let payload = b"are you there".as_slice();
        socket.send(Message::Ping(payload.into())).await?;
        match next(socket, patience).await? {
            Message::Pong(echo) if *echo == *payload => *pongs += 1,
            other => return Err(format!("not a pong but {other:?}").into()),
        }
    }
    Ok(())
}

async fn next(socket: &mut Socket, patience: Duration) -> Result<Message, Failure> {
    match tokio::time::timeout(patience, socket.next()).await {
        Ok(Some(message)) => Ok(message?),
        Ok(None) => Err("the WebSocket ended".into()),
        Err(_) => Err(format!("nothing within {} ms", patience.as_millis()).into()),
    }
}

/// Closes and tells the code the server answered with.
async fn close(socket: &mut Socket, patience: Duration) -> Value {
    let farewell = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    // The server may have closed before us: its code is still to be read then.
    let _ = socket.close(Some(farewell)).await;
    loop {
        match next(socket, patience).await {
            Ok(Message::Close(frame)) => return json!(frame.map(|frame| u16::from(frame.code))),
            Ok(_) => (),
            Err(error) => return json!(error.to_string()),
        }
    }
}

#[cfg(test)]
pub(crate) async fn against(url: &str, sizes: &[u64]) -> Value {
    let args =
        Args { url: url.to_owned(), count: 2, sizes: sizes.to_vec(), ping: true, hold: false, timeout: 5000 };
    let target = Target::parse(url).unwrap();
    let address = target.host.parse().unwrap();
    report(&args, &target, address).await.unwrap()
}
