//! HTTP/1.1 requests with two readings. Each hides a request for `/smuggled` where only one of the readings finds it.

use super::{others_are_served, send, staged, statuses};

/// The request that nobody may serve.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// What may become of a case.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    /// Answered 400 or the like, or the connection is closed; the endpoint is not asked.
    Refused,
    /// The head is fine, the body is not: the endpoint may have been asked, the client hears of no success.
    Broken,
    /// Refused, or served in one reading that the endpoint shares.
    Either,
}
use Fate::{Broken, Either, Refused};

/// Sends each case and looks at what the endpoint understood.
async fn try_all(cases: Vec<(String, String, Fate)>) {
    let (_proxy, strict, port) = staged().await;
    let mut found = Vec::new();
    for (name, bytes, fate) in cases {
        strict.take();
        let answer = send(port, bytes.as_bytes()).await;
        let (seen, statuses) = (strict.take(), statuses(&answer));
        let mut note = |what: &str| {
            found.push(format!("{name}: {what}\n  sent {bytes:?}\n  got {answer:?}\n  {seen:?}"));
        };
        if !seen.violations.is_empty() {
            note("the endpoint was sent what has two readings");
        }
        if seen.requests.iter().any(|line| line.contains("smuggled")) || answer.contains("smuggled") {
            note("the hidden request was served");
        }
        if fate == Refused && !seen.requests.is_empty() {
            note("the endpoint was asked");
        }
        if fate != Either && statuses.iter().any(|status| !(400..600).contains(status)) {
            note("it was not refused");
        }
        others_are_served(port).await;
    }
    assert!(found.is_empty(), "{} cases:\n{}", found.len(), found.join("\n"));
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /decoy HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{body}")
}

/// A body that ends at once for those who go by the chunks; those who go by the length read on.
fn by_length(encoding: &str) -> String {
    let body = format!("0\r\n\r\n{HIDDEN}");
    post(&format!("Content-Length: {}\r\n{encoding}", body.len()), &body)
}

/// A body with the hidden request in a chunk; those who go by the length stop before it.
fn by_chunks(encoding: &str) -> String {
    let size = format!("{:x}\r\n", HIDDEN.len());
    post(&format!("Content-Length: {}\r\n{encoding}", size.len()), &format!("{size}{HIDDEN}\r\n0\r\n\r\n"))
}

/// Spellings that some servers take for `Transfer-Encoding: chunked`, and what must become of them.
const ENCODINGS: [(&str, Fate); 44] = [
    ("Transfer-Encoding: chunked", Either),
    ("Transfer-encoding: chunked", Either),
    ("TRANSFER-ENCODING: CHUNKED", Either),
    ("Transfer-Encoding:chunked", Either),
    ("Transfer-Encoding:\tchunked", Either),
    ("Transfer-Encoding:  \t chunked", Either),
    ("Transfer-Encoding: chunked \t", Either),
    ("Transfer-Encoding: Chunked", Either),
    ("Transfer-Encoding: identity, chunked", Either),
    ("Transfer-Encoding: gzip, chunked", Either),
    ("Transfer-Encoding: , chunked", Either),
    ("Transfer-Encoding: chunked,", Either),
    ("Transfer-Encoding: chunked, chunked", Either),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Either),
    ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", Either),
    ("X: y\nTransfer-Encoding: chunked", Either),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Refused),
    ("Transfer-Encoding: chunked, identity", Refused),
    ("Transfer-Encoding: chunked, gzip", Refused),
    ("Transfer-Encoding: identity", Refused),
    ("Transfer-Encoding: xchunked", Refused),
    ("Transfer-Encoding: chunkedx", Refused),
    ("Transfer-Encoding: chunked;q=1", Refused),
    ("Transfer-Encoding: \"chunked\"", Refused),
    ("Transfer-Encoding: 'chunked'", Refused),
    ("Transfer-Encoding: [chunked]", Refused),
    ("Transfer-Encoding: chunk ed", Refused),
    ("Transfer-Encoding: chunk\u{e9}d", Refused),
    ("Transfer-Encoding: \u{ff43}hunked", Refused),
    ("Transfer-Encoding:", Refused),
    ("Transfer-Encoding: \0chunked", Refused),
    ("Transfer-Encoding: chunked\0", Refused),
    ("Transfer-Encoding: \u{b}chunked", Refused),
    ("Transfer-Encoding: \u{c}chunked", Refused),
    ("Transfer-Encoding: chunked\u{c}", Refused),
    ("Transfer-Encoding : chunked", Refused),
    ("Transfer-Encoding\t: chunked", Refused),
    ("Transfer-Encoding\0: chunked", Refused),
    (" Transfer-Encoding: chunked", Refused),
    ("X: y\r\n Transfer-Encoding: chunked", Refused),
    ("Transfer-Encoding:\r\n chunked", Refused),
    ("Transfer-Encoding:\n chunked", Refused),
    ("X: y\rTransfer-Encoding: chunked", Refused),
    ("Transfer-Encoding", Refused),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_length_against_chunks() {
    let mut cases = Vec::new();
    for (encoding, fate) in ENCODINGS {
        cases.push((format!("CL.TE {encoding:?}"), by_length(encoding), fate));
        cases.push((format!("TE.CL {encoding:?}"), by_chunks(encoding), fate));
        // In the other order.
        let (first, rest) =
            by_length("X: y").split_once("X: y").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let swapped = first.replacen("Content-Length", &format!("{encoding}\r\nContent-Length"), 1);
        cases.push((format!("TE before CL {encoding:?}"), format!("{swapped}X: y{rest}"), fate));
    }
    // Names that are no framing at all: the length holds, and what it covers is no request.
    for name in ["Transfer_Encoding", "X-Transfer-Encoding", "Transfer-Encodin", "TransferEncoding", "TE"] {
        cases.push((format!("CL with {name}"), by_length(&format!("{name}: chunked")), Either));
    }
    // HTTP/1.0 knows no chunks.
    cases.push((
        "HTTP/1.0 CL.TE".into(),
        by_length("Transfer-Encoding: chunked")
            .replace("HTTP/1.1\r\nHost: x\r\nC", "HTTP/1.0\r\nHost: x\r\nC"),
        Refused,
    ));
    try_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_are_none() {
    let values = [
        "-5",
        "+5",
        "0x5",
        "5x",
        "x5",
        "5 5",
        "5,6",
        "5, 6",
        "5;6",
        "5.0",
        "1e1",
        "5_0",
        "\"5\"",
        "",
        " ",
        "\u{665}",
        "\u{b}5",
        "\x005",
        "5\0",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999",
        "4294967301e",
        "NaN",
        "5\u{a0}",
    ];
    let mut cases: Vec<_> = values
        .iter()
        .map(|value| {
            (
                format!("length {value:?}"),
                post(&format!("Content-Length: {value}"), &format!("hello{HIDDEN}")),
                Refused,
            )
        })
        .collect();
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-length: 0",
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Content-Length\0: 5",
        " Content-Length: 5",
        "Content-Length:\r\n 5",
        "X: y\rContent-Length: 5",
    ] {
        cases.push((format!("lengths {lines:?}"), post(lines, &format!("hello{HIDDEN}")), Refused));
    }
    // The same number twice is one number (RFC 9110, section 8.6); leading zeros are decimal.
    for lines in ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5", "Content-Length: 005"] {
        cases.push((format!("lengths {lines:?}"), post(lines, "hello"), Either));
    }
    try_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_where_none_is_expected() {
    let mut cases = Vec::new();
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"] {
        for extra in ["X: y", "Expect: 100-continue", "Connection: close", "Connection: Content-Length"] {
            let head = format!("{method} /decoy HTTP/1.1\r\nHost: x\r\n{extra}\r\n");
            let length = format!("{head}Content-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len());
            let chunked = format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{HIDDEN}\r\n0\r\n\r\n",
                HIDDEN.len()
            );
            cases.push((format!("CL.0 {method} {extra}"), length, Either));
            cases.push((format!("TE.0 {method} {extra}"), chunked.clone(), Either));
            cases.push((
                format!("nominated {method} {extra}"),
                chunked.replace(extra, "Connection: Transfer-Encoding"),
                Either,
            ));
        }
        for upgrade in ["websocket", "h2c", "h2c, websocket", "TLS/1.0", "x"] {
            let head = format!(
                "{method} /decoy HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
            );
            let length = format!("{head}Content-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len());
            cases.push((format!("upgrade to {upgrade} with a body, {method}"), length, Either));
        }
    }
    let lying = format!(
        "POST /decoy HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nExpect: x\r\nContent-Length: {}\r\n\r\n{HIDDEN}",
        HIDDEN.len()
    );
    cases.push(("two expectations".into(), lying, Either));
    try_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_with_two_readings() {
    let size = format!("{:x}", HIDDEN.len());
    let refused = [
        "z\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "5_\r\nhello\r\n",
        "fffffffffffffffff\r\nhello\r\n",
        "10000000000000005\r\nhello\r\n",
        "5\r\nhelloXX",
        "5\r\nhelloX\r\n",
        "4\r\nhello\r\n",
        "\x005\r\nhello\r\n",
        "5\0\r\nhello\r\n",
        "\u{665}\r\nhello\r\n",
        "5,5\r\nhello\r\n",
    ];
    let either = [
        "\r\nhello\r\n",
        ";a\r\nhello\r\n",
        "5;a=b\r\nhello\r\n",
        "5;a=\"b\"\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "5\t;a\r\nhello\r\n",
        " 5\r\nhello\r\n",
        "05\r\nhello\r\n",
        "0000000000000005\r\nhello\r\n",
        "5\nhello\r\n",
        "5\r\nhello\n",
        "5;\nhello\r\n",
        "5;a\rb\r\nhello\r\n",
        "5;\0\r\nhello\r\n",
    ];
    let mut cases = Vec::new();
    for (all, fate) in [(&refused[..], Broken), (&either[..], Either)] {
        for chunk in all {
            let body = format!("{chunk}0\r\n\r\n");
            cases.push((format!("chunk {chunk:?}"), post("Transfer-Encoding: chunked", &body), fate));
        }
    }
    // The end of a chunk's extension, or of a chunk, or of the last one, seen elsewhere.
    for body in [
        format!("2;\nxx\r\n{size}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("5\r\nhello\r\n{size};\n\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("0\nX: {}\r\n\r\n", HIDDEN.replace("\r\n", " ")),
        "0\r\nX: y\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        format!("0\r\nContent-Length: {}\r\n\r\n", HIDDEN.len()),
        "0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        "0\r\nHost: y\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n".to_owned(),
        "0;a=b\r\n\r\n".to_owned(),
        "000\r\n\r\n".to_owned(),
        format!("0\r\n{}\r\n", "X: y\r\n".repeat(2000)),
        format!("0\r\nX: {}\r\n\r\n", "y".repeat(100_000)),
        format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(100_000)),
    ] {
        let name = format!("body {:?}", body.chars().take(60).collect::<String>());
        cases.push((name, post("Transfer-Encoding: chunked", &body), Either));
    }
    try_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_none() {
    let get = |line: &str| format!("{line}\r\nHost: x\r\n\r\n{HIDDEN}");
    let lines = [
        "GET /decoy HTTP/1.1 x",
        "GET /decoy http/1.1",
        "GET /decoy HTTP/9.9",
        "GET /decoy HTTP/2.0",
        "GET /decoy HTTP/1.2.3",
        "GET /decoy HTTP/1,1",
        "GET /decoy HTTP/11",
        "GET /decoy HTTP",
        "GET /decoy HTTPS/1.1",
        "GET /decoy",
        "GET",
        "/decoy HTTP/1.1",
        "G\0ET /decoy HTTP/1.1",
        "GET\0/decoy HTTP/1.1",
        "G(E)T /decoy HTTP/1.1",
        "G:ET /decoy HTTP/1.1",
        "GET /decoy\u{b}HTTP/1.1",
        "GET\u{b}/decoy HTTP/1.1",
        " GET /decoy HTTP/1.1",
        "GET /decoy HTTP/1.1\r",
        "GET http://other/decoy HTTP/1.1",
        "CONNECT x:80 HTTP/1.1",
        "CONNECT /decoy HTTP/1.1",
        "PRI * HTTP/2.0",
        "GET http:// HTTP/1.1",
        "GET decoy HTTP/1.1",
    ];
    let mut cases: Vec<_> = lines.iter().map(|line| (format!("line {line:?}"), get(line), Refused)).collect();
    // What may be forgiven, as long as the endpoint gets one reading: no second request hides behind these.
    for line in [
        "GET  /decoy HTTP/1.1",
        "GET /dec\0oy HTTP/1.1",
        "GET /dec\roy HTTP/1.1",
        "GET /de coy HTTP/1.1",
        "GET /decoy  HTTP/1.1",
        "GET\t/decoy\tHTTP/1.1",
        "GET /decoy HTTP/1.1 ",
        "\r\nGET /decoy HTTP/1.1",
        "GET //decoy/../x HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET * HTTP/1.1",
        "GET http://x/decoy HTTP/1.1",
        "GET ?a HTTP/1.1",
        "GET http://x HTTP/1.1",
        "GET /%0d%0aX:y HTTP/1.1",
    ] {
        cases.push((
            format!("line {line:?}"),
            format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n"),
            Either,
        ));
    }
    try_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_none() {
    let mut cases = Vec::new();
    for headers in [
        "Host: x\r\nHost: y",
        "Host: x\r\nHost: x",
        "Host: x y",
        "Host: x\0",
        "Host: x\r\n y",
        "Host: x/y",
        "Host: x@y",
        "Host : x",
        "Ho st: x",
        "Host: x\r\n: y",
        "Host: x\r\nX",
        "Host: x\r\nX Y: z",
        "Host: x\r\nX\0: z",
        "Host: x\r\nX: \0",
        "Host: x\r\nX: a\rb",
        "Host: x\r\nX(: z",
        "Host: x\r\nX\u{e9}: z",
        "Host: x\r\nX: y\r\n z",
        "Host: x\r\nX: y\r\n\tz",
        "Host: x\r\nX: \u{1}",
        "Host: x\r\nX: \u{7f}",
        "Host: x\r\n\u{feff}X: y",
        "Host: x\r\nX\u{7f}: y",
        "Host: x\r\n\tX: y",
        "X: y",
    ] {
        let request = format!("GET /decoy HTTP/1.1\r\n{headers}\r\n\r\n{HIDDEN}");
        cases.push((format!("headers {headers:?}"), request, Refused));
    }
    for headers in
        ["X: y", "Host:", "Host: [::1]:80", "Host: x:y", "Host: x,y", "Host: x\nX: y", "Host: x\r\nX:\u{e9}"]
    {
        let request = format!("GET /decoy HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
        cases.push((format!("headers {headers:?}"), request, Either));
    }
    let many = "X: y\r\n".repeat(10_000);
    cases.push((
        "ten thousand headers".into(),
        format!("GET /decoy HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        Refused,
    ));
    let long = "y".repeat(2_000_000);
    cases.push((
        "a header of two megabytes".into(),
        format!("GET /decoy HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
        Refused,
    ));
    cases.push((
        "a path of two megabytes".into(),
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        Refused,
    ));
    try_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_is_asked_for_as_a_path() {
    let (_proxy, strict, port) = staged().await;
    let answer =
        send(port, b"GET http://x/absolute?a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(statuses(&answer), [200], "{answer}");
    assert_eq!(strict.take().requests, ["GET /absolute?a HTTP/1.1"]);
}
