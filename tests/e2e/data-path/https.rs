//! Backends that speak TLS: their certificate is verified unless the owner says otherwise, and a caller is told why it was not
//! believed.

use serde_json::json;
use weft_tests::certificates::Authority;
use weft_tests::cluster::{self, Cluster};
use weft_tests::services::{self, UserService};
use weft_tests::stage::Stage;
use weft_tests::traffic::{get_until, reaches};
use weft_tests::wait::seconds;
use weft_tests::workloads::{Server, available};
use weft_tests::{Result, debug};

/// A Service for the TLS port of `web`.
fn service(name: &str) -> UserService {
    UserService::new(name, "web").tcp("https", 80, "https").ask("scheme", "https")
}

/// Servers whose certificate, signed by the authority, is for the Service `named` and for `secure.example`.
async fn staged(cluster: &Cluster, ns: &str, authority: &Authority) -> Result<Stage> {
    let stage = Stage::new(cluster, ns, &[], &[]).await?;
    let names = [format!("named.{ns}.svc"), "secure.example".to_owned()];
    authority.issue(cluster, &stage.ns, "web-tls", &names).await?;
    Server::https("web", 2, "web-tls").create(cluster, &stage.ns).await?;
    available(cluster, &stage.ns, "web").await?;
    Ok(stage)
}

#[test]
fn a_certificate_is_believed_only_for_its_name_and_from_its_authority() {
    cluster::side_by_side(|cluster| async move {
        let (authority, stranger) = (Authority::new("lab")?, Authority::new("stranger")?);
        let stage = staged(&cluster, "e2e-https", &authority).await?;
        let (good, bad) = (authority.pem(), stranger.pem());
        let both = format!("{bad}{good}");
        let believed = [
            (service("named").ask("upstream-ca", good), format!("named.{}.svc", stage.ns)),
            (
                service("renamed").ask("upstream-ca", good).ask("upstream-server-name", "secure.example"),
                "secure.example".to_owned(),
            ),
            (
                service("several").ask("upstream-ca", &both).ask("upstream-server-name", "secure.example"),
                "secure.example".to_owned(),
            ),
            (service("unverified").ask("upstream-verify", "none"), format!("unverified.{}.svc", stage.ns)),
            (
                service("unverified-all-the-same").ask("upstream-verify", "none").ask("upstream-ca", bad),
                format!("unverified-all-the-same.{}.svc", stage.ns),
            ),
        ];
        let refused = [
            service("other-authority").ask("upstream-ca", bad).ask("upstream-server-name", "secure.example"),
            service("other-name").ask("upstream-ca", good),
            service("wrong-name").ask("upstream-ca", good).ask("upstream-server-name", "another.example"),
            service("no-authority").ask("upstream-server-name", "secure.example"),
        ];
        for (service, _) in &believed {
            service.create(&cluster, &stage.ns).await?;
        }
        for service in &refused {
            service.create(&cluster, &stage.ns).await?;
        }
        for (service, name) in &believed {
            let url = stage.url(&service.name, "/");
            reaches(&cluster, stage.client(), &url, "web", seconds(30)).await?;
            for form in [&[][..], &["--h2c"], &["--method", "POST", "--body", "1000000"]] {
                let answer = stage.get(&service.name, "/", form).await?;
                answer.assert_from("web");
                assert_eq!(answer.body["tls_name"], json!(name), "{}: {answer:?}", service.name);
                assert_eq!(answer.body["port"], 8443);
                assert_eq!(answer.received("x-forwarded-proto"), Some("http"), "as the client spoke");
            }
        }
        for service in &refused {
            let (name, url) = (&service.name, stage.url(&service.name, "/?key=refused"));
            let answer = get_until(&cluster, stage.client(), &url, "502", seconds(30), |answer| {
                answer.status == Some(502)
            })
            .await?;
            let text = answer.text().to_lowercase();
            assert!(text.contains(&format!("{}/{name}", stage.ns)), "the Service is not named: {text}");
            assert!(text.contains("certificate"), "{name}: the reason is not told: {text}");
        }
        assert_eq!(stage.seen("web", "refused").await?, 0, "a backend that is not believed was asked");
        stage.strike().await
    });
}

#[test]
fn a_corrected_authority_is_used_at_once() {
    cluster::side_by_side(|cluster| async move {
        let (authority, stranger) = (Authority::new("lab")?, Authority::new("stranger")?);
        let stage = staged(&cluster, "e2e-https-corrected", &authority).await?;
        service("named").ask("upstream-ca", stranger.pem()).create(&cluster, &stage.ns).await?;
        let url = stage.url("named", "/");
        get_until(&cluster, stage.client(), &url, "502", seconds(30), |answer| answer.status == Some(502))
            .await?;
        services::ask(&cluster, &stage.ns, "named", "upstream-ca", Some(authority.pem())).await?;
        reaches(&cluster, stage.client(), &url, "web", seconds(10)).await?;
        // And back: connections that were verified before are not used again.
        services::ask(&cluster, &stage.ns, "named", "upstream-ca", Some(stranger.pem())).await?;
        get_until(&cluster, stage.client(), &url, "502", seconds(10), |answer| answer.status == Some(502))
            .await?;
        // Without any authority the owner is told what is missing.
        services::ask(&cluster, &stage.ns, "named", "upstream-ca", None).await?;
        get_until(&cluster, stage.client(), &url, "502", seconds(10), |answer| answer.status == Some(502))
            .await?;
        let view = debug::service(&cluster, &stage.ns, "named").await?;
        assert!(view.problems.iter().any(|problem| problem.message.contains("upstream-ca")), "{view:?}");
        stage.strike().await
    });
}
