//! By mesh name the own node's proxy carries a request; by plain name nothing of ours touches it.

use std::collections::BTreeSet;

use serde_json::json;
use weft_tests::traffic::{NODE_HEADER, get, reaches};
use weft_tests::wait::seconds;
use weft_tests::workloads::{self, Server};
use weft_tests::{cluster, mesh};

#[test]
fn the_own_nodes_proxy_reaches_every_replica_and_the_plain_name_bypasses_it() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let ns = workloads::namespace(&cluster, "e2e-traffic").await?;
        Server::new("whoami", 4).deploy(&cluster, &ns).await?;
        workloads::service(&cluster, &ns, "whoami", "whoami", &[("http", 80, json!("http"))]).await?;
        let clients = workloads::clients(&cluster, &ns).await?;
        let replicas: BTreeSet<_> = workloads::pods(&cluster, &ns, "whoami").await?.into_iter().collect();
        assert_eq!(replicas.len(), 4);

        for (client, node) in clients.iter().zip(&cluster.nodes) {
            let url = format!("http://whoami.{ns}.weft.mesh/");
            reaches(&cluster, client, &url, "whoami", seconds(30)).await?;
            for args in [&["-n", "60"][..], &["-n", "60", "--new-connection"]] {
                let answers = get(&cluster, client, &url, args).await?;
                let mut answered = BTreeSet::new();
                for answer in &answers {
                    answer.assert_from("whoami");
                    assert_eq!(answer.node(), Some(node.as_str()), "another node's proxy carried {answer:?}");
                    assert_eq!(
                        answer.received(NODE_HEADER),
                        Some(node.as_str()),
                        "the backend saw {answer:?}"
                    );
                    answered.insert(answer.told("pod").to_owned());
                }
                assert_eq!(answers.len(), 60);
                assert_eq!(answered, replicas, "from {node} with {args:?}");
            }
            for plain in [format!("http://whoami.{ns}/"), format!("http://whoami.{ns}.svc.cluster.local/")] {
                for answer in get(&cluster, client, &plain, &["-n", "10", "--new-connection"]).await? {
                    answer.assert_from("whoami");
                    assert_eq!(
                        (answer.node(), answer.received(NODE_HEADER)),
                        (None, None),
                        "{plain}: {answer:?}"
                    );
                }
            }
        }
        workloads::remove_namespace(&cluster, &ns).await
    });
}
