//! Examples of splits, in every version that was released, do what they say.

use weft_tests::cluster;
use weft_tests::services::UserService;
use weft_tests::stage::Stage;
use weft_tests::workloads::Server;

use crate::examples::{Example, examples};

const EXAMPLES: &[Example] = &examples![
    "split-v1alpha1-all.yaml",
    "split-v1alpha1-quantities.yaml",
    "split-v1alpha2-canary.yaml",
    "split-v1alpha3-ab-test.yaml",
    "split-v1alpha3-canary.yaml",
    "split-v1alpha4-ab-test-as-its-text-has-it.yaml",
    "split-v1alpha4-ab-test.yaml",
    "split-v1alpha4-another-port.yaml",
    "split-v1alpha4-before-its-service.yaml",
    "split-v1alpha4-canary.yaml",
    "split-v1alpha4-one-left.yaml",
    "split-v1alpha4-ports.yaml",
    "split-v1alpha4-with-its-root.yaml",
    "traefik-mesh-split.yaml",
];

/// All of them.
pub(crate) fn all() -> Vec<Example> {
    EXAMPLES.to_vec()
}

#[test]
fn examples_of_splits_do_what_they_say_in_every_version() {
    cluster::side_by_side(|cluster| async move {
        let servers = ["root", "v1", "v2"].map(|name| Server::new(name, 1));
        let two = |name: &str, app: &str| {
            UserService::new(name, app).tcp("one", 8080, "http").tcp("two", 9090, 8080)
        };
        let services = [
            UserService::http("site", "root"),
            UserService::http("site-v1", "v1"),
            UserService::http("site-v2", "v2"),
            two("birds", "root"),
            two("blue-birds", "v1"),
            UserService::new("green-birds", "v2").tcp("one", 8080, "http").tcp("two", 9090, "http"),
            UserService::new("gray-birds", "v1").tcp("one", 1024, "http"),
        ];
        let stage = Stage::new(&cluster, "e2e-smi-split-examples", &servers, &services).await?;
        for example in EXAMPLES {
            example.holds(&stage).await?;
        }
        stage.strike().await
    });
}
