//! Mesh domains that would hide names which must go on to work are refused when they are written.

use serde_json::json;
use weft_tests::{cluster, mesh};

#[test]
fn a_mesh_domain_that_would_hide_other_names_is_refused() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let everybodys = "a mesh domain is one that everybody uses";
        let cases = [
            (json!({ "domains": ["cluster.local"] }), "overlaps the cluster domain cluster.local"),
            (json!({ "domains": ["svc.cluster.local"] }), "overlaps the cluster domain cluster.local"),
            (
                json!({ "domains": ["corp"], "clusterDomain": "k8s.corp" }),
                "overlaps the cluster domain k8s.corp",
            ),
            (json!({ "domains": ["weft.mesh", "local"] }), "overlaps the cluster domain cluster.local"),
            (json!({ "domains": ["local"], "clusterDomain": "corp.example" }), everybodys),
            (json!({ "domains": ["com"] }), everybodys),
            (json!({ "domains": ["de"] }), everybodys),
            (json!({ "domains": ["svc"] }), everybodys),
            (json!({ "domains": ["in-addr.arpa"] }), everybodys),
            (json!({ "domains": ["10.in-addr.arpa"] }), everybodys),
        ];
        for (spec, sentence) in cases {
            let mut object = mesh::meshconfig();
            object["metadata"]["name"] = json!("nonsense");
            object["spec"] = spec.clone();
            let refused = mesh::apply_meshconfig(&cluster, &object).await;
            let error = refused.expect_err(&format!("{spec} was accepted")).to_string();
            assert!(error.contains(sentence), "{spec} was refused, but not with `{sentence}`: {error}");
        }
        Ok(())
    });
}
