//! Splits of some requests only: those that a route group matches; the others go to the root.

use serde_json::json;
use weft_tests::cluster;
use weft_tests::smi::{self, group, split_where};

use crate::scene::{self, settles};

#[test]
fn requests_that_match_are_split_and_the_others_go_to_the_root() {
    cluster::side_by_side(|cluster| async move {
        let stage = scene::split(&cluster, "e2e-smi-canary").await?;
        let matches = json!([
            { "name": "firefox", "headers": [{ "user-agent": ".*Firefox.*" }] },
            { "name": "beta", "pathRegex": "/beta", "methods": ["GET"] },
        ]);
        let canary = split_where("canary", "web", &[("v1", 0), ("v2", 1)], "canary");
        stage.apply(&[group("canary", &matches), canary.clone()]).await?;
        let firefox = ["--header", "User-Agent: Mozilla/5.0 Firefox/140"];
        settles(&stage, "web", &firefox, &["v2"]).await?;
        settles(&stage, "web", &[], &["web"]).await?;
        for (path, args, app) in [
            ("/beta/2", &[][..], "v2"),
            ("/beta/2", &["--h2c"], "v2"),
            ("/beta/2", &["--method", "POST"], "web"),
            ("/alpha/beta", &[], "web"),
            ("/", &["--header", "User-Agent: curl"], "web"),
        ] {
            let answer = stage.get("web", path, args).await?;
            assert_eq!((answer.status, answer.told("app")), (Some(200), app), "{path} {args:?}: {answer:?}");
        }
        // Several matches are alternatives; one that is gone divides no longer.
        stage.apply(&[group("canary", &json!([{ "name": "beta", "pathRegex": "/beta" }]))]).await?;
        settles(&stage, "web", &firefox, &["web"]).await?;

        // Of a group that is not there no request is split, rather than every one.
        stage.delete(&group("canary", &json!([]))).await?;
        smi::verdict(&cluster, &stage.ns, &canary, smi::REJECTED).await?;
        smi::told(&cluster, &stage.ns, &canary, smi::REJECTED, "canary").await?;
        for path in ["/", "/beta"] {
            assert_eq!(stage.get("web", path, &[]).await?.told("app"), "web", "{path}");
        }
        stage.strike().await
    });
}
