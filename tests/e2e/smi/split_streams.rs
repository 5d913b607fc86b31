//! Splits of TCP, by connection, and of UDP, by source.

use std::collections::BTreeMap;

use weft_tests::Result;
use weft_tests::cluster;
use weft_tests::protocols::{tcp, udp};
use weft_tests::services::UserService;
use weft_tests::smi::{self, split, split_where};
use weft_tests::stage::Stage;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::Server;

const NAMES: [&str; 3] = ["web", "v1", "v2"];
/// Connections, or sources.
const MANY: &str = "200";

/// How many were answered by each app, whose pods have its name in front.
fn by_app(by: &BTreeMap<String, u64>) -> BTreeMap<&str, u64> {
    let mut apps = BTreeMap::new();
    for (pod, count) in by {
        *apps.entry(pod.split('-').next().unwrap_or(pod)).or_default() += count;
    }
    apps
}

/// Waits until all are answered by `apps`, each of which has one in four at least.
async fn divided(what: &str, apps: &[&str], ask: impl AsyncFn() -> Result<BTreeMap<String, u64>>) -> Result {
    wait::until(&format!("{what} is divided among {apps:?}"), seconds(30), async || {
        let by = ask().await?;
        let found = by_app(&by);
        let all: u64 = found.values().sum();
        let so = found.len() == apps.len()
            && apps.iter().all(|app| found.get(app).is_some_and(|count| count * 4 >= all));
        Ok(Seen::when(so && all > 0, (), || format!("{by:?}")))
    })
    .await
}

async fn connections(stage: &Stage) -> Result<BTreeMap<String, u64>> {
    let to = format!("{}:9000", stage.host("web"));
    let report = tcp(&stage.cluster, stage.client(), &to, &["--connections", MANY]).await?;
    if report.failed > 0 { Err(format!("{report:?}").into()) } else { Ok(report.by) }
}

#[test]
fn connections_are_divided() {
    cluster::side_by_side(|cluster| async move {
        let servers = NAMES.map(|name| Server::tcp(name, 1));
        let services = NAMES
            .map(|name| UserService::new(name, name).tcp("echo", 9000, "echo").ask("traffic-type", "tcp"));
        let stage = Stage::new(&cluster, "e2e-smi-split-tcp", &servers, &services).await?;
        let halves = split("halves", "web", &[("v1", 1), ("v2", 1)]);
        divided("web", &["web"], async || connections(&stage).await).await?;
        stage.apply([&halves]).await?;
        divided("web", &["v1", "v2"], async || connections(&stage).await).await?;
        // Of requests nothing is known here, so a split of some divides nothing.
        let some = split_where("halves", "web", &[("v1", 1), ("v2", 1)], "none");
        stage.apply([&some]).await?;
        divided("web", &["web"], async || connections(&stage).await).await?;
        let why = smi::verdict(&cluster, &stage.ns, &some, smi::REJECTED).await?;
        assert!(why.contains("matches are for HTTP"), "{why}");
        stage.delete(&halves).await?;
        divided("web", &["web"], async || connections(&stage).await).await?;
        stage.strike().await
    });
}

async fn sources(stage: &Stage) -> Result<BTreeMap<String, u64>> {
    let to = format!("{}:53", stage.host("web"));
    let args = ["--sources", MANY, "-n", "3", "--timeout", "1000"];
    let report = udp(&stage.cluster, stage.client(), &to, &args).await?;
    if report.lost > 0 || report.moves > 0 {
        return Err(format!("{} lost, {} moves: {:?}", report.lost, report.moves, report.by).into());
    }
    Ok(report.by)
}

#[test]
fn sources_of_datagrams_are_divided_and_stay_where_they_are() {
    cluster::side_by_side(|cluster| async move {
        let servers = NAMES.map(|name| Server::udp(name, 1));
        let services =
            NAMES.map(|name| UserService::new(name, name).udp("echo", 53, "echo").ask("traffic-type", "udp"));
        let stage = Stage::new(&cluster, "e2e-smi-split-udp", &servers, &services).await?;
        let halves = split("halves", "web", &[("v1", 1), ("v2", 1)]);
        divided("web", &["web"], async || sources(&stage).await).await?;
        stage.apply([&halves]).await?;
        divided("web", &["v1", "v2"], async || sources(&stage).await).await?;
        stage.delete(&halves).await?;
        divided("web", &["web"], async || sources(&stage).await).await?;
        stage.strike().await
    });
}
