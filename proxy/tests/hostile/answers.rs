//! Endpoints whose answers have two readings. One endpoint's bytes must never become the answer to another request.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{send, statuses, support};

/// What nobody asked for.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// An endpoint that answers `/case-N` with the N-th text, and everything else in order, on the same connection.
async fn endpoint(answers: Arc<Vec<String>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&answers)));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, answers: Arc<Vec<String>>) {
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        while let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
            let path = head.split(' ').nth(1).unwrap();
            let case =
                path.strip_prefix("/case-").and_then(|number| answers.get(number.parse::<usize>().ok()?));
            let ordinary = || {
                let body = format!("answer to {path}");
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            };
            let (answer, ends) = match case {
                Some(answer) => (answer.trim_end_matches("END").to_owned(), answer.ends_with("END")),
                None => (ordinary(), false),
            };
            if stream.write_all(answer.as_bytes()).await.is_err() || ends {
                return;
            }
        }
        if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

/// Method and answer; an answer that ends with END closes the connection.
fn cases() -> Vec<(&'static str, String)> {
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunked = format!("{ok}Transfer-Encoding: chunked\r\n");
    let mut cases: Vec<(&str, String)> = vec![
        // More than was announced.
        ("GET", format!("{ok}Content-Length: 5\r\n\r\nhello{POISON}")),
        ("GET", format!("{ok}Content-Length: 0\r\n\r\n{POISON}")),
        ("GET", format!("{chunked}\r\n5\r\nhello\r\n0\r\n\r\n{POISON}")),
        ("GET", format!("{ok}Content-Length: 5\r\n\r\nhello\r\n\r\n")),
        ("HEAD", format!("{ok}Content-Length: {}\r\n\r\n{POISON}", POISON.len())),
        ("HEAD", format!("{chunked}\r\n{:x}\r\n{POISON}\r\n0\r\n\r\n", POISON.len())),
        ("GET", format!("HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{POISON}", POISON.len())),
        ("GET", format!("HTTP/1.1 204 No Content\r\n\r\n{POISON}")),
        ("GET", format!("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{POISON}")),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{POISON}", POISON.len())),
        ("GET", format!("HTTP/1.1 205 Reset Content\r\nContent-Length: {}\r\n\r\n{POISON}", POISON.len())),
        // Less, and then silence for ever or the end.
        ("GET", format!("{ok}Content-Length: 500\r\n\r\nhelloEND")),
        ("GET", format!("{chunked}\r\n5\r\nhello\r\nEND")),
        ("GET", format!("{chunked}\r\n5\r\nhelEND")),
        ("GET", format!("{ok}Content-LeEND")),
        ("GET", "END".to_owned()),
        ("GET", format!("{ok}\r\nuntil the end {POISON}END")),
        ("GET", format!("HTTP/1.0 200 OK\r\n\r\nuntil the end {POISON}END")),
        (
            "GET",
            format!("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello{POISON}"),
        ),
        // Other answers before the answer.
        ("GET", format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{ok}Content-Length: 5\r\n\r\nhello")),
        ("GET", format!("HTTP/1.1 100 Continue\r\n\r\n{ok}Content-Length: 5\r\n\r\nhello{POISON}")),
        (
            "GET",
            format!(
                "{}{ok}Content-Length: 5\r\n\r\nhello",
                "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(10_000)
            ),
        ),
        ("GET", format!("HTTP/1.1 103 Early Hints\r\nContent-Length: {}\r\n\r\n{POISON}", POISON.len())),
        (
            "GET",
            format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n{POISON}"),
        ),
        ("GET", format!("HTTP/1.1 199 What\r\n\r\n{ok}Content-Length: 5\r\n\r\nhello")),
    ];
    // Two framings in one head.
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 500",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: -5",
        "Content-Length: +5",
        "Content-Length: 5x",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\u{b}chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: \0",
        "X Y: z",
        ": z",
        "X",
        "Connection: Content-Length\r\nContent-Length: 5",
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    ] {
        cases.push(("GET", format!("{ok}{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n{POISON}END")));
        cases.push(("GET", format!("{ok}{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n{POISON}")));
    }
    for line in [
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1",
        "HTTP/9.9 200 OK",
        "ICY 200 OK",
        "200 OK",
        "\0",
        "HTTP/1.1 000 x",
        "HTTP/1.1 999 x",
    ] {
        cases.push(("GET", format!("{line}\r\nContent-Length: 5\r\n\r\nhello{POISON}")));
    }
    for chunk in ["z\r\n", "-5\r\n", "fffffffffffffffff\r\n", "5\r\nhelloXX", "5;\nhello\r\n"] {
        cases.push(("GET", format!("{chunked}\r\n{chunk}hello\r\n0\r\n\r\n{POISON}")));
    }
    cases.push(("GET", format!("{ok}X: {}\r\nContent-Length: 5\r\n\r\nhello", "y".repeat(2_000_000))));
    cases.push(("GET", format!("{ok}{}Content-Length: 5\r\n\r\nhello", "X: y\r\n".repeat(10_000))));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_holds_bytes_of_another() {
    let cases = cases();
    let address = endpoint(Arc::new(cases.iter().map(|(_, answer)| answer.clone()).collect())).await;
    let mut proxy = support::Proxy::start();
    let port = proxy.service("cart", &[address]);
    let mut found = Vec::new();
    for (number, (method, answer)) in cases.iter().enumerate() {
        let request = format!("{method} /case-{number} HTTP/1.1\r\nHost: x\r\n\r\n");
        // One after the other on one connection, and then what everybody else gets.
        let after = "GET /after HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let got = send(port, format!("{request}{after}").as_bytes()).await;
        // What is one body to every reader may hold anything.
        let is_body =
            ["until the end", "205 Reset", "\r\n Transfer"].iter().any(|sign| answer.contains(sign));
        let messages = if is_body { got.replacen(POISON, "", 1) } else { got.clone() };
        let mut finals = statuses(&messages);
        finals.retain(|status| *status >= 200);
        let begin: String = answer.chars().take(120).collect();
        let mut note = |what: &str| found.push(format!("{method} {begin:?}: {what}\n  {got:?}"));
        if finals.len() > 2
            || messages.contains("poison")
                && !["101", "103"].iter().any(|early| got.contains(&format!("HTTP/1.1 {early} ")))
        {
            note("what nobody asked for was passed on");
        }
        if finals.len() == 2 && !got.ends_with("answer to /after") {
            note("the second answer is not its own");
        }
        for other in 0..4 {
            let path = format!("/other-{number}-{other}");
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = support::exchange(port, &request).await;
            if !answer.starts_with("HTTP/1.1 200 ") || !answer.ends_with(&format!("\r\n\r\nanswer to {path}"))
            {
                found.push(format!("after {method} {begin:?} somebody else got {answer:?}"));
            }
        }
    }
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}
