//! Who may do what: strangers get no configuration, the proxies nothing from the API, the operator what it needs; and what
//! nobody can mean is refused.

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use tonic::Code;
use weft_config::contract::{PROXY_SERVICE_ACCOUNT, TOKEN_AUDIENCE};
use weft_tests::cluster;
use weft_tests::mesh::{self, NAMESPACE};
use weft_tests::stream::{hello, token};
use weft_tests::wait::{self, Seen};
use weft_tests::{rights, workloads};

#[test]
fn the_config_stream_turns_strangers_away() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let ns = workloads::namespace(&cluster, "e2e-strangers").await?;
        let account = serde_json::from_value(json!({ "metadata": { "name": PROXY_SERVICE_ACCOUNT } }))?;
        cluster.api::<ServiceAccount>(&ns).create(&PostParams::default(), &account).await?;
        let node = &cluster.nodes[0];
        let proxy = mesh::proxy_on(&cluster, node).await?;

        // A proxy is let in: the refusals below are not because nobody is.
        let own = token(&cluster, NAMESPACE, PROXY_SERVICE_ACCOUNT, TOKEN_AUDIENCE, Some(&proxy)).await?;
        let update = hello(&cluster, Some(&own), node).await?.map_err(|status| status.to_string())?;
        assert!(update.version > 0, "{update:?}");

        let wrong_audience = token(&cluster, NAMESPACE, PROXY_SERVICE_ACCOUNT, "", Some(&proxy)).await?;
        let other_account = token(&cluster, NAMESPACE, "default", TOKEN_AUDIENCE, None).await?;
        let namesake = token(&cluster, &ns, PROXY_SERVICE_ACCOUNT, TOKEN_AUDIENCE, None).await?;
        let forged = format!("{}x", &own[..own.len() - 8]);
        let cases = [
            ("no token", None, node, Code::Unauthenticated),
            ("no token at all in it", Some(""), node, Code::Unauthenticated),
            ("a forged token", Some(&*forged), node, Code::Unauthenticated),
            ("a token for the API server", Some(&wrong_audience), node, Code::Unauthenticated),
            ("a token of another ServiceAccount", Some(&other_account), node, Code::PermissionDenied),
            ("a token of a namesake elsewhere", Some(&namesake), node, Code::PermissionDenied),
            ("a proxy's token for another node", Some(&own), &cluster.nodes[1], Code::PermissionDenied),
        ];
        for (what, token, node, code) in cases {
            match hello(&cluster, token, node).await? {
                Ok(update) => panic!("{what} got the configuration: {update:?}"),
                Err(status) => assert_eq!(status.code(), code, "{what}: {status}"),
            }
        }
        workloads::remove_namespace(&cluster, &ns).await
    });
}

#[test]
fn the_proxies_have_no_rights_and_the_operator_the_golden_ones() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let ns = workloads::namespace(&cluster, "e2e-rights").await?;
        let operator = rights::service_account(NAMESPACE, "weft-operator");
        let mut golden =
            String::from("# What the operator may do, beyond any ServiceAccount. By UPDATE_GOLDEN=1.\n");
        for (place, shown) in
            [(NAMESPACE, NAMESPACE), ("kube-system", "kube-system"), (&*ns, "any other namespace")]
        {
            let nobody = rights::of(&cluster, &rights::service_account(&ns, "default"), place).await?;
            let proxy = rights::service_account(NAMESPACE, PROXY_SERVICE_ACCOUNT);
            let proxy = rights::of(&cluster, &proxy, place).await?;
            assert_eq!(proxy, nobody, "the proxies have rights in {place}");
            golden += &format!("\n{shown}\n");
            let own = rights::of(&cluster, &operator, place).await?;
            for line in own.difference(&nobody) {
                golden += &format!("  {line}\n");
            }
        }
        workloads::remove_namespace(&cluster, &ns).await?;
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/golden/operator-rights.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(file.parent().unwrap())?;
            std::fs::write(&file, &golden)?;
        }
        let written = std::fs::read_to_string(&file)?;
        assert_eq!(golden, written, "the operator's rights are not those of {}", file.display());
        Ok(())
    });
}

#[test]
fn every_pod_of_ours_runs_where_pod_security_restricted_is_enforced() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let ours = cluster
            .all::<Pod>()
            .list(&ListParams::default().labels("app.kubernetes.io/part-of=weft"))
            .await?;
        let places: BTreeSet<_> = ours.iter().map(|pod| pod.namespace().unwrap_or_default()).collect();
        assert_eq!(places, BTreeSet::from([NAMESPACE.to_owned()]));
        let running = ours.iter().filter(|pod| workloads::is_ready(pod)).count();
        assert!(
            running >= cluster.nodes.len() + 2,
            "a proxy on each node and two operators, not {running} pods"
        );
        assert_eq!(
            ours.items.len(),
            cluster.api::<Pod>(NAMESPACE).list(&ListParams::default()).await?.items.len()
        );

        // And it is enforced there.
        let pod = json!({
            "metadata": { "name": "privileged" },
            "spec": { "containers": [{ "name": "c", "image": "x", "securityContext": { "privileged": true } }] },
        });
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let refused = cluster.api::<Pod>(NAMESPACE).create(&dry, &serde_json::from_value(pod)?).await;
        let error = refused.err().ok_or("a privileged pod was admitted")?.to_string();
        assert!(error.contains("violates PodSecurity \"restricted"), "{error}");
        Ok(())
    });
}

#[test]
fn nonsense_in_a_meshconfig_is_refused_with_a_sentence() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let cases = [
            (json!({ "domains": ["Weft.Mesh"] }), "a mesh domain is letters in lower case"),
            (json!({ "domains": ["weft.mesh", "a.weft.mesh"] }), "one mesh domain lies within another"),
            (json!({ "proxy": { "listenPorts": { "from": 20000, "to": 15000 } } }), "swap them"),
            (
                json!({ "proxy": { "listenPorts": { "from": 9900, "to": 9999 } } }),
                "port 9901 is where a proxy answers",
            ),
            (json!({ "namespaces": { "watch": ["shop-*"] } }), "patterns are not understood"),
            (json!({ "proxy": { "resources": { "requests": { "cpu": "lots" } } } }), "requests.cpu"),
        ];
        for (spec, sentence) in cases {
            let mut object = mesh::meshconfig();
            object["metadata"]["name"] = json!("nonsense");
            object["spec"] = spec.clone();
            match mesh::apply_meshconfig(&cluster, &object).await {
                Ok(()) => panic!("{spec} was accepted"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(
                        error.contains(sentence),
                        "{spec} was refused, but not with `{sentence}`: {error}"
                    );
                }
            }
        }
        Ok(())
    });
}

#[test]
fn an_empty_meshconfig_can_be_applied_again_and_a_second_one_is_told_of_the_first() {
    cluster::test(|cluster| async move {
        mesh::installed(&cluster).await?;
        let mut second = mesh::meshconfig();
        second["metadata"]["name"] = json!("second");
        second["spec"] = json!({});
        for _ in 0..3 {
            mesh::apply_meshconfig(&cluster, &second).await?;
        }
        let api = mesh::meshconfigs(&cluster);
        let told = wait::until("the second MeshConfig is told of the first", wait::seconds(20), async || {
            let object = api.get("second").await?;
            let ready = object.data["status"]["conditions"][0].clone();
            Ok(Seen::when(ready["reason"] == "Conflict", ready.clone(), || ready.to_string()))
        })
        .await;
        api.delete("second", &DeleteParams::default()).await?;
        let ready = told?;
        assert_eq!(ready["status"], "False", "{ready}");
        assert!(ready["message"].as_str().is_some_and(|text| text.contains("weft is older")), "{ready}");
        // The first goes on as if nothing had been.
        mesh::ready(&cluster, wait::seconds(20)).await
    });
}
