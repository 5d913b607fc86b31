//! What stands in our block: one server block for each mesh domain.
//!
//! In CoreDNS a mesh name is rewritten to the name of its shadow Service, the answer back to the mesh name; the rewritten query
//! goes to the cluster's own DNS Service, so CoreDNS keeps one view of the cluster's Services, not two. In a NodeLocal
//! DNSCache a mesh name is passed on to the cluster's DNS, as a name of the cluster is.
//!
//! Only what every CoreDNS since 1.3 understands in the same way is used ([`super::version`]).

use std::fmt::{Result, Write};

use super::syntax::Corefile;
use crate::names::SEPARATOR;

/// The name below each mesh domain by which the operator sees that a DNS pod has the block.
pub const CHECK: &str = "dns-check";

/// What the block is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block<'a> {
    /// The mesh domains.
    pub domains: &'a [String],
    /// The cluster's domain.
    pub cluster_domain: &'a str,
    /// Our namespace.
    pub namespace: &'a str,
    /// Address of the cluster's DNS Service.
    pub dns_service: &'a str,
    /// The port on which the DNS pods listen.
    pub port: u16,
    /// (Service, namespace, shadow) of shadows that the rule does not find; sorted by the caller.
    pub exact: &'a [(String, String, String)],
}

impl Block<'_> {
    /// The lines, each ended by a line feed.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for domain in self.domains {
            // Writing to a String cannot fail.
            let _ = self.server(&mut text, domain);
        }
        text
    }

    fn server(&self, text: &mut String, domain: &str) -> Result {
        let services = format!("{}.svc.{}", self.namespace, self.cluster_domain);
        writeln!(text, "{domain}:{} {{", self.port)?;
        writeln!(text, "    errors")?;
        let check = format!("kubernetes.default.svc.{}", self.cluster_domain);
        exact(text, &format!("{CHECK}.{domain}"), &check)?;
        for (service, namespace, shadow) in self.exact {
            exact(text, &format!("{service}.{namespace}.{domain}"), &format!("{shadow}.{services}"))?;
        }
        let (domain_re, services_re) = (escape(domain), escape(&services));
        writeln!(text, "    rewrite stop {{")?;
        writeln!(
            text,
            "        name regex ^([a-z0-9-]+)\\.([a-z0-9-]+)\\.{domain_re}\\.$ {{1}}{SEPARATOR}{{2}}.{services}"
        )?;
        writeln!(
            text,
            "        answer name ^([a-z0-9-]+){SEPARATOR}([a-z0-9-]+)\\.{services_re}\\.$ {{1}}.{{2}}.{domain}"
        )?;
        writeln!(text, "    }}")?;
        // Whatever is left is no mesh name. Sent on as it is, it would come back here for ever; under this name the
        // cluster's DNS says that it does not exist.
        writeln!(text, "    rewrite stop name regex .* no-such-name.{services}")?;
        writeln!(text, "    forward {} {}", self.cluster_domain, self.dns_service)?;
        writeln!(text, "}}")
    }
}

/// The answer is rewritten back without being asked to, and before CoreDNS 1.8.4 nothing else may be asked for.
fn exact(text: &mut String, from: &str, to: &str) -> Result {
    writeln!(text, "    rewrite stop name exact {from} {to}")
}

fn escape(name: &str) -> String {
    name.replace('.', "\\.")
}

/// The block for a NodeLocal DNSCache with this Corefile: mesh names go where names of the cluster go, by the same addresses.
/// `None`: it does not pass names of the cluster on.
pub fn of_node_cache(cache: &Corefile<'_>, domains: &[String], cluster_domain: &str) -> Option<String> {
    let cluster = cache.server_of(cluster_domain)?;
    let [_, upstream @ ..] = cluster.plugin("forward")? else { return None };
    if upstream.is_empty() {
        return None;
    }
    let mut text = String::new();
    for domain in domains {
        let _ = passed_on(&mut text, domain, cluster.port(), cluster.plugin("bind"), upstream);
    }
    Some(text)
}

/// Nothing is cached here: CoreDNS is near, and a Service that is new must not be missing for longer than it has to.
fn passed_on(text: &mut String, domain: &str, port: u16, bind: Option<&[&str]>, upstream: &[&str]) -> Result {
    writeln!(text, "{domain}:{port} {{")?;
    writeln!(text, "    errors")?;
    if let Some(addresses) = bind {
        writeln!(text, "    bind {}", addresses.join(" "))?;
    }
    writeln!(text, "    forward . {} {{", upstream.join(" "))?;
    writeln!(text, "        force_tcp")?;
    writeln!(text, "    }}")?;
    writeln!(text, "}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_for_each_domain() {
        let domains = ["weft.mesh".to_owned(), "traefik.mesh".to_owned()];
        let exact = [("a-weft-b".to_owned(), "shop".to_owned(), "weft-0123".to_owned())];
        let block = Block {
            domains: &domains,
            cluster_domain: "cluster.local",
            namespace: "weft-system",
            dns_service: "10.96.0.10",
            port: 53,
            exact: &exact,
        };
        insta::assert_snapshot!(block.render());
        let elsewhere = Block { cluster_domain: "k8s.corp.example", ..block };
        let expected = block.render().replace("cluster.local", "k8s.corp.example");
        assert_eq!(elsewhere.render(), expected.replace(r"cluster\.local", r"k8s\.corp\.example"));
        assert!(elsewhere.render().contains(".weft-system.svc.k8s.corp.example"));
    }

    #[test]
    fn a_node_cache_passes_mesh_names_on_as_it_does_names_of_the_cluster() {
        let domains = ["weft.mesh".to_owned()];
        let upstream = Corefile::read(include_str!("corefiles/nodelocaldns-upstream.Corefile"));
        let kubespray = Corefile::read(include_str!("corefiles/nodelocaldns-kubespray.Corefile"));
        let text = ["upstream", "kubespray"].into_iter().zip([upstream, kubespray]).map(|(title, cache)| {
            format!("== {title}\n{}", of_node_cache(&cache, &domains, "cluster.local").unwrap())
        });
        insta::assert_snapshot!(text.collect::<String>());
        let own = Corefile::read(".:53 {\n    kubernetes cluster.local\n}\n");
        assert_eq!(of_node_cache(&own, &domains, "cluster.local"), None, "it asks nobody");
    }
}
