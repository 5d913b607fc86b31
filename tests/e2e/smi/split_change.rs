//! A change of weights under load: nothing is lost, and the traffic follows at once.

use weft_tests::cluster;
use weft_tests::probe::{Probe, now_us};
use weft_tests::smi::{self, split};
use weft_tests::traffic::{Load, Mode};
use weft_tests::wait::seconds;

use crate::scene;

/// How soon all traffic must follow, from the API server's answer on.
const SOON_US: u64 = 500_000;
/// How often the weights change.
const CHANGES: usize = 20;

#[test]
fn traffic_follows_a_change_of_weights_at_once_and_none_is_lost() {
    cluster::test(|cluster| async move {
        let stage = scene::split(&cluster, "e2e-smi-weights").await?;
        let apps = ["v1", "v2"];
        let all_to = |app: usize| split("all", "web", &[(apps[app], 1), (apps[1 - app], 0)]);
        stage.apply(&[all_to(0)]).await?;
        for client in &stage.clients {
            let (url, deadline) = (stage.url("web", "/"), seconds(30));
            weft_tests::traffic::reaches(&cluster, client, &url, "v1", deadline).await?;
        }
        let url = stage.url("web", "/");
        let load = Load::start(&cluster, stage.client(), &url, "v1,v2", 200, Mode::Both).await?;
        let mut probes = Vec::new();
        for client in &stage.clients {
            let probe = Probe::start(&cluster, client, &url).await?;
            probe.sees("v1 answers", 0, seconds(20), |change| is_of(change.pod(), "v1")).await?;
            probes.push(probe);
        }
        let mut took = Vec::new();
        for number in 1..=CHANGES {
            let app = apps[number % 2];
            let began = now_us()?;
            smi::apply(&cluster, &stage.ns, &all_to(number % 2)).await?;
            let written = now_us()?;
            for probe in &probes {
                let change = probe
                    .sees(&format!("{app} answers"), began, seconds(20), |change| is_of(change.pod(), app))
                    .await?;
                took.push(change.sent_us.saturating_sub(written));
            }
        }
        for probe in probes {
            let changes = probe.stop().await?;
            // One way at a time: nobody is served by the old share once somebody was by the new one.
            assert_eq!(changes.len(), CHANGES + 1, "{changes:?}");
        }
        took.sort_unstable();
        let (median, last) = (took[took.len() / 2], took[took.len() - 1]);
        eprintln!(
            "  the first request of the new share left {median} us after the write's answer, {last} at most"
        );
        load.let_run(seconds(3)).await?;
        load.stop_without_failures(800).await?;
        assert!(last <= SOON_US, "{last} us until all traffic followed: {took:?}");
        stage.strike().await
    });
}

/// Whether a pod is one of `app`.
fn is_of(pod: Option<&str>, app: &str) -> bool {
    pod.is_some_and(|pod| pod.starts_with(&format!("{app}-")))
}
