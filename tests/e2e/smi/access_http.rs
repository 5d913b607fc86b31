//! HTTP under access control: nothing passes but what a target allows, by path, method and header, and an answer says what
//! would have had to be.

use serde_json::json;
use weft_tests::cluster;
use weft_tests::protocols::raw;
use weft_tests::smi::{self, group, rule, target};
use weft_tests::wait::{self, Seen, seconds};

use crate::scene;

#[test]
fn without_a_target_nothing_passes_and_with_one_only_what_it_allows() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-target").await?;
        let denied = stage.answers("alice", "api", "/", &[], 403).await?;
        for part in [format!("{}/alice", stage.ns), format!("{}/api", stage.ns), "port 80".to_owned()] {
            assert!(denied.text().contains(&part), "{part} is not named: {}", denied.text());
        }
        assert!(denied.pod().is_none(), "a server answered: {denied:?}");

        let target = target("alice", &["alice"], "api", &[]);
        stage.apply([&target]).await?;
        stage.answers("alice", "api", "/", &[], 200).await?.assert_from("api");
        for form in [&[][..], &["--http10"], &["--h2c"], &["--method", "DELETE"]] {
            let hers = stage.get_as("alice", "api", "/any?thing", form).await?;
            assert_eq!(hers.status, Some(200), "{form:?}: {hers:?}");
            let his = stage.get_as("bob", "api", "/any?thing", form).await?;
            assert_eq!(his.status, Some(403), "{form:?}: {his:?}");
        }
        let (kind, message) = smi::told(&cluster, &stage.ns, &target, smi::ACCEPTED, "").await?;
        assert_eq!(kind, "Normal", "{message}");

        stage.delete(&target).await?;
        stage.answers("alice", "api", "/", &[], 403).await?;
        stage.strike().await
    });
}

#[test]
fn paths_begin_with_what_is_allowed_however_they_are_written() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-paths").await?;
        let matches = json!([{ "name": "api", "pathRegex": "/api", "methods": ["GET"] }]);
        let rules = [rule("HTTPRouteGroup", "paths")];
        stage.apply(&[group("paths", &matches), target("alice", &["alice"], "api", &rules)]).await?;
        stage.answers("alice", "api", "/api", &[], 200).await?.assert_from("api");
        for (path, status) in [
            ("/api/books?all", 200),
            ("/apis", 200),
            ("/", 403),
            ("/admin/api", 403),
            ("/API", 403),
            ("//api", 403),
            ("/?/api", 403),
        ] {
            let answer = stage.get_as("alice", "api", path, &[]).await?;
            assert_eq!(answer.status, Some(status), "{path}: {answer:?}");
        }
        let posted = stage.get_as("alice", "api", "/api", &["--method", "POST"]).await?;
        assert_eq!(posted.status, Some(403), "{posted:?}");
        assert_eq!(stage.get_as("bob", "api", "/api", &[]).await?.status, Some(403));

        // What a server may resolve to another path.
        let (alice, url) = (stage.caller("alice")?, stage.url("api", "/"));
        for path in [
            "/api/../admin",
            "/api/%2e%2e/admin",
            "/api/.%2E/admin",
            "/api/..%2fadmin",
            "/api/..;/admin",
            "/api/./../admin",
            "/api//../../admin",
            "/api/..\\\\admin",
            "http://api/admin",
        ] {
            let bytes = format!(r"GET {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n");
            let answer = raw(&cluster, alice, &url, &bytes).await?;
            assert!(matches!(&answer.statuses()[..], [403 | 400]), "{path} passed: {answer:?}");
        }
        stage.strike().await
    });
}

#[test]
fn headers_are_as_they_must_be_all_of_them() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-headers").await?;
        let both = json!([{ "x-debug": "^(1|yes)$" }, { "User-Agent": "lab" }]);
        let matches = json!([{ "name": "debug", "headers": both }]);
        let rules = [rule("HTTPRouteGroup", "headers")];
        stage.apply(&[group("headers", &matches), target("alice", &["alice"], "api", &rules)]).await?;
        let (debug, agent) = (["--header", "X-Debug: yes"], ["--header", "user-agent: a lab rat"]);
        stage.answers("alice", "api", "/", &[debug, agent].concat(), 200).await?.assert_from("api");
        for (args, status) in [
            ([["--header", "x-debug: 1"], agent].concat(), 200),
            ([debug, agent].concat().into_iter().chain(["--h2c"]).collect(), 200),
            (debug.to_vec(), 403),
            (agent.to_vec(), 403),
            ([["--header", "x-debug: 11"], agent].concat(), 403),
            ([["--header", "x-debug2: 1"], agent].concat(), 403),
            (vec![], 403),
        ] {
            let answer = stage.get_as("alice", "api", "/", &args).await?;
            assert_eq!(answer.status, Some(status), "{args:?}: {answer:?}");
        }
        assert_eq!(stage.get_as("bob", "api", "/", &[debug, agent].concat()).await?.status, Some(403));
        stage.strike().await
    });
}

#[test]
fn matches_are_alternatives_and_a_rule_may_name_some_of_them() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-matches").await?;
        let matches = json!([
            { "name": "read", "methods": ["GET", "HEAD"] },
            { "name": "health", "pathRegex": "/health", "methods": ["*"] },
            { "name": "write", "methods": ["POST", "PUT"] },
        ]);
        let mut some = rule("HTTPRouteGroup", "all");
        some["matches"] = json!(["health", "write"]);
        stage.apply(&[group("all", &matches), target("alice", &["alice"], "api", &[some])]).await?;
        stage.answers("alice", "api", "/health", &[], 200).await?;
        let ask = async |method: &str, path: &str| {
            Ok::<_, weft_tests::Failure>(
                stage.get_as("alice", "api", path, &["--method", method]).await?.status,
            )
        };
        assert_eq!(ask("DELETE", "/healthy").await?, Some(200));
        assert_eq!(ask("PUT", "/books").await?, Some(200));
        assert_eq!(ask("GET", "/books").await?, Some(403), "read is not named");
        assert_eq!(ask("DELETE", "/books").await?, Some(403));

        // All of them.
        stage.apply(&[target("alice", &["alice"], "api", &[rule("HTTPRouteGroup", "all")])]).await?;
        wait::until("reading is allowed", seconds(20), async || {
            let status = ask("GET", "/books").await?;
            Ok(Seen::when(status == Some(200), (), || format!("{status:?}")))
        })
        .await?;
        assert_eq!(ask("DELETE", "/books").await?, Some(403));
        stage.strike().await
    });
}

#[test]
fn a_rule_whose_route_is_missing_allows_nothing_until_it_is_there() {
    cluster::under_access_control(|cluster| async move {
        let stage = scene::access(&cluster, "e2e-smi-missing-route").await?;
        let target = target("alice", &["alice"], "api", &[rule("HTTPRouteGroup", "later")]);
        stage.apply([&target]).await?;
        smi::verdict(&cluster, &stage.ns, &target, smi::REJECTED).await?;
        let (kind, message) = smi::told(&cluster, &stage.ns, &target, smi::REJECTED, "later").await?;
        assert_eq!(kind, "Warning", "{message}");
        stage.answers("alice", "api", "/", &[], 403).await?;
        let later = group("later", &json!([{ "name": "all", "pathRegex": ".*" }]));
        stage.apply([&later]).await?;
        stage.answers("alice", "api", "/", &[], 200).await?;
        smi::verdict(&cluster, &stage.ns, &target, smi::ACCEPTED).await?;
        // What cannot be understood is no rule, either.
        stage.apply(&[group("later", &json!([{ "name": "all", "pathRegex": "(" }]))]).await?;
        stage.answers("alice", "api", "/", &[], 403).await?;
        let why = smi::verdict(&cluster, &stage.ns, &target, smi::REJECTED).await?;
        assert!(why.contains("pathRegex"), "{why}");
        stage.strike().await
    });
}
