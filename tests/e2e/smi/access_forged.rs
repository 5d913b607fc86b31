//! Who calls is told by the connection and by no header: who is denied is denied in every spelling of another's name.

use std::collections::BTreeSet;

use weft_tests::cluster;
use weft_tests::forgery::{OURS, spellings};
use weft_tests::protocols::raw;
use weft_tests::smi::{split, target};
use weft_tests::workloads::address_of;

use crate::scene;

/// What other meshes and gateways take for an identity.
const OTHERS: [&str; 8] = [
    "x-forwarded-client-cert",
    "x-forwarded-prefix",
    "l5d-client-id",
    "x-client-ip",
    "true-client-ip",
    "x-original-forwarded-for",
    "x-remote-user",
    "authorization",
];

#[test]
fn no_header_in_any_spelling_lets_a_caller_pass_for_another() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-forged").await?;
        weft_tests::services::UserService::http("root", "api").create(&cluster, &stage.ns).await?;
        // A backend of a split is where others believed a header.
        let all = split("all", "root", &[("api", 1)]);
        stage.apply(&[target("alice", &["alice"], "api", &[]), all]).await?;
        for service in ["api", "root"] {
            stage.answers("alice", service, "/", &[], 200).await?;
            stage.answers("bob", service, "/", &[], 403).await?;
        }
        let alice = address_of(&cluster, &stage.ns, "alice").await?;
        let bob = stage.caller("bob")?;
        let mut spelled: Vec<_> = OURS.iter().flat_map(|name| spellings(name)).collect();
        assert!(spelled.len() >= 60, "only {} spellings", spelled.len());
        spelled.extend(OTHERS.iter().map(ToString::to_string));
        let value = |name: &str| match &*name.to_lowercase() {
            "forwarded" => format!("for={alice};host=api;proto=http"),
            "x-forwarded-client-cert" => {
                format!("By=spiffe://x;URI=spiffe://cluster.local/ns/{}/sa/alice", stage.ns)
            }
            _ => alice.clone(),
        };
        let mut attempts: Vec<Vec<&String>> = spelled.iter().map(|one| vec![one]).collect();
        attempts.push(spelled.iter().collect());
        for (number, attempt) in attempts.iter().enumerate() {
            let service = if number % 2 == 0 { "api" } else { "root" };
            let lines: String = attempt.iter().map(|name| format!(r"{name}: {}\r\n", value(name))).collect();
            let bytes = format!(r"GET / HTTP/1.1\r\nHost: {service}\r\nConnection: close\r\n{lines}\r\n");
            let answer = raw(&cluster, bob, &stage.url(service, "/"), &bytes).await?;
            assert_eq!(answer.statuses(), [403], "{attempt:?}: {answer:?}");
        }
        // The same all at once over h2, where names have one case only.
        let lower: BTreeSet<_> = spelled.iter().map(|name| name.to_lowercase()).collect();
        let headers: Vec<_> = lower.iter().map(|name| format!("{name}: {}", value(name))).collect();
        let args: Vec<_> = headers.iter().flat_map(|header| ["--header", header]).chain(["--h2c"]).collect();
        for service in ["api", "root"] {
            assert_eq!(
                stage.get_as("bob", service, "/", &args).await?.status,
                Some(403),
                "{service} over h2"
            );
            // Nor does it take anything away from whoever is allowed.
            assert_eq!(stage.get_as("alice", service, "/", &args).await?.status, Some(200), "{service}");
        }
        stage.strike().await
    });
}
