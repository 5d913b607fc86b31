//! What stands in our block: one server block for each mesh domain.
//!
//! A mesh name is rewritten to the name of its shadow Service, the answer back to the mesh name; the rewritten query goes to
//! the cluster's own DNS Service, so CoreDNS keeps one view of the cluster's Services, not two.

use std::fmt::Write;

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

    fn server(&self, text: &mut String, domain: &str) -> std::fmt::Result {
        let services = format!("{}.svc.{}", self.namespace, self.cluster_domain);
        writeln!(text, "{domain}:53 {{")?;
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

fn exact(text: &mut String, from: &str, to: &str) -> std::fmt::Result {
    writeln!(text, "    rewrite stop {{")?;
    writeln!(text, "        name exact {from} {to}")?;
    writeln!(text, "        answer name {} {from}", escape(to))?;
    writeln!(text, "    }}")
}

fn escape(name: &str) -> String {
    name.replace('.', "\\.")
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
            exact: &exact,
        };
        insta::assert_snapshot!(block.render());
    }
}
