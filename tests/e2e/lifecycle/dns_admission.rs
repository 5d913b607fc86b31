//! What would hide names that must go on to work, or leave lines of ours behind, is refused when it is written.

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

#[test]
fn another_place_for_our_lines_is_refused_while_they_may_stand_in_the_first() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        for dns in [json!({ "namespace": "elsewhere" }), json!({ "configMap": "another" })] {
            let mut object = mesh::meshconfig();
            object["spec"]["dns"] = dns.clone();
            let refused = mesh::apply_meshconfig(&cluster, &object).await;
            let error = refused.expect_err(&format!("{dns} was accepted")).to_string();
            assert!(error.contains("set dns.provider to None first"), "{error}");
        }
        Ok(())
    });
}
