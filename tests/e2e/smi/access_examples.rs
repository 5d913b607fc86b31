//! Examples of access and of routes, in every version that was released, do what they say.

use weft_tests::Result;
use weft_tests::cluster::{self, Cluster};
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::workloads::Server;

use crate::examples::{Example, examples};

const EXAMPLES: &[Example] = &examples![
    "access-v1alpha1-specs-v1alpha1-by-caller.yaml",
    "access-v1alpha1-specs-v1alpha1-one-path.yaml",
    "access-v1alpha1-specs-v1alpha1-tcp.yaml",
    "access-v1alpha1-specs-v1alpha2-by-caller.yaml",
    "access-v1alpha1-specs-v1alpha2-one-path.yaml",
    "access-v1alpha1-specs-v1alpha2-tcp.yaml",
    "access-v1alpha2-specs-v1alpha3-by-caller.yaml",
    "access-v1alpha2-specs-v1alpha3-one-path.yaml",
    "access-v1alpha2-specs-v1alpha3-tcp.yaml",
    "access-v1alpha3-ports-and-paths.yaml",
    "access-v1alpha3-specs-v1alpha4-by-caller.yaml",
    "access-v1alpha3-specs-v1alpha4-one-path.yaml",
    "access-v1alpha3-specs-v1alpha4-tcp.yaml",
    "specs-v1alpha2-headers.yaml",
    "specs-v1alpha3-headers.yaml",
    "specs-v1alpha4-headers.yaml",
    "specs-v1alpha4-path-method-header.yaml",
    "specs-v1alpha4-several-matches.yaml",
    "traefik-mesh-access.yaml",
];
const MAP: &[Example] = &examples!["specs-v1alpha4-headers-as-a-map.yaml"];

/// All of them.
pub(crate) fn all() -> Vec<Example> {
    [EXAMPLES, MAP].concat()
}

/// A server `catalog` on two ports and those who call it, with an account each.
async fn cast(cluster: &Cluster, ns: &str, callers: &[&str]) -> Result<Stage> {
    let servers = [Server::new("catalog", 1).with_account()];
    let service = UserService::new("catalog", "catalog").tcp("http", 8080, "http").tcp("more", 9090, "http");
    Stage::with_callers(cluster, ns, &servers, &[service], callers).await
}

#[test]
fn examples_of_access_do_what_they_say_in_every_version() {
    cluster::under_access_control(|cluster| async move {
        let stage = cast(&cluster, "e2e-smi-examples", &["scraper", "shop", "till"]).await?;
        for example in EXAMPLES {
            example.holds(&stage).await?;
        }
        stage.strike().await
    });
}

#[test]
fn headers_may_be_a_map_as_well() {
    cluster::under_access_control(|cluster| async move {
        let stage = cast(&cluster, "e2e-smi-examples-map", &["shop"]).await?;
        for example in MAP {
            example.holds(&stage).await?;
        }
        stage.strike().await
    });
}
