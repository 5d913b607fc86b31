//! Corefiles that people have, and what becomes of them: added and removed byte for byte, and read rightly.
//!
//! Each was written down from what its source says (November 2026), with addresses of examples. A CoreDNS quirk is a file here.

use std::collections::BTreeMap;

use super::corefile;
use super::syntax::Corefile;

/// Its name, where it is from, and its text.
const ALL: [(&str, &str, &str); 21] = [
    ("kubeadm", "kubeadm 1.28 to 1.32", include_str!("kubeadm.Corefile")),
    ("kubeadm-2019", "kubeadm 1.14 and 1.15, CoreDNS 1.3.1", include_str!("kubeadm-2019.Corefile")),
    ("kind", "kind, which is kubeadm 1.33 and later", include_str!("kind.Corefile")),
    ("minikube", "minikube 1.35, with the host's name", include_str!("minikube.Corefile")),
    ("k3s", "k3s 1.28 and later: imports by absolute paths", include_str!("k3s.Corefile")),
    ("rke2", "RKE2's chart: spaces at ends of lines, no line feed at the end", include_str!("rke2.Corefile")),
    ("helm-chart", "CoreDNS' own chart: no line feed at the end", include_str!("helm-chart.Corefile")),
    ("eks", "the EKS add-on", include_str!("eks.Corefile")),
    ("aks", "AKS: imports by relative paths", include_str!("aks.Corefile")),
    ("digitalocean", "DigitalOcean, by its documentation", include_str!("digitalocean.Corefile")),
    ("ovh", "OVHcloud's documentation", include_str!("ovh.Corefile")),
    ("gardener", "Gardener: a port of its own", include_str!("gardener.Corefile")),
    ("kops", "kOps: a dot behind the cluster's domain", include_str!("kops.Corefile")),
    ("kubespray", "Kubespray", include_str!("kubespray.Corefile")),
    ("microk8s", "MicroK8s' dns add-on", include_str!("microk8s.Corefile")),
    ("openshift", "OpenShift's dns-default: a port of its own", include_str!("openshift.Corefile")),
    (
        "nodelocaldns-upstream",
        "Kubernetes' NodeLocal DNSCache",
        include_str!("nodelocaldns-upstream.Corefile"),
    ),
    (
        "nodelocaldns-kubespray",
        "Kubespray's NodeLocal DNSCache",
        include_str!("nodelocaldns-kubespray.Corefile"),
    ),
    ("stub-zones", "by hand: stub zones around, a snippet, comments", include_str!("stub-zones.Corefile")),
    ("windows", "by hand, on Windows", include_str!("windows.Corefile")),
    ("empty", "nobody's", ""),
];

const MESH: &str = "weft-system";
const BLOCK: &str = "weft.mesh:53 {\n    errors\n}\n";

#[test]
fn our_block_comes_and_goes_byte_for_byte() {
    for (name, source, text) in ALL {
        let with = corefile::edit(text, MESH, Some(BLOCK)).unwrap();
        assert_eq!(corefile::inner(&with, MESH), Some(BLOCK), "{name} ({source})");
        assert!(with.starts_with(text), "{name}: nothing before it changes");
        assert_eq!(corefile::edit(&with, MESH, None).unwrap(), text, "{name}");
        assert_eq!(corefile::edit(&with, MESH, Some(BLOCK)).unwrap(), with, "{name}: at rest");
        let renamed = corefile::edit(&with, MESH, Some("other.mesh:53 {\n}\n")).unwrap();
        assert_eq!(corefile::edit(&renamed, MESH, None).unwrap(), text, "{name}: after a change");
    }
}

/// How the block is set off, where it is not as in the others.
#[test]
fn the_ends_of_files_that_have_no_line_feed() {
    let mut text = String::new();
    for (name, _, corefile) in ALL.iter().filter(|(_, _, text)| !text.ends_with('\n')) {
        let with = corefile::edit(corefile, MESH, Some(BLOCK)).unwrap();
        let lines: Vec<_> = with.split_inclusive('\n').collect();
        let end = lines[lines.len().saturating_sub(6)..].concat();
        text += &format!("== {name}\n{}", end.replace('\r', "<CR>"));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_they_say_is_read_rightly() {
    let mut text = String::new();
    for (name, source, corefile) in ALL {
        let read = Corefile::read(corefile);
        let servers: Vec<_> = read.servers.iter().map(|server| server.keys.join(" ")).collect();
        let bind = read.server_of("cluster.local").and_then(|server| server.plugin("bind"));
        let facts: BTreeMap<_, _> = [
            ("servers", servers.join(", ")),
            ("imports", read.imports.join(" ")),
            ("cluster", read.cluster_domains().join(" ")),
            ("port", read.port().to_string()),
            ("reloads", read.has("reload").to_string()),
            ("bind", bind.unwrap_or_default().join(" ")),
        ]
        .into();
        let facts: Vec<_> =
            facts.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}: {v}\n")).collect();
        text += &format!("== {name}: {source}\n{}", facts.concat());
    }
    insta::assert_snapshot!(text);
}
