//! Queries names at a fixed rate through the pod's resolver, without retries, and reports every answer that was not the
//! expected one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Failure;
use crate::resolve::Resolver;
use crate::stop::Until;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names, asked in turn; `name=NXDOMAIN` where that is the right answer.
    #[arg(required = true)]
    names: Vec<String>,
    /// Queries a second.
    #[arg(long, default_value_t = 100)]
    qps: u32,
    #[command(flatten)]
    until: Until,
}

#[derive(Clone)]
struct Expected {
    name: String,
    missing: bool,
}

impl Expected {
    fn parse(text: &str) -> Result<Self, Failure> {
        let (name, missing) = match text.split_once('=') {
            None | Some((_, "NOERROR")) => (text.split('=').next().unwrap_or(text), false),
            Some((name, "NXDOMAIN")) => (name, true),
            Some((_, other)) => {
                return Err(format!("{other}: only NOERROR or NXDOMAIN can be expected").into());
            }
        };
        Ok(Self { name: format!("{}.", name.trim_end_matches('.')), missing })
    }

    fn is_met(&self, code: ResponseCode, addresses: usize) -> bool {
        if self.missing {
            code == ResponseCode::NXDomain
        } else {
            code == ResponseCode::NoError && addresses > 0
        }
    }
}

#[derive(Default)]
struct Counts {
    sent: u64,
    failed: u64,
    failures: Vec<Value>,
    names: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Queries until told to end, then prints the counts.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let expected = args.names.iter().map(|name| Expected::parse(name)).collect::<Result<Vec<_>, _>>()?;
    let resolver = Resolver::strict()?;
    let counts = Arc::new(Mutex::new(Counts::default()));
    let mut under_way = JoinSet::new();
    let began = Instant::now();
    let end = args.until.wait();
    tokio::pin!(end);
    for (number, expected) in (0_u32..).zip(expected.iter().cycle()) {
        let at = Duration::from_secs(1) * number / args.qps;
        tokio::select! {
            () = tokio::time::sleep_until(began + at) => (),
            ended = &mut end => { ended?; break },
        }
        let (resolver, expected, counts) = (resolver.clone(), expected.clone(), Arc::clone(&counts));
        under_way.spawn(async move { query(&resolver, &expected, at, &counts).await });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{}",
        json!({ "sent": counts.sent, "failed": counts.failed, "failures": counts.failures, "names": counts.names })
    );
    Ok(())
}

async fn query(resolver: &Resolver, expected: &Expected, at: Duration, counts: &Mutex<Counts>) {
    let (what, met) = match resolver.query(&expected.name).await {
        Ok(answer) => {
            let met = expected.is_met(answer.code, answer.addresses.len());
            (format!("{:?}, {} addresses", answer.code, answer.addresses.len()), met)
        }
        Err(error) => (error.to_string(), false),
    };
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.sent += 1;
    if !met {
        counts.failed += 1;
        if counts.failures.len() < 20 {
            counts.failures.push(json!({ "at_s": at.as_secs_f64(), "name": expected.name, "what": what }));
        }
    }
    *counts.names.entry(expected.name.clone()).or_default().entry(what).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_answer_is_good() {
        let found = Expected::parse("kubernetes.default.svc.cluster.local").unwrap();
        assert!(found.is_met(ResponseCode::NoError, 1));
        assert!(!found.is_met(ResponseCode::NoError, 0));
        assert!(!found.is_met(ResponseCode::ServFail, 0));
        let missing = Expected::parse("nothing.example=NXDOMAIN").unwrap();
        assert_eq!(missing.name, "nothing.example.");
        assert!(missing.is_met(ResponseCode::NXDomain, 0));
        assert!(!missing.is_met(ResponseCode::NoError, 1));
        assert!(Expected::parse("x=YES").is_err());
    }
}
