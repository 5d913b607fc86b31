//! What only HTTP/2 can say, and what becomes of it on its way to an endpoint that speaks HTTP/1.1; and floods of frames that
//! cost the sender little. Whoever sends them, everybody else is served.

use std::time::Duration;

use super::frames::{
    CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    block, frame, is_success, ordinary,
};
use super::{others_are_served, staged};

type Fields = Vec<(&'static str, &'static str)>;

/// The fields of an ordinary POST, one exchanged or added.
fn with(name: &'static str, value: &'static str) -> Fields {
    let mut fields: Fields =
        vec![(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/decoy")];
    match fields.iter_mut().find(|(there, _)| *there == name) {
        Some(field) => field.1 = value,
        None => fields.push((name, value)),
    }
    fields
}

fn without(name: &str) -> Fields {
    with("x", "y").into_iter().filter(|(there, _)| *there != name).collect()
}

fn twice(name: &'static str, value: &'static str) -> Fields {
    let mut fields = with("x", "y");
    fields.insert(1, (name, value));
    fields
}

/// Fields, and whether the request must fail.
fn cases() -> Vec<(Fields, bool)> {
    let smuggled = "x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    vec![
        // Framing of HTTP/1.1 has no meaning here (RFC 9113, section 8.2.2).
        (with("transfer-encoding", "chunked"), true),
        (with("connection", "close"), true),
        (with("connection", "transfer-encoding"), true),
        (with("keep-alive", "timeout=5"), true),
        (with("proxy-connection", "keep-alive"), true),
        (with("upgrade", "h2c"), true),
        (with("te", "gzip"), true),
        (with("te", "trailers"), false),
        // A length that is not the body's, here of 44 bytes (section 8.1.1).
        (with("content-length", "0"), true),
        (with("content-length", "5"), true),
        (with("content-length", "500"), true),
        (with("content-length", "-1"), true),
        (with("content-length", "+44"), true),
        (with("content-length", "44, 44"), true),
        (with("content-length", "0x2c"), true),
        (with("content-length", "44"), false),
        (twice("content-length", "44"), true),
        // Bytes that end a line elsewhere (section 8.2.1).
        (with("x-a", smuggled), true),
        (with("x-a", "b\r\ntransfer-encoding: chunked"), true),
        (with("x-a", "b\ntransfer-encoding: chunked"), true),
        (with("x-a", "b\rc"), true),
        (with("x-a", "b\0c"), true),
        (with("x-a\r\ntransfer-encoding: chunked\r\nx-b", "c"), true),
        (with("x-a: b\r\ntransfer-encoding", "chunked"), true),
        (with("transfer-encoding ", "chunked"), true),
        (with("x a", "b"), true),
        (with("x:a", "b"), true),
        (with("X-A", "b"), true),
        (with("", "b"), true),
        (with(":path", smuggled), true),
        (with(":path", "/ HTTP/1.1\r\nHost: x\r\n\r\nGET /smuggled"), true),
        (with(":path", "/decoy HTTP/1.1"), true),
        (with(":path", "/de\0coy"), true),
        (with(":path", ""), true),
        (with(":path", "decoy"), true),
        (with(":path", "x@y/smuggled"), true),
        (with(":method", "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\nPOST"), true),
        (with(":method", "GET /smuggled"), true),
        (with(":method", "GE T"), true),
        (with(":method", ""), true),
        (with(":method", "CONNECT"), true),
        (with(":authority", "x\r\nTransfer-Encoding: chunked"), true),
        (with(":authority", "x y"), true),
        (with(":authority", "x/smuggled"), true),
        (with(":scheme", "http://x/smuggled?"), true),
        // Pseudo-header fields where none may be (section 8.3).
        (without(":method"), true),
        (without(":path"), true),
        (without(":scheme"), true),
        (twice(":path", "/smuggled"), true),
        (twice(":method", "GET"), true),
        (twice(":authority", "y"), true),
        (with(":status", "200"), true),
        (with(":smuggled", "1"), true),
        (with("x", "y").into_iter().rev().collect(), true),
        (with("host", "other"), true),
        (twice("host", "other"), true),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_it_is_a_second_request_behind_the_proxy() {
    let (_proxy, strict, port) = staged().await;
    let body = b"GET /smuggled HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\n123";
    assert_eq!(body.len(), 44);
    let mut found = Vec::new();
    for (fields, must_fail) in cases() {
        strict.take();
        let mut client = Client::connect(port).await;
        client.send(&frame(HEADERS, END_HEADERS, 1, &block(&fields))).await;
        client.send(&frame(DATA, END_STREAM, 1, body)).await;
        let frames = client.rest().await;
        let seen = strict.take();
        let mut note = |what: &str| found.push(format!("{fields:?}: {what}\n  {frames:?}\n  {seen:?}"));
        if !seen.violations.is_empty() {
            note("the endpoint was sent what has two readings");
        }
        if seen.requests.iter().any(|line| line.contains("smuggled")) {
            note("the hidden request was served");
        }
        if must_fail == is_success(&frames, 1) {
            note(if must_fail { "it was served" } else { "it was not served" });
        }
        others_are_served(port).await;
    }
    assert!(found.is_empty(), "{} cases:\n{}", found.len(), found.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_say_nothing_that_frames() {
    let (_proxy, strict, port) = staged().await;
    for trailers in
        [("transfer-encoding", "chunked"), ("content-length", "0"), (":path", "/smuggled"), ("x", "a\r\nb")]
    {
        strict.take();
        let mut client = Client::connect(port).await;
        client.send(&frame(HEADERS, END_HEADERS, 1, &block(&with("x", "y")))).await;
        client.send(&frame(DATA, 0, 1, b"hello")).await;
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[trailers]))).await;
        client.rest().await;
        let seen = strict.take();
        assert!(seen.violations.is_empty(), "{trailers:?}: {seen:?}");
        assert!(!seen.requests.iter().any(|line| line.contains("smuggled")), "{trailers:?}: {seen:?}");
        others_are_served(port).await;
    }
}

/// Sends `flood` again and again while others ask; says how many times it could.
async fn while_others_are_served(port: u16, times: u32, flood: impl Fn(u32) -> Vec<u8>) -> u32 {
    let mut attacker = Client::connect(port).await;
    let mut other = Client::connect(port).await;
    let mut sent = 0;
    for round in 0..times {
        if !attacker.send(&flood(round)).await {
            break;
        }
        sent += 1;
        if round % (times / 10) == 0 {
            let stream = round / (times / 10) * 2 + 1;
            assert!(other.is_served(stream, &format!("/other-{stream}")).await, "another connection suffers");
            others_are_served(port).await;
        }
    }
    others_are_served(port).await;
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_at_once() {
    let (_proxy, strict, port) = staged().await;
    let sent = while_others_are_served(port, 2000, |round| {
        (0..10)
            .flat_map(|number| {
                let stream = (round * 10 + number) * 2 + 1;
                let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&ordinary("/reset")));
                bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                bytes
            })
            .collect()
    })
    .await;
    println!(
        "{sent} of 2000 bursts were taken, {} requests reached the endpoint",
        strict.take().requests.len()
    );
    assert!(sent < 2000, "20,000 streams were opened and reset on one connection, and it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends() {
    let (_proxy, _strict, port) = staged().await;
    for payload in [Vec::new(), block(&[("x-a", &"b".repeat(8000))])] {
        let mut attacker = Client::connect(port).await;
        attacker.send(&frame(HEADERS, 0, 1, &block(&ordinary("/endless")))).await;
        let mut taken = 0_usize;
        while taken < 64 << 20 && attacker.send(&frame(CONTINUATION, 0, 1, &payload)).await {
            taken += payload.len() + 9;
            if taken % (8 << 20) < payload.len() + 9 {
                others_are_served(port).await;
            }
        }
        assert!(taken < 64 << 20, "64 MiB of CONTINUATION with {} bytes each were taken", payload.len());
        others_are_served(port).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_stands_still() {
    let (_proxy, _strict, port) = staged().await;
    let mut attacker = Client::connect(port).await;
    attacker.send(&frame(HEADERS, 0, 1, &block(&ordinary("/slow")))).await;
    others_are_served(port).await;
    let mut silent = Client::connect(port).await;
    let mut half = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut half, b"PRI * HT").await.unwrap();
    others_are_served(port).await;
    assert!(silent.is_served(1, "/at-last").await, "a quiet connection is not held against its owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_small_frames() {
    let (_proxy, _strict, port) = staged().await;
    let setting = [0, 4, 0, 1, 0, 0];
    let floods: [(&str, Vec<u8>); 6] = [
        ("SETTINGS", frame(SETTINGS, 0, 0, &setting)),
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0])),
        ("an unknown type", frame(0xfe, 0, 0, &[0; 8])),
        ("empty DATA", frame(DATA, 0, 1, &[])),
        ("RST_STREAM of no stream", frame(RST_STREAM, 0, 99_999, &8_u32.to_be_bytes())),
    ];
    for (name, one) in floods {
        let first = frame(HEADERS, END_HEADERS, 1, &block(&with("x", "y")));
        let many = one.repeat(100);
        let sent = while_others_are_served(port, 1000, |round| {
            if round == 0 { [&first[..], &many].concat() } else { many.clone() }
        })
        .await;
        println!("{name}: {sent} of 1000 hundreds were taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read() {
    let (_proxy, _strict, port) = staged().await;
    let mut attacker = Client::connect(port).await;
    for number in 0..5000_u32 {
        let request = frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, &block(&ordinary("/unread")));
        if !attacker.send(&request).await {
            break;
        }
    }
    others_are_served(port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_rules_end_their_own_connection() {
    let (_proxy, _strict, port) = staged().await;
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&ordinary("/decoy")));
    let broken: [(&str, Vec<u8>); 8] = [
        ("a frame of 16 MiB", [&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1][..], &vec![0; 70_000]].concat()),
        ("DATA on stream 0", frame(DATA, 0, 0, b"x")),
        ("HEADERS on stream 0", frame(HEADERS, END_HEADERS, 0, &block(&ordinary("/")))),
        ("an even stream", frame(HEADERS, END_HEADERS, 2, &block(&ordinary("/")))),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &[])),
        ("a header block of nonsense", frame(HEADERS, END_HEADERS, 1, &[0xff; 64])),
        ("SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        (
            "another stream within a head",
            [frame(HEADERS, 0, 1, &block(&ordinary("/"))), frame(DATA, 0, 3, b"x")].concat(),
        ),
    ];
    for (name, bytes) in broken {
        let mut other = Client::connect(port).await;
        other.send(&request).await;
        let mut client = Client::connect(port).await;
        client.send(&bytes).await;
        assert!(client.is_ended().await, "{name}: the connection goes on");
        assert!(other.is_served(3, "/after").await, "{name}: another connection suffers");
    }
    tokio::time::timeout(Duration::from_secs(5), others_are_served(port)).await.unwrap();
}
