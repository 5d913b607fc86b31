//! What an owner cannot mean is told on the owner's own Service, and costs nothing but itself; annotations of Traefik Mesh mean
//! what they meant there.

use std::collections::BTreeSet;

use weft_tests::Result;
use weft_tests::cluster::{self, Cluster};
use weft_tests::debug;
use weft_tests::protocols::tcp;
use weft_tests::services::{self, UserService, events};
use weft_tests::stage::Stage;
use weft_tests::traffic::get_until;
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::Server;

/// Annotation, a value that it cannot have, and a word of what is allowed instead.
const INVALID: [(&str, &str, &str); 11] = [
    ("traffic-type", "sctp", "udp"),
    ("scheme", "gopher", "h2c"),
    ("upstream-verify", "perhaps", "full"),
    ("upstream-ca", "no certificate", "PEM"),
    ("upstream-server-name", "not a name", "DNS name"),
    ("retry-attempts", "many", "whole number"),
    ("circuit-breaker-expression", "Feeling() > 3", "NetworkErrorRatio"),
    // One without the other.
    ("ratelimit-average", "5", "ratelimit-burst"),
    ("request-timeout", "5", "ms"),
    ("idle-timeout", "for ever", "ms"),
    ("connect-timeout", "-1s", "ms"),
];

/// Waits until the warnings about a Service are exactly about `annotations`.
async fn warned(
    cluster: &Cluster,
    ns: &str,
    service: &str,
    annotations: &BTreeSet<String>,
) -> Result<Vec<String>> {
    wait::until(&format!("Events on {service} about {annotations:?}"), seconds(20), async || {
        let events = events(cluster, ns, service).await?;
        let messages: Vec<_> = events
            .iter()
            .filter(|(kind, reason, _)| kind == "Warning" && reason == "InvalidAnnotation")
            .map(|(_, _, message)| message.clone())
            .collect();
        let all = annotations.iter().all(|key| messages.iter().any(|message| message.contains(key)));
        let enough = all && messages.len() == annotations.len();
        Ok(Seen::when(enough, messages, || format!("{events:?}")))
    })
    .await
}

/// Waits until the operator's debug API lists problems with exactly these annotations.
async fn listed(cluster: &Cluster, ns: &str, service: &str, annotations: &BTreeSet<String>) -> Result {
    wait::until(&format!("the debug API lists {annotations:?} of {service}"), seconds(20), async || {
        let view = debug::service(cluster, ns, service).await?;
        let found: BTreeSet<_> = view.problems.iter().map(|problem| problem.annotation.clone()).collect();
        Ok(Seen::when(found == *annotations, (), || format!("{view:?}")))
    })
    .await
}

#[test]
fn each_invalid_annotation_is_told_and_the_rest_works_with_the_default() {
    cluster::side_by_side(|cluster| async move {
        let mut bad = UserService::http("bad", "web").annotation("example.com/other", "of nobody's concern");
        for (key, value, _) in INVALID {
            bad = bad.ask(key, value);
        }
        // One that is wrong beside one that is right.
        let mixed = UserService::http("mixed", "web").ask("retry-attempts", "0").ask("request-timeout", "1s");
        let good = UserService::http("good", "web").ask("retry-attempts", "2");
        let services = [bad, mixed, good];
        let stage = Stage::new(&cluster, "e2e-invalid", &[Server::new("web", 1)], &services).await?;
        let of = |keys: &[&str]| keys.iter().map(|key| format!("weft.mesh/{key}")).collect::<BTreeSet<_>>();

        let all = of(&INVALID.map(|(key, _, _)| key));
        let messages = warned(&cluster, &stage.ns, "bad", &all).await?;
        listed(&cluster, &stage.ns, "bad", &all).await?;
        let view = debug::service(&cluster, &stage.ns, "bad").await?;
        for (key, value, allowed) in INVALID {
            let whole = format!("weft.mesh/{key}");
            let message = messages.iter().find(|message| message.contains(&whole)).unwrap();
            assert!(message.contains(value), "the value {value:?} is not named: {message}");
            assert!(message.contains(allowed), "{key}: what is allowed is not told: {message}");
            let problem = view.problems.iter().find(|problem| problem.annotation == whole).unwrap();
            assert_eq!(problem.value, value);
            assert!(problem.message.contains(allowed), "{problem:?}");
        }
        stage.reaches("bad", "web").await?;
        for answer in stage.get_all("bad", "/", &["-n", "30"]).await? {
            answer.assert_from("web");
            assert!(answer.node().is_some(), "not carried as HTTP: {answer:?}");
        }

        warned(&cluster, &stage.ns, "mixed", &of(&["retry-attempts"])).await?;
        stage.reaches("mixed", "web").await?;
        let late = stage.get("mixed", "/?delay=3000", &[]).await?;
        assert_eq!(late.status, Some(504), "what is right beside it has no effect: {late:?}");
        warned(&cluster, &stage.ns, "good", &BTreeSet::new()).await?;
        listed(&cluster, &stage.ns, "good", &BTreeSet::new()).await?;

        // Once it is right nothing is listed any more.
        services::ask(&cluster, &stage.ns, "mixed", "retry-attempts", Some("3")).await?;
        listed(&cluster, &stage.ns, "mixed", &BTreeSet::new()).await?;
        stage.strike().await
    });
}

#[test]
fn a_slip_in_an_annotations_name_is_told() {
    cluster::side_by_side(|cluster| async move {
        let services = [UserService::http("web", "web").ask("retry-atempts", "3")];
        let stage = Stage::new(&cluster, "e2e-misspelt", &[Server::new("web", 1)], &services).await?;
        let slip = BTreeSet::from(["weft.mesh/retry-atempts".to_owned()]);
        let messages = warned(&cluster, &stage.ns, "web", &slip).await?;
        assert!(messages[0].contains("retry-attempts"), "what there is instead is not told: {messages:?}");
        stage.reaches("web", "web").await?;
        stage.strike().await
    });
}

#[test]
fn services_written_for_traefik_mesh_need_no_change() {
    cluster::side_by_side(|cluster| async move {
        let limited = |name: &str, prefix: &str| {
            UserService::http(name, "web")
                .annotation(&format!("{prefix}ratelimit-average"), "1")
                .annotation(&format!("{prefix}ratelimit-burst"), "3")
        };
        let generous = |service: UserService, prefix: &str| {
            service
                .annotation(&format!("{prefix}ratelimit-average"), "1000")
                .annotation(&format!("{prefix}ratelimit-burst"), "1000")
        };
        let of_tcp = |name: &str, prefix: &str| {
            UserService::new(name, "raw")
                .tcp("echo", 9000, 9000)
                .annotation(&format!("{prefix}traffic-type"), "tcp")
        };
        let (mesh, maesh) = ("mesh.traefik.io/", "maesh.containo.us/");
        let services = [
            limited("limited-mesh", mesh),
            limited("limited-maesh", maesh),
            // The first prefix that has a key wins.
            generous(limited("ours-wins", mesh), "weft.mesh/"),
            generous(limited("mesh-wins", maesh), mesh),
            of_tcp("tcp-mesh", mesh),
            of_tcp("tcp-maesh", maesh),
            // Each key for itself.
            limited("both", mesh).annotation("maesh.containo.us/retry-attempts", "1"),
            UserService::http("bad", "web").annotation("mesh.traefik.io/scheme", "ftp"),
        ];
        let servers = [Server::new("web", 2), Server::tcp("raw", 1)];
        let stage = Stage::new(&cluster, "e2e-prefixes", &servers, &services).await?;
        for (service, is_limited) in [
            ("limited-mesh", true),
            ("limited-maesh", true),
            ("ours-wins", false),
            ("mesh-wins", false),
            ("both", true),
        ] {
            let url = stage.url(service, "/");
            get_until(&cluster, stage.client(), &url, "an answer", seconds(30), |answer| {
                matches!(answer.status, Some(200 | 429))
            })
            .await?;
            let answers = stage.get_all(service, "/", &["-n", "30"]).await?;
            let refused = answers.iter().filter(|answer| answer.status == Some(429)).count();
            assert_eq!(refused > 0, is_limited, "{service}: {refused} of 30 were refused");
        }
        for service in ["tcp-mesh", "tcp-maesh"] {
            let to = format!("{}:9000", stage.host(service));
            wait::until(&format!("{service} speaks first"), seconds(30), async || {
                let report = tcp(&cluster, stage.client(), &to, &["--timeout", "2000"]).await?;
                Ok(Seen::when(report.ok == 1, (), || format!("{report:?}")))
            })
            .await?;
        }
        // Sent once and no more: the retry of the oldest prefix holds beside the limit of the other.
        let retried = "/?close&first=1&key=once";
        get_until(&cluster, stage.client(), &stage.url("both", retried), "502", seconds(10), |answer| {
            answer.status == Some(502)
        })
        .await?;
        let named = BTreeSet::from(["mesh.traefik.io/scheme".to_owned()]);
        warned(&cluster, &stage.ns, "bad", &named).await?;
        stage.strike().await
    });
}
