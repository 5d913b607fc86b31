use std::time::Duration;

use proptest::prelude::*;
use weft_config::ServiceId;

use super::*;

fn service(annotations: &[(&str, &str)]) -> ServiceFacts {
    let port = |port, udp| ServicePort { port, name: "".into(), udp };
    ServiceFacts {
        id: ServiceId::new("shop", "cart"),
        uid: "".into(),
        ports: vec![port(80, false), port(53, true)],
        annotations: annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        external_name: false,
        of_a_mesh: false,
        ipv6: false,
        cluster_ip: None,
    }
}

fn of(annotations: &[(&str, &str)]) -> (Settings, Vec<Problem>) {
    Settings::of(&service(annotations), &Settings::default())
}

/// What a Service with one annotation under our prefix is told.
fn problem(key: &str, value: &str) -> String {
    let (settings, problems) = of(&[(&format!("weft.mesh/{key}"), value)]);
    assert_eq!(settings, Settings::default(), "the default holds");
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].to_string()
}

#[test]
fn nothing_asked_nothing_changed() {
    assert_eq!(of(&[]), (Settings::default(), vec![]));
    assert_eq!(of(&[]).0.traffic(&service(&[])), Traffic::default());
}

#[test]
fn ours_wins_then_traefik_mesh_s() {
    let all = [
        ("weft.mesh/scheme", "h2c"),
        ("mesh.traefik.io/scheme", "https"),
        ("maesh.containo.us/scheme", "http"),
    ];
    assert_eq!(of(&all).0.scheme, scheme::Name::H2c);
    assert_eq!(of(&all[2..]).0.scheme, scheme::Name::Http);
    assert_eq!(of(&[("mesh.traefik.io/retry-attempts", "2")]).0.retry_attempts, Some(2));
}

#[test]
fn everything_at_once() {
    let (settings, problems) = of(&[
        ("weft.mesh/scheme", "h2c"),
        ("weft.mesh/retry-attempts", "4"),
        ("weft.mesh/circuit-breaker-expression", "NetworkErrorRatio() > 0.5"),
        ("weft.mesh/ratelimit-average", "100"),
        ("weft.mesh/ratelimit-burst", "200"),
        ("weft.mesh/request-timeout", "1500ms"),
        ("weft.mesh/idle-timeout", "1h"),
        ("weft.mesh/connect-timeout", "2s"),
    ]);
    assert_eq!(problems, vec![]);
    assert_eq!(
        settings.timeouts(),
        Timeouts {
            request: Some(Duration::from_millis(1500)),
            idle: Some(Duration::from_secs(3600)),
            connect: Some(Duration::from_secs(2)),
        }
    );
    let Traffic::Http(policy) = settings.traffic(&service(&[])) else { panic!("not HTTP") };
    assert_eq!(policy.scheme, Scheme::H2c);
    assert_eq!(policy.retry_attempts, Some(4));
    assert_eq!(policy.rate_limit, Some(RateLimit { average: 100, burst: 200 }));
    assert!(policy.circuit_breaker.is_some());
}

#[test]
fn a_bad_value_is_told_with_what_is_allowed() {
    insta::assert_snapshot!(
        [
            problem("traffic-type", "quic"),
            problem("scheme", "ftp"),
            problem("upstream-verify", "maybe"),
            problem("upstream-ca", "-----BEGIN NONSENSE-----"),
            problem("upstream-server-name", "10.0.0.1"),
            problem("retry-attempts", "0"),
            problem("circuit-breaker-expression", "NetworkErrorRatio() >"),
            problem("ratelimit-average", "10"),
            problem("request-timeout", "5"),
            problem("idle-timeout", "25h"),
            problem("retry-attempt", "3"),
            problem("upstream-ca", &"x".repeat(300)),
        ]
        .join("\n")
    );
}

#[test]
fn https_without_an_authority_is_told_and_stays_closed() {
    let (settings, problems) = of(&[("weft.mesh/scheme", "https")]);
    assert!(problems[0].to_string().contains("upstream-ca"), "{problems:?}");
    let Traffic::Http(HttpPolicy { scheme: Scheme::Https(tls), .. }) = settings.traffic(&service(&[])) else {
        panic!("not https")
    };
    assert_eq!(tls, UpstreamTls { server_name: "cart.shop.svc".into(), ..UpstreamTls::default() });
    let (_, problems) = of(&[("weft.mesh/scheme", "https"), ("weft.mesh/upstream-verify", "none")]);
    assert_eq!(problems, vec![]);
}

#[test]
fn an_authority_is_read_from_pem() {
    let certificate = rcgen::generate_simple_self_signed(vec!["ca".into()]).unwrap().cert;
    let pem = certificate.pem();
    let (settings, problems) = of(&[("weft.mesh/scheme", "https"), ("weft.mesh/upstream-ca", &pem)]);
    assert_eq!(problems, vec![]);
    assert_eq!(settings.upstream_tls.authorities, vec![certificate.der().to_vec()]);
}

#[test]
fn the_traffic_type_chooses_the_ports() {
    let carried = |annotations: &[(&str, &str)]| -> Vec<u16> {
        super::carried(&service(annotations), &Settings::default()).map(|port| port.port).collect()
    };
    assert_eq!(carried(&[]), [80]);
    assert_eq!(carried(&[("weft.mesh/traffic-type", "tcp")]), [80]);
    assert_eq!(carried(&[("weft.mesh/traffic-type", "udp")]), [53]);
    assert_eq!(carried(&[("weft.mesh/traffic-type", "quic")]), [80], "a bad value is no value");
    let mut datagrams = service(&[]);
    datagrams.ports.remove(0);
    assert_eq!(Settings::of(&datagrams, &Settings::default()).0.traffic(&datagrams), Traffic::Udp);
}

#[test]
fn a_service_s_own_word_goes_before_the_mesh_s() {
    let spec = serde_json::json!({
        "defaultTrafficType": "tcp",
        "defaults": {
            "retry": {"attempts": 2},
            "circuitBreaker": {"expression": "NetworkErrorRatio() > 0.9"},
            "rateLimit": {"average": 5, "burst": 6},
            "timeouts": {"request": "10s"},
        },
    });
    let (defaults, problems) = Settings::of_mesh(&serde_json::from_value(spec).unwrap());
    assert_eq!(problems, Vec::<String>::new());
    let plain = service(&[]);
    assert_eq!(Settings::of(&plain, &defaults).0, defaults);
    assert_eq!(defaults.traffic(&plain), Traffic::Tcp);
    let own = service(&[("weft.mesh/traffic-type", "http"), ("weft.mesh/request-timeout", "1s")]);
    let (settings, _) = Settings::of(&own, &defaults);
    assert_eq!(settings.timeouts().request, Some(Duration::from_secs(1)));
    assert_eq!(settings.retry_attempts, Some(2));
    assert_eq!(settings.rate_limit, Some(RateLimit { average: 5, burst: 6 }));
}

#[test]
fn what_the_schema_cannot_check_in_the_mesh_is_told() {
    let spec = serde_json::json!({"defaults": {"circuitBreaker": {"expression": "Oops("}}});
    let (settings, problems) = Settings::of_mesh(&serde_json::from_value(spec).unwrap());
    assert_eq!(settings, Settings::default());
    assert!(problems[0].starts_with("spec.defaults.circuitBreaker.expression"), "{problems:?}");
}

#[test]
fn the_documented_table_is_this_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/annotations.md");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(&table()), "docs/annotations.md must contain:\n{}", table());
}

proptest! {
    /// Whatever stands in annotations: no panic, and only what was told of is left out.
    #[test]
    fn any_text_is_read(key in prop::sample::select(ROWS.iter().flat_map(|row| row.annotations).map(|a| a.key).collect::<Vec<_>>()), value in ".{0,60}") {
        let (settings, problems) = of(&[(&format!("weft.mesh/{key}"), &value)]);
        prop_assert!(settings != Settings::default() || !problems.is_empty() || matches!(
            (key, value.as_str()), ("traffic-type" | "scheme", "http") | ("upstream-verify", "full")
        ));
    }
}
