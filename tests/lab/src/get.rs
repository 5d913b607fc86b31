//! Asks a URL a number of times and prints each answer as a line of JSON.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::http::body::Bulk;
use crate::http::{Answer, Connection, Shape, Target, Upload};
use crate::resolve::Resolver;
use crate::{Failure, raw};

#[derive(clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Args {
    /// `http://host[:port][/path]`
    url: String,
    /// How many times.
    #[arg(short = 'n', long, default_value_t = 1)]
    count: u32,
    #[arg(long, default_value = "GET")]
    method: Method,
    /// A header, `name: value`; may be given again.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Speak HTTP/1.0.
    #[arg(long)]
    http10: bool,
    /// Send no Host header.
    #[arg(long, conflicts_with_all = ["host", "h2c"])]
    no_host: bool,
    /// Another Host header than the URL's.
    #[arg(long)]
    host: Option<String>,
    /// Speak HTTP/2 without TLS, by prior knowledge.
    #[arg(long, conflicts_with = "http10")]
    h2c: bool,
    /// A connection for each request.
    #[arg(long)]
    new_connection: bool,
    /// Milliseconds an answer may take, the name's resolution included.
    #[arg(long, default_value_t = 5000)]
    timeout: u64,
    #[command(flatten)]
    upload: UploadArgs,
    /// Bytes of the answer's body to read in a second.
    #[arg(long)]
    read_rate: Option<u64>,
    #[command(flatten)]
    raw: raw::RawArgs,
}

/// The request's body.
#[derive(clap::Args)]
struct UploadArgs {
    /// Send a body of so many bytes.
    #[arg(long, value_name = "BYTES")]
    body: Option<u64>,
    /// Bytes of the body to send in a second.
    #[arg(long, requires = "body")]
    rate: Option<u64>,
    /// Do not tell the body's length beforehand.
    #[arg(long, requires = "body")]
    chunked: bool,
    /// Ask for leave before the body is sent, and wait a second for it.
    #[arg(long, requires = "body", conflicts_with_all = ["h2c", "http10"])]
    expect_continue: bool,
    /// A trailer, `name: value`; may be given again.
    #[arg(long = "trailer", value_name = "NAME: VALUE", value_parser = parse_header, requires = "chunked")]
    trailers: Vec<(HeaderName, HeaderValue)>,
}

impl UploadArgs {
    fn upload(&self) -> Option<Upload> {
        let trailers = (!self.trailers.is_empty()).then(|| HeaderMap::from_iter(self.trailers.clone()));
        Some(Upload {
            bulk: Bulk { size: self.body?, rate: self.rate, trailers, cut: None },
            chunked: self.chunked,
            expect_continue: self.expect_continue.then_some(Duration::from_secs(1)),
        })
    }
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    let (name, value) = text.split_once(':').ok_or("a header is `name: value`")?;
    Ok((name.parse()?, HeaderValue::from_str(value.trim())?))
}

/// Asks; answers of any status and failures alike are printed, and no reason to fail.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let target = Target::parse(&args.url)?;
    let resolver = Resolver::of_pod()?;
    let patience = Duration::from_millis(args.timeout);
    if let Some(bytes) = args.raw.bytes().await? {
        for _ in 0..args.count {
            println!("{}", raw::exchange(&resolver, &target, &bytes, &args.raw, patience).await);
        }
        return Ok(());
    }
    let shape = Shape {
        method: args.method.clone(),
        host: if args.no_host { None } else { Some(args.host.clone().unwrap_or_else(|| target.authority())) },
        http10: args.http10,
        h2c: args.h2c,
        headers: args.headers.clone(),
        upload: args.upload.upload(),
        read_rate: args.read_rate,
        ..Shape::get(&target)
    };
    let mut kept = None;
    for _ in 0..args.count {
        let began = Instant::now();
        let asked = ask(&resolver, &target, &shape, kept.take(), patience);
        let mut line = match tokio::time::timeout(patience, asked).await {
            Ok(Ok((connection, answer))) => {
                // Without leave the body may still be on its way.
                let complete = !args.upload.expect_continue || answer.informational.contains(&100);
                kept = Some(connection).filter(|_| complete && !args.new_connection);
                describe(&answer)
            }
            Ok(Err(error)) => json!({ "error": error.to_string() }),
            Err(_) => json!({ "error": format!("no answer within {} ms", args.timeout) }),
        };
        line["ms"] = json!(began.elapsed().as_secs_f64() * 1000.0);
        println!("{line}");
    }
    Ok(())
}

async fn ask(
    resolver: &Resolver,
    target: &Target,
    shape: &Shape,
    kept: Option<Connection>,
    patience: Duration,
) -> Result<(Connection, Answer), Failure> {
    let open = match kept {
        Some(connection) => connection.if_usable().await,
        None => None,
    };
    let mut connection = if let Some(connection) = open {
        connection
    } else {
        let address = resolver.address(&target.host).await?;
        Connection::open(address, target.port, shape.h2c, patience).await?
    };
    let answer = connection.ask(shape).await?;
    Ok((connection, answer))
}

fn describe(answer: &Answer) -> Value {
    let body = &answer.body;
    let text = || std::str::from_utf8(&body.kept).map_or(Value::Null, |text| json!(text));
    json!({
        "status": answer.status.as_u16(),
        "version": format!("{:?}", answer.version),
        "headers": texts(&answer.headers),
        "informational": answer.informational,
        // Bulk is neither JSON nor text and told by its length and digest alone.
        "body": serde_json::from_slice::<Value>(&body.kept).unwrap_or_else(|_| text()),
        "bytes": body.bytes,
        "digest": body.digest,
        "trailers": texts(&body.trailers),
        "error": body.broken,
    })
}

/// Headers by name; values of one name joined by ", ".
pub(crate) fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        texts
            .entry(name.to_string())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_name_and_value() {
        let (name, value) = parse_header("X-Forwarded-For: 1.2.3.4").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-forwarded-for", &b"1.2.3.4"[..]));
        assert_eq!(parse_header("x_real_ip:::1").unwrap().1, "::1");
        assert!(parse_header("nothing").is_err());
        assert!(parse_header("bad name: x").is_err());
    }
}
