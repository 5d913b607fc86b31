//! What is told of a denial besides the answer: a line in the access log with the rule that is missing, a count; and the
//! status that does not tell that there is something to be called. And what the MeshConfig tells of all objects.

use serde_json::Value;
use weft_tests::access_log::{line, while_logging};
use weft_tests::mesh::{self, denied_with, enforced};
use weft_tests::metrics::{DENIED, Metrics};
use weft_tests::smi::{self, split};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::{cluster, debug};

use crate::scene;

#[test]
fn a_denial_is_logged_counted_and_may_look_as_if_nothing_were_there() {
    cluster::test(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-told").await?;
        let mut spec = enforced();
        spec.as_object_mut()
            .ok_or("no object")?
            .extend(denied_with(404).as_object().cloned().unwrap_or_default());
        let node = &cluster.nodes[0];
        let judged = while_logging(&cluster, "json", spec, async || {
            let absent = stage.answers("alice", "api", "/as-if-absent", &[], 404).await?;
            assert!(absent.pod().is_none(), "a server answered: {absent:?}");
            for telling in ["ServiceAccount", "TrafficTarget", "access denied"] {
                assert!(!absent.text().contains(telling), "{telling} tells that it is there: {absent:?}");
            }

            let labels = [("namespace", &*stage.ns), ("service", "api")];
            let before = Metrics::on(&cluster, node).await?.count(DENIED, &labels);
            assert!(before >= 1.0, "{before} denials are counted");
            for path in ["/logged", "/counted-1", "/counted-2"] {
                assert_eq!(stage.get_as("bob", "api", path, &[]).await?.status, Some(404));
            }
            wait::until("three denials more are counted", seconds(5), async || {
                let now = Metrics::on(&cluster, node).await?.count(DENIED, &labels);
                Ok(Seen::when((now - before - 3.0).abs() < 0.5, (), || format!("{before} before, {now} now")))
            })
            .await?;

            let line = line(&cluster, node, "/logged").await?;
            let line: Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
            let reason = line["reason"].as_str().unwrap_or_default();
            for part in
                ["TrafficTarget", &format!("{}/bob", stage.ns), &format!("{}/api", stage.ns), "port 80"]
            {
                assert!(reason.contains(part), "{part} is not in the line: {line}");
            }
            assert_eq!((&line["status"], &line["endpoint"]), (&404.into(), &Value::Null), "{line}");
            Ok(())
        });
        Box::pin(judged).await?;
        // Disabled again, everybody may.
        stage.answers("bob", "api", "/", &[], 200).await?.assert_from("api");
        mesh::ready(&cluster, seconds(30)).await?;
        stage.strike().await
    });
}

#[test]
fn the_status_counts_what_became_of_the_objects() {
    cluster::test(|cluster| async move {
        let stage = scene::split(&cluster, "e2e-smi-counts").await?;
        let all = [
            split("good", "web", &[("v1", 1)]),
            split("half", "v1", &[("v2", 1), ("gone", 1)]),
            split("bad", "gone", &[("v2", 1)]),
        ];
        stage.apply(&all).await?;
        for (object, verdict) in all.iter().zip([smi::ACCEPTED, smi::PARTLY_APPLIED, smi::REJECTED]) {
            smi::verdict(&cluster, &stage.ns, object, verdict).await?;
        }
        wait::until("the status counts as many as the operator knows", seconds(30), async || {
            let status = mesh::status(&cluster).await?["smi"].clone();
            let known = debug::smi(&cluster).await?;
            let count = |verdict: &str| known.iter().filter(|one| one.verdict == verdict).count();
            let counted = [
                ("accepted", count(smi::ACCEPTED)),
                ("partlyApplied", count(smi::PARTLY_APPLIED)),
                ("rejected", count(smi::REJECTED)),
            ];
            let same = counted.iter().all(|(field, count)| *count > 0 && status[field] == *count);
            Ok(Seen::when(same, (), || format!("{counted:?}: {status}")))
        })
        .await?;
        stage.strike().await
    });
}
