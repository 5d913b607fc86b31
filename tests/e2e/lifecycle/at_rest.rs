//! Where nothing happens the operator does nothing: no write, and hardly a question.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use weft_tests::audit::Write;
use weft_tests::faults::passes;
use weft_tests::node::Embedded;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::{cluster, mesh, seconds_of};

/// Requests a second that a replica may make, watches apart.
const AT_MOST: f64 = 0.5;
/// So long nothing must have been written before it counts as rest.
const QUIET: Duration = seconds(8);

#[test]
fn nothing_is_written_at_rest_and_little_is_asked() {
    cluster::test(|cluster| async move {
        let Some(embedded) = Embedded::needed_for("that nothing is written at rest") else { return Ok(()) };
        mesh::installed(&cluster).await?;
        wait::until("it is at rest", seconds(120), async || {
            // What tests before this one had goes: Services, and with them shadows.
            let namespaces = cluster.all::<Namespace>().list(&ListParams::default()).await?;
            let going = namespaces.into_iter().find(|one| one.metadata.deletion_timestamp.is_some());
            if let Some(namespace) = going {
                return Ok(Seen::NotYet(format!(
                    "namespace {:?} is on its way out",
                    namespace.metadata.name
                )));
            }
            let since = SystemTime::now() - QUIET;
            let mut writes = embedded.writes_by(mesh::NAMESPACE, "weft-operator", since).await?;
            writes.retain(Write::is_of_object);
            let last = writes.last().map(Write::describe);
            Ok(Seen::when(last.is_none(), (), || format!("{last:?}")))
        })
        .await?;

        let (since, lasts) = (SystemTime::now(), seconds_of("REST_SECONDS", 20)?);
        passes(lasts).await?;
        let requests = embedded.requests_by(mesh::NAMESPACE, "weft-operator", since).await?;
        // The leader renews its Lease: the one write that there is.
        let written: Vec<_> =
            requests.iter().filter(|request| request.is_of_object()).map(Write::describe).collect();
        assert!(written.is_empty(), "{written:#?}");
        assert!(requests.iter().any(Write::is_of_lease), "nothing was logged");
        // What is watched is not asked for again.
        let listed: Vec<_> =
            requests.iter().filter(|request| request.verb == "list").map(Write::describe).collect();
        assert!(listed.is_empty(), "{listed:#?}");

        let mut asked: BTreeMap<&str, f64> = BTreeMap::new();
        for request in requests.iter().filter(|request| request.verb != "watch") {
            *asked.entry(request.pod()).or_default() += 1.0;
        }
        for (pod, requests) in asked {
            let rate = requests / lasts.as_secs_f64();
            eprintln!("  {pod}: {rate:.2} requests a second over {} s", lasts.as_secs());
            assert!(rate <= AT_MOST, "{pod} makes {rate:.2} requests a second");
        }
        Ok(())
    });
}
