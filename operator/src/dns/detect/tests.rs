use std::collections::BTreeMap;

use super::super::facts::Mount;
use super::super::stubs::Resolver;
use super::*;

const KUBEADM: &str = include_str!("../corefiles/kubeadm.Corefile");
const K3S: &str = include_str!("../corefiles/k3s.Corefile");
const AKS: &str = include_str!("../corefiles/aks.Corefile");
const OPENSHIFT: &str = include_str!("../corefiles/openshift.Corefile");
const NODE_CACHE: &str = include_str!("../corefiles/nodelocaldns-upstream.Corefile");

const RESOLVER: [u8; 4] = [10, 96, 0, 77];

/// A cluster with nothing but the Service kube-dns.
fn bare() -> Facts {
    Facts {
        domains: vec!["weft.mesh".into(), "traefik.mesh".into()],
        cluster_domain: "cluster.local".into(),
        mesh: "weft-system".into(),
        resolver: Resolver { now: Some(RESOLVER.into()), before: None },
        services: [("kube-dns".to_owned(), [10, 96, 0, 10].into())].into(),
        ..Facts::default()
    }
}

/// The same with pods of the Deployment `name` behind it.
fn with(mut facts: Facts, name: &str, image: &str, mounts: &[(&str, &str, bool)]) -> Facts {
    let mounts = mounts.iter().map(|(config_map, path, whole)| Mount {
        config_map: (*config_map).into(),
        path: (*path).into(),
        whole: *whole,
    });
    let workload = Workload { images: vec!["sidecar:1".into(), image.into()], mounts: mounts.collect() };
    facts.workloads.insert(name.into(), workload);
    facts.behind.insert(name.into());
    facts
}

fn maps(mut facts: Facts, maps: &[(&str, &str, &str)]) -> Facts {
    for (name, key, value) in maps {
        facts.config_maps.entry((*name).into()).or_default().insert((*key).into(), (*value).into());
    }
    facts
}

fn kubeadm(image: &str) -> Facts {
    let facts = with(bare(), "coredns", image, &[("coredns", "/etc/coredns", false)]);
    maps(facts, &[("coredns", COREFILE, KUBEADM)])
}

fn summary(facts: &Facts) -> String {
    match detect(facts) {
        Ok(found) => {
            let told = found.told();
            let port = if let Server::CoreDns { port, .. } = found.server {
                format!(" port {port}")
            } else {
                String::new()
            };
            let service = format!("{}/{}", found.service.0, found.service.1);
            format!("{} {:?}{port} by {service}; {}", told.provider, told.version, found.places(&facts.mesh))
        }
        Err(error) => error.to_string(),
    }
}

/// A title, and a cluster.
type Case = (&'static str, Facts);

const CUSTOM_MOUNTS: [(&str, &str, bool); 2] =
    [("coredns", "/etc/coredns", false), (CUSTOM, "/etc/coredns/custom", true)];

fn k3s(image: &str) -> Facts {
    maps(with(bare(), "coredns", image, &CUSTOM_MOUNTS), &[("coredns", COREFILE, K3S)])
}

fn node_cache(facts: Facts) -> Facts {
    maps(facts, &[("node-local-dns", COREFILE, NODE_CACHE)])
}

/// The same with a DaemonSet that reads kube-dns's stub domains.
fn reads_stubs(facts: Facts) -> Facts {
    let mounts = [("kube-dns", "/etc/kube-dns", true), ("node-local-dns", "/etc/coredns", false)];
    let behind = facts.behind.clone();
    Facts { behind, ..with(node_cache(facts), "node-local-dns", "k8s-dns-node-cache:1.26.4", &mounts) }
}

fn with_core_dns() -> Vec<Case> {
    let rke2 = with(
        Facts {
            services: [("rke2-coredns-rke2-coredns".to_owned(), [10, 43, 0, 10].into())].into(),
            ..bare()
        },
        "rke2-coredns-rke2-coredns",
        "rancher/hardened-coredns:v1.12.3-build20250806",
        &[("rke2-coredns-rke2-coredns", "/etc/coredns", false)],
    );
    let image = "mcr.microsoft.com/oss/kubernetes/coredns:v1.9.4-hotfix.20240704";
    let aks = with(bare(), "coredns", image, &CUSTOM_MOUNTS);
    let aks = maps(aks, &[("coredns", COREFILE, AKS), (CUSTOM, "corp.server", "corp.example:53 {\n}\n")]);
    vec![
        ("kubeadm", kubeadm("registry.k8s.io/coredns/coredns:v1.11.3")),
        ("kubeadm of 2019", kubeadm("k8s.gcr.io/coredns:1.3.1")),
        ("kubeadm of 2018, too old", kubeadm("k8s.gcr.io/coredns:1.2.6")),
        ("an image that tells no version", kubeadm("localhost/coredns:local")),
        ("k3s", k3s("rancher/mirrored-coredns-coredns:1.12.3")),
        ("k3s with a CoreDNS that does not see imported files change", k3s("coredns:1.6.0")),
        ("AKS", aks.clone()),
        ("AKS whose Deployment may not be read", Facts { workloads: BTreeMap::new(), ..aks }),
        ("imports that the pods do not see", {
            maps(with(bare(), "coredns", "coredns:1.9.3", &CUSTOM_MOUNTS[..1]), &[("coredns", COREFILE, AKS)])
        }),
        ("RKE2", maps(rke2, &[("rke2-coredns-rke2-coredns", COREFILE, KUBEADM)])),
        ("Helm's chart under another name", {
            let asked = weft_crds::meshconfig::Dns { config_map: "dns-coredns".into(), ..Default::default() };
            maps(Facts { asked, ..bare() }, &[("dns-coredns", COREFILE, KUBEADM)])
        }),
    ]
}

fn with_kube_dns_and_caches() -> Vec<Case> {
    let gke = with(
        bare(),
        "kube-dns",
        "gke.gcr.io/k8s-dns-kube-dns:1.23.0-gke.9",
        &[("kube-dns", "/kube-dns-config", true)],
    );
    vec![
        ("GKE", maps(gke.clone(), &[("kube-dns", "stubDomains", "{}")])),
        ("GKE without its ConfigMap", gke.clone()),
        ("GKE without the chart's Service", Facts { resolver: Resolver::default(), ..gke.clone() }),
        ("GKE with a NodeLocal DNSCache", reads_stubs(gke.clone())),
        ("kube-dns behind a cache that does not read stub domains", node_cache(gke)),
        (
            "CoreDNS with a leftover of kube-dns",
            maps(kubeadm("coredns:1.11.3"), &[("kube-dns", "stubDomains", "{}")]),
        ),
        ("a NodeLocal DNSCache", reads_stubs(kubeadm("coredns:1.11.3"))),
        ("Kubespray's NodeLocal DNSCache", {
            let text = include_str!("../corefiles/nodelocaldns-kubespray.Corefile");
            maps(kubeadm("coredns:1.11.3"), &[("nodelocaldns", COREFILE, text)])
        }),
        ("a NodeLocal DNSCache that has gone", {
            Facts { no_cache: ["node-local-dns".to_owned()].into(), ..node_cache(kubeadm("coredns:1.11.3")) }
        }),
        ("a NodeLocal DNSCache that forwards nothing", {
            maps(kubeadm("coredns:1.11.3"), &[("node-local-dns", COREFILE, ".:53 {\n    cache\n}\n")])
        }),
    ]
}

fn with_openshift() -> Vec<Case> {
    let openshift = Facts { services: BTreeMap::new(), openshift: Some([172, 30, 0, 10].into()), ..bare() };
    vec![
        ("OpenShift", openshift.clone()),
        ("OpenShift, its namespace asked for", {
            let asked =
                weft_crds::meshconfig::Dns { namespace: "openshift-dns".into(), ..Default::default() };
            let services = [("dns-default".to_owned(), [172, 30, 0, 10].into())].into();
            maps(Facts { asked, services, ..openshift.clone() }, &[("dns-default", COREFILE, OPENSHIFT)])
        }),
        ("OpenShift without the chart's Service", Facts { resolver: Resolver::default(), ..openshift }),
    ]
}

fn that_cannot_be_told() -> Vec<Case> {
    vec![
        ("no DNS at all", Facts { services: BTreeMap::new(), ..bare() }),
        ("a Service with nothing that is known behind it", bare()),
        ("a Corefile that may not be read", Facts { forbidden: ["coredns".to_owned()].into(), ..bare() }),
        ("our own namespace", {
            let asked = weft_crds::meshconfig::Dns { namespace: "weft-system".into(), ..Default::default() };
            Facts { asked, ..bare() }
        }),
        (
            "another cluster domain",
            Facts { cluster_domain: "corp.local".into(), ..kubeadm("coredns:1.11.3") },
        ),
        ("a domain that is served already", {
            maps(bare(), &[("coredns", COREFILE, &format!("{KUBEADM}Traefik.mesh.:53 {{\n}}\n"))])
        }),
        ("a domain that is served already in an imported file", {
            maps(k3s("coredns:1.12.3"), &[(CUSTOM, "theirs.server", "weft.mesh {\n    whoami\n}\n")])
        }),
        ("a domain that the cache serves already as a stub", {
            maps(
                reads_stubs(kubeadm("coredns:1.11.3")),
                &[("kube-dns", "stubDomains", "{\"weft.mesh\": [\"192.0.2.1\"]}")],
            )
        }),
        ("a port of its own", {
            maps(bare(), &[("coredns", COREFILE, include_str!("../corefiles/gardener.Corefile"))])
        }),
        ("damaged marks", maps(bare(), &[("coredns", COREFILE, "# END weft.mesh\n.:53 {\n}\n")])),
    ]
}

/// Every cluster that people have, as far as we know them, and what is made of it.
#[test]
fn clusters_of_all_kinds() {
    let all = [with_core_dns(), with_kube_dns_and_caches(), with_openshift(), that_cannot_be_told()];
    let text = all.iter().flatten().map(|(title, facts)| format!("== {title}\n{}\n", summary(facts)));
    insta::assert_snapshot!(text.collect::<String>());
}

#[test]
fn what_is_asked_for_is_not_guessed_at() {
    let both = maps(bare(), &[("coredns", COREFILE, KUBEADM), ("kube-dns", "stubDomains", "{}")]);
    let ask = |provider| {
        let asked = weft_crds::meshconfig::Dns { provider, ..Default::default() };
        detect(&Facts { asked, ..both.clone() }).unwrap().server.to_string()
    };
    assert_eq!(ask(DnsProvider::Auto), "CoreDNS");
    assert_eq!(ask(DnsProvider::CoreDNS), "CoreDNS");
    assert_eq!(ask(DnsProvider::KubeDNS), "KubeDNS");
}

#[test]
fn our_own_lines_are_not_in_our_way() {
    let facts = kubeadm("coredns:1.11.3");
    let block = "weft.mesh:53 {\n}\ntraefik.mesh:53 {\n}\n";
    let own = corefile::edit(KUBEADM, "weft-system", Some(block)).unwrap();
    assert!(detect(&maps(facts.clone(), &[("coredns", COREFILE, &own)])).is_ok());
    let theirs = corefile::edit(KUBEADM, "other-system", Some(block)).unwrap();
    let error = detect(&maps(facts, &[("coredns", COREFILE, &theirs)])).unwrap_err();
    assert!(matches!(error, DetectError::Taken(..)), "the older mesh wins: {error}");
    let key = places::custom_key("weft-system");
    let facts = maps(
        with(bare(), "coredns", "coredns:1.12.3", &CUSTOM_MOUNTS),
        &[("coredns", COREFILE, K3S), (CUSTOM, &key, block)],
    );
    assert!(detect(&facts).is_ok());
}
