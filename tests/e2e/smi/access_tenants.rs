//! Tenants: what is written in one namespace changes nothing for the Services of another, and an address that is not one's own
//! brings its owner's rules with it.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::PostParams;
use serde_json::{Value, json};
use weft_tests::Result;
use weft_tests::cluster::{self, Cluster};
use weft_tests::services::UserService;
use weft_tests::smi::{self, group, ports, rule, split, target};
use weft_tests::stage::Stage;
use weft_tests::traffic::{Answer, get};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::{Server, address_of, pods};

/// A tenant: a server `api`, one more that gets nothing, and a caller `alice`.
async fn tenant(cluster: &Cluster, ns: &str) -> Result<Stage> {
    let servers = ["api", "other"].map(|name| Server::new(name, 1).with_account());
    let services = ["api", "other"].map(|name| UserService::http(name, name));
    let stage = Stage::with_callers(cluster, ns, &servers, &services, &["alice"]).await?;
    // Only this: who calls the other server is denied.
    stage.apply(&[target("alice", &["alice"], "api", &[])]).await?;
    stage.answers("alice", "api", "/", &[], 200).await?.assert_from("api");
    stage.answers("alice", "other", "/", &[], 403).await?;
    Ok(stage)
}

async fn ask(from: &Stage, to: &Stage, service: &str) -> Result<Answer> {
    let answers = get(&from.cluster, from.caller("alice")?, &to.url(service, "/"), &[]).await?;
    answers.into_iter().next().ok_or_else(|| "no answer was printed".into())
}

/// Everyone's traffic is as it was at first.
async fn nothing_has_changed(tenants: &[Stage; 2]) -> Result {
    for (caller, from) in tenants.iter().enumerate() {
        for (owner, to) in tenants.iter().enumerate() {
            let own = caller == owner;
            let (api, other) = (ask(from, to, "api").await?, ask(from, to, "other").await?);
            assert_eq!(api.status, Some(if own { 200 } else { 403 }), "{} to {}: {api:?}", from.ns, to.ns);
            assert_eq!(other.status, Some(403), "{} to {}: {other:?}", from.ns, to.ns);
            if own {
                api.assert_from("api");
                assert_eq!(api.received("x-forwarded-host"), Some(&*to.host("api")), "{api:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn splits_and_routes_of_a_tenant_are_of_its_own_services() {
    cluster::under_access_control(|cluster| async move {
        let tenants =
            [tenant(&cluster, "e2e-smi-tenant-a").await?, tenant(&cluster, "e2e-smi-tenant-b").await?];
        nothing_has_changed(&tenants).await?;
        let [a, b] = &tenants;
        // Names of another's Service, in every way one could think of.
        for (number, service) in [
            format!("api.{}", a.ns),
            format!("{}/api", a.ns),
            format!("api.{}.svc.cluster.local", a.ns),
            format!("api.{}.weft.mesh", a.ns),
        ]
        .iter()
        .enumerate()
        {
            let root = split(&format!("root-{number}"), service, &[("other", 1)]);
            b.apply([&root]).await?;
            let why = smi::verdict(&cluster, &b.ns, &root, smi::REJECTED).await?;
            assert!(why.contains("no Service"), "{why}");
            let backend = split(&format!("backend-{number}"), "other", &[(service, 1)]);
            b.apply([&backend]).await?;
            smi::verdict(&cluster, &b.ns, &backend, smi::REJECTED).await?;
            nothing_has_changed(&tenants).await?;
            b.delete(&backend).await?;
        }
        // Routes of the same names as another's rules refer to: b's target stays without any.
        let rules = [rule("HTTPRouteGroup", "routes"), rule("TCPRoute", "routes")];
        let all = group("routes", &json!([{ "name": "all", "pathRegex": ".*" }]));
        b.apply(&[target("by-routes", &["alice"], "other", &rules)]).await?;
        a.apply(&[all, ports("TCPRoute", "routes", &[])]).await?;
        let by_routes = target("by-routes", &[], "other", &[]);
        smi::verdict(&cluster, &b.ns, &by_routes, smi::REJECTED).await?;
        nothing_has_changed(&tenants).await?;
        let [a, b] = tenants;
        a.strike().await?;
        b.strike().await
    });
}

#[test]
fn a_target_opens_accounts_of_its_own_namespace_only() {
    cluster::under_access_control(|cluster| async move {
        let tenants =
            [tenant(&cluster, "e2e-smi-tenant-c").await?, tenant(&cluster, "e2e-smi-tenant-d").await?];
        let [c, d] = &tenants;
        // Of its own namespace when none is named.
        d.apply(&[target("own", &["alice"], "other", &[])]).await?;
        d.answers("alice", "other", "/", &[], 200).await?;
        assert_eq!(ask(d, c, "other").await?.status, Some(403), "a namesake was opened");
        assert_eq!(ask(c, c, "other").await?.status, Some(403), "a namesake was opened");
        d.delete(&target("own", &[], "", &[])).await?;
        d.answers("alice", "other", "/", &[], 403).await?;

        // Whoever is meant to come in: one's own, the owner's, both.
        let accounts = [d, c].map(|tenant| format!("{}/alice", tenant.ns));
        for account in ["other", "api"] {
            let foreign = target(
                &format!("foreign-{account}"),
                &[&*accounts[0], &accounts[1]],
                &format!("{}/{account}", c.ns),
                &[],
            );
            d.apply([&foreign]).await?;
            smi::verdict(&cluster, &d.ns, &foreign, smi::REJECTED).await?;
            let (kind, _) = smi::told(&cluster, &d.ns, &foreign, smi::REJECTED, &c.ns).await?;
            assert_eq!(kind, "Warning");
            nothing_has_changed(&tenants).await?;
        }
        // The owner may say the same.
        c.apply(&[target("guest", &[&*accounts[0]], "other", &[])]).await?;
        let (url, deadline) = (c.url("other", "/"), weft_tests::wait::seconds(20));
        weft_tests::traffic::reaches(&cluster, d.caller("alice")?, &url, "other", deadline).await?;
        assert_eq!(ask(c, c, "other").await?.status, Some(403), "a namesake was let in");
        let [c, d] = tenants;
        c.strike().await?;
        d.strike().await
    });
}

/// A Service without selector, and the slice with the address it leads to.
fn by_address(name: &str, address: &str) -> (Value, Value) {
    let service =
        json!({ "metadata": { "name": name }, "spec": { "ports": [{ "name": "http", "port": 80 }] } });
    let slice = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
    });
    (service, slice)
}

#[test]
fn anothers_address_behind_ones_own_service_is_still_anothers() {
    cluster::under_access_control(|cluster| async move {
        let tenants =
            [tenant(&cluster, "e2e-smi-tenant-e").await?, tenant(&cluster, "e2e-smi-tenant-f").await?];
        let [e, f] = &tenants;
        let pod = pods(&cluster, &e.ns, "api").await?.pop().ok_or("no pod")?;
        let (service, slice) = by_address("mine", &address_of(&cluster, &e.ns, &pod).await?);
        cluster
            .api::<Service>(&f.ns)
            .create(&PostParams::default(), &serde_json::from_value(service)?)
            .await?;
        cluster
            .api::<EndpointSlice>(&f.ns)
            .create(&PostParams::default(), &serde_json::from_value(slice)?)
            .await?;
        // As much as f can give itself: everything that runs as an account of f's may be called by f's.
        let own = ["api", "other", "default", "mine"];
        for account in own {
            f.apply(&[target(&format!("own-{account}"), &["alice", "default"], account, &[])]).await?;
        }
        f.answers("alice", "other", "/", &[], 200).await?;
        let denied = f.answers("alice", "mine", "/", &[], 403).await?;
        assert!(denied.text().contains("pods of another namespace"), "{denied:?}");
        // Nor as a share of a split.
        f.apply(&[split("mine", "api", &[("mine", 1)])]).await?;
        f.answers("alice", "api", "/", &[], 403).await?;
        // Nor for whom e admits: by e's own Service, not by one that may lead to another port.
        let guest = format!("{}/alice", f.ns);
        e.apply(&[target("guest", &[&guest], "api", &[])]).await?;
        wait::until("e admits f's caller", seconds(30), async || {
            let answer = ask(f, e, "api").await?;
            Ok(Seen::when(answer.status == Some(200), (), || format!("{answer:?}")))
        })
        .await?;
        f.answers("alice", "mine", "/", &[], 403).await?;
        let [e, f] = tenants;
        e.strike().await?;
        f.strike().await
    });
}
