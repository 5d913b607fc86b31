//! What most tests here begin with: under access control a server and two callers, each with an account of its own; for
//! splits a root Service and the Services that get its shares.

use std::collections::BTreeMap;

use weft_tests::cluster::Cluster;
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::traffic::{Load, LoadReport, Mode};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::Server;
use weft_tests::{Failure, Result};

/// A server `api`, the Service of that name with ports 80 and 81, and the callers `alice` and `bob`; everybody has an account
/// of their own name.
pub(crate) async fn access(cluster: &Cluster, ns: &str) -> Result<Stage> {
    let service = UserService::http("api", "api").tcp("second", 81, "http");
    let servers = [Server::new("api", 1).with_account()];
    Stage::with_callers(cluster, ns, &servers, &[service], &["alice", "bob"]).await
}

/// Servers `web`, `v1` and `v2`, and a Service of each name.
pub(crate) async fn split(cluster: &Cluster, ns: &str) -> Result<Stage> {
    let names = ["web", "v1", "v2"];
    let servers = names.map(|name| Server::new(name, 1));
    let services = names.map(|name| UserService::http(name, name));
    let stage = Stage::new(cluster, ns, &servers, &services).await?;
    for name in names {
        stage.reaches(name, name).await?;
    }
    Ok(stage)
}

/// How many of `n` requests each app answered. All of them must be answered.
pub(crate) async fn answered(
    stage: &Stage,
    service: &str,
    args: &[&str],
    n: u32,
) -> Result<BTreeMap<String, u32>> {
    let count = n.to_string();
    let mut apps = BTreeMap::new();
    for answer in stage.get_all(service, "/", &[&["-n", &count], args].concat()).await? {
        if answer.status != Some(200) {
            return Err(format!("not a 200: {answer:?}").into());
        }
        *apps.entry(answer.told("app").to_owned()).or_default() += 1;
    }
    Ok(apps)
}

/// Waits until all of forty requests are answered by `apps` and each of those answers some.
pub(crate) async fn settles(stage: &Stage, service: &str, args: &[&str], apps: &[&str]) -> Result {
    let what = format!("{service} with {args:?} is answered by {apps:?}");
    wait::until(&what, seconds(30), async || {
        let answered = answered(stage, service, args, 40).await?;
        let as_wanted = answered.len() == apps.len() && apps.iter().all(|app| answered.contains_key(*app));
        Ok(Seen::when(as_wanted, (), || format!("{answered:?}")))
    })
    .await
}

/// Waits until `app` answers more than half of forty requests.
pub(crate) async fn leads(stage: &Stage, service: &str, app: &str) -> Result {
    wait::until(&format!("{service} is answered by {app} most of the time"), seconds(30), async || {
        let answered = answered(stage, service, &[], 40).await?;
        let leads = answered.get(app).is_some_and(|count| *count > 20);
        Ok(Seen::when(leads, (), || format!("{answered:?}")))
    })
    .await
}

/// Requests to `service`, where one of `apps` answers each, until there were `n`; the share of each app.
pub(crate) async fn shares(
    stage: &Stage,
    service: &str,
    apps: &[&str],
    n: u32,
) -> Result<BTreeMap<String, f64>> {
    // Other tests run beside it, and two cores must do for all.
    let rps = 500;
    let url = stage.url(service, "/");
    let load =
        Load::start(&stage.cluster, stage.client(), &url, &apps.join(","), rps, Mode::KeepAlive).await?;
    // Two seconds have passed.
    load.let_run(seconds(u64::from(n / rps).saturating_sub(1))).await?;
    let report = only(load.stop_without_failures(u64::from(n)).await?)?;
    eprintln!("  {} requests: {:?}", report.sent, report.apps);
    #[allow(clippy::cast_precision_loss, reason = "far from where it matters")]
    let share = |count: u64| count as f64 / report.sent as f64;
    Ok(report.apps.into_iter().map(|(app, count)| (app, share(count))).collect())
}

/// The report of the only mode.
pub(crate) fn only(reports: Vec<LoadReport>) -> Result<LoadReport> {
    let mut reports = reports;
    reports.pop().ok_or_else(|| Failure::from("there is no report"))
}
