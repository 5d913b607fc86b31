//! `/ws`: text and binary are echoed, pings answered, a close is answered with a close.

use futures::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};

use super::answer::text;
use crate::http::body::{self, Body};

pub(super) fn is_asked_for(request: &Request<Incoming>) -> bool {
    let upgrade = request.headers().get(UPGRADE).and_then(|value| value.to_str().ok());
    request.uri().path() == "/ws" && upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// Switches protocols; after `end` messages the server closes of its own accord.
pub(super) fn upgrade(request: &mut Request<Incoming>, end: Option<u64>) -> Response<Body> {
    let (key, version) =
        (request.headers().get(SEC_WEBSOCKET_KEY), request.headers().get(SEC_WEBSOCKET_VERSION));
    let (Some(key), Some(b"13")) = (key, version.map(HeaderValue::as_bytes)) else {
        return text(StatusCode::BAD_REQUEST, "no WebSocket handshake of version 13\n");
    };
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return text(StatusCode::BAD_REQUEST, "no usable key\n");
    };
    let upgrading = hyper::upgrade::on(request);
    tokio::spawn(async move {
        match upgrading.await {
            Ok(stream) => echo(stream, end).await,
            Err(error) => eprintln!("weft-lab: upgrade: {error}"),
        }
    });
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn echo(stream: Upgraded, end: Option<u64>) {
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await;
    let mut echoed = 0;
    // Pings and closes are answered while reading.
    while let Some(Ok(message)) = socket.next().await {
        if !matches!(message, Message::Text(_) | Message::Binary(_)) {
            continue;
        }
        if socket.send(message).await.is_err() {
            return;
        }
        echoed += 1;
        if end == Some(echoed) {
            let farewell = CloseFrame { code: CloseCode::Away, reason: "as asked".into() };
            let _ = socket.close(Some(farewell)).await;
        }
    }
}
