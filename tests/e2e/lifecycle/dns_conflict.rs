//! Somebody who always puts the Corefile back: the operator gives in after a few rounds, says who it is, and goes on with
//! everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use serde_json::json;
use weft_tests::afterwards::afterwards;
use weft_tests::cluster::{self, Cluster};
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::traffic::{get, reaches};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::Server;
use weft_tests::{Result, dns, mesh};

use crate::dns::{as_it_was, configure, dns_condition};

/// Puts the Corefile back whenever it differs, until it is told to stop.
struct Undoing {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
}

impl Undoing {
    fn start(cluster: &Cluster, corefile: String) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (cluster, stopped, counted) = (cluster.clone(), Arc::clone(&stop), Arc::clone(&rounds));
        tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                if dns::corefile(&cluster).await.is_ok_and(|now| now != corefile)
                    && dns::write_corefile(&cluster, "gitops", &corefile).await.is_ok()
                {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(wait::seconds(1) / 5).await;
            }
        });
        Self { stop, rounds }
    }

    fn rounds(&self) -> usize {
        self.rounds.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Events of this reason on the MeshConfig, counting those that were put together.
async fn events(cluster: &Cluster, reason: &str) -> Result<i32> {
    let about = ListParams::default().fields("involvedObject.kind=MeshConfig,involvedObject.name=weft");
    let events = cluster.api::<Event>(mesh::NAMESPACE).list(&about).await?.items;
    let of_reason = events.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    Ok(of_reason.map(|event| event.series.and_then(|series| series.count).unwrap_or(1)).sum())
}

#[test]
fn who_always_undoes_our_lines_is_named_and_let_be_while_everything_else_goes_on() {
    cluster::test(|cluster| async move {
        let services = [UserService::http("web", "web")];
        let stage = Stage::new(&cluster, "e2e-dns-conflict", &[Server::new("web", 2)], &services).await?;
        stage.reaches("web", "web").await?;
        configure(&cluster, json!({ "dns": { "provider": "None" } }), "Manual").await?;
        let corefile = dns::corefile(&cluster).await?;
        let (before, pods) = (events(&cluster, "Conflict").await?, dns::pods(&cluster).await?);
        let undoing = Undoing::start(&cluster, corefile.clone());
        let body = async {
            let message = configure(&cluster, json!({}), "Conflict").await?;
            assert!(message.contains("gitops keeps undoing Weft's lines"), "{message}");
            let rounds = undoing.rounds();
            assert!((1..=5).contains(&rounds), "{rounds} rounds");

            // Everything else goes on: a Service that is new gets its shadow, and traffic flows by its address.
            UserService::http("later", "web").create(&cluster, &stage.ns).await?;
            let address = wait::until("the new Service has its shadow", seconds(30), async || {
                Ok(Seen::Done(stage.address("later").await?))
            })
            .await?;
            reaches(&cluster, stage.client(), &format!("http://{address}/"), "web", seconds(30)).await?;
            let answers =
                get(&cluster, stage.client(), &format!("http://{address}/"), &["-n", "100"]).await?;
            assert!(answers.iter().all(|answer| answer.status == Some(200)), "{answers:?}");
            assert_eq!(undoing.rounds(), rounds, "the fight goes on");
            assert_eq!(dns_condition(&cluster, "Conflict").await?, message, "nor does the message change");
            let told = events(&cluster, "Conflict").await? - before;
            // DNSConfigured, Ready and Degraded.
            assert!((1..=3).contains(&told), "{told} Events");

            undoing.stop();
            // Touched, in a field that changes nothing here.
            configure(&cluster, json!({ "deniedStatus": 404 }), "CoreDNS").await?;
            mesh::ready(&cluster, seconds(60)).await?;
            stage.reaches("later", "web").await?;
            assert_eq!(dns::pods(&cluster).await?, pods, "CoreDNS was restarted");
            Ok(())
        };
        afterwards(body, async {
            undoing.stop();
            as_it_was(&cluster).await
        })
        .await?;
        stage.strike().await
    });
}
