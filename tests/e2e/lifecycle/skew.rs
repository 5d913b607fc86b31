//! Operator and proxies of the version before and of this one, in every pairing, under load. `make skew` builds the version
//! before and says in `WEFT_PREVIOUS_CHART` and `WEFT_PREVIOUS_TAG` where it is; without it this test is left out.

use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::cluster::{self, Cluster};
use weft_tests::mixed::Mixed;
use weft_tests::wait::seconds;
use weft_tests::workloads::{self, image_of, image_tag};
use weft_tests::{Result, mesh};

const DEADLINE: Duration = Duration::from_secs(120);

/// The MeshConfig of the tests with the proxies of `tag`, whichever version the operator is of. Without what the version before
/// does not know.
fn with_proxies_of(tag: &str) -> Value {
    let mut object = mesh::meshconfig();
    object["spec"]["proxy"]["image"] = json!(image_of("weft-proxy", tag));
    object["spec"]["proxy"].as_object_mut().unwrap().remove("rollout");
    object
}

/// Installs what is to be there, and waits for it; then a Service that comes now must be carried.
async fn works(cluster: &Cluster, stage: &weft_tests::stage::Stage, name: &str) -> Result {
    workloads::available(cluster, mesh::NAMESPACE, "weft-operator").await?;
    mesh::ready(cluster, DEADLINE).await?;
    mesh::proxies_settled(cluster, &[], DEADLINE).await?;
    weft_tests::services::UserService::http(name, "web").create(cluster, &stage.ns).await?;
    stage.reaches(name, "web").await?;
    eprintln!("  {name} works");
    Ok(())
}

#[test]
#[ignore = "needs the version before: `make skew`"]
fn every_pairing_of_neighbouring_versions_carries_everything() {
    let previous =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make skew`"));
    let (chart, tag) = (previous("WEFT_PREVIOUS_CHART"), previous("WEFT_PREVIOUS_TAG"));
    cluster::test(|cluster| async move {
        mesh::absent(&cluster).await?;
        mesh::namespace(&cluster).await?;
        // The version before, as its users have it.
        mesh::release("install", &chart, &tag).await?;
        mesh::apply_meshconfig(&cluster, &with_proxies_of(&tag)).await?;
        mesh::ready(&cluster, DEADLINE).await?;
        let stage = Mixed::stage_on(&cluster, "e2e-skew").await?;
        works(&cluster, &stage, "old-operator-old-proxies").await?;
        let load = Mixed::start(&stage).await?;

        mesh::release("upgrade", mesh::CHART, &image_tag()).await?;
        works(&cluster, &stage, "new-operator-old-proxies").await?;
        mesh::apply_meshconfig(&cluster, &with_proxies_of(&image_tag())).await?;
        works(&cluster, &stage, "new-operator-new-proxies").await?;
        // Back: the operator first, then the proxies.
        mesh::release("upgrade", &chart, &tag).await?;
        works(&cluster, &stage, "old-operator-new-proxies").await?;
        mesh::apply_meshconfig(&cluster, &with_proxies_of(&tag)).await?;
        works(&cluster, &stage, "old-operator-old-proxies-again").await?;

        load.let_run(seconds(2)).await?;
        load.stop_without_failures().await?;
        stage.strike().await?;
        mesh::absent(&cluster).await
    });
}
