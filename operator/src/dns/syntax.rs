//! What a Corefile says, as far as it matters to us. Reading is tolerant: what is not understood is passed over, since the
//! server that runs it is the judge, and nothing is ever written from what is read here but addresses.

/// A Corefile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Corefile<'a> {
    /// Its server blocks.
    pub servers: Vec<Server<'a>>,
    /// What it imports outside of server blocks.
    pub imports: Vec<&'a str>,
    /// Whether its last server block goes on to the end: it has no braces, as a single one need not, or they are not closed.
    pub open_end: bool,
}

/// A server block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server<'a> {
    /// What it serves, as it is written: `cluster.local:53`.
    pub keys: Vec<&'a str>,
    /// Its plugins, each with its arguments, but not what is in braces behind them.
    pub plugins: Vec<Vec<&'a str>>,
}

impl<'a> Corefile<'a> {
    /// Reads `text`.
    pub fn read(text: &'a str) -> Self {
        let mut corefile = Self::default();
        let mut depth = 0_usize;
        let mut keys: Vec<&'a str> = Vec::new();
        // Whether more keys may follow on the next line.
        let mut more = false;
        // The server block that is being read. `None` in a snippet, which is passed over.
        let mut server: Option<Server<'a>> = None;
        for words in text.lines().map(words) {
            if depth == 0 && !keys.is_empty() && !more && words.first().is_some_and(|word| *word != "{") {
                // What follows are plugins.
                corefile.open_end = true;
            }
            let importing = depth == 0 && keys.is_empty() && words.first() == Some(&"import");
            if let (true, [_, what]) = (importing, words.as_slice()) {
                corefile.imports.push(*what);
                continue;
            }
            // Whether the next word is a plugin's name: it begins a line or a block.
            let mut begins = true;
            for word in words {
                match word {
                    "{" => {
                        if depth == 0 {
                            let keys = std::mem::take(&mut keys);
                            let snippet = keys.first().is_some_and(|key| key.starts_with('('));
                            server = (!snippet).then(|| Server { keys, plugins: Vec::new() });
                        }
                        depth += 1;
                        begins = true;
                    }
                    "}" => {
                        depth = depth.saturating_sub(1);
                        if depth == 0 {
                            corefile.servers.extend(server.take());
                        }
                        begins = true;
                    }
                    _ if depth == 0 => {
                        keys.extend(word.split(',').filter(|key| !key.is_empty()));
                        more = word.ends_with(',');
                    }
                    _ if depth == 1 => {
                        if let Some(server) = &mut server {
                            server.take(word, begins);
                        }
                        begins = false;
                    }
                    _ => {}
                }
            }
        }
        corefile.open_end |= depth > 0 || !keys.is_empty();
        corefile.servers.extend(server);
        corefile
    }

    /// Whether one of its server blocks serves just `zone`.
    pub fn serves(&self, zone: &str) -> bool {
        self.servers.iter().any(|server| server.serves(zone))
    }

    /// Whether a plugin is there, in whichever server block.
    pub fn has(&self, plugin: &str) -> bool {
        self.servers.iter().any(|server| server.plugin(plugin).is_some())
    }

    /// The server block that answers for `zone`: the one with the longest zone that `zone` lies in.
    pub fn server_of(&self, zone: &str) -> Option<&Server<'a>> {
        let within = |key: &str| -> Option<usize> {
            let of = zone_of(key)?;
            let lies_in = of == "." || of == zone || zone.ends_with(&format!(".{of}"));
            lies_in.then_some(if of == "." { 0 } else { of.len() })
        };
        let length = |server: &Server<'_>| server.keys.iter().filter_map(|key| within(key)).max();
        let found = self.servers.iter().filter_map(|server| Some((length(server)?, server)));
        // The first of several that are alike.
        found
            .fold(None, |best: Option<(usize, &Server<'a>)>, new| match best {
                Some(best) if best.0 >= new.0 => Some(best),
                _ => Some(new),
            })
            .map(|(_, server)| server)
    }

    /// The zones that its `kubernetes` plugins serve, those of addresses left out.
    pub fn cluster_domains(&self) -> Vec<String> {
        let mut domains = Vec::new();
        for server in &self.servers {
            let Some(arguments) = server.plugin("kubernetes") else { continue };
            let of_the_block: Vec<_> =
                if arguments.is_empty() { server.keys.clone() } else { arguments.to_vec() };
            let zones: Vec<_> = of_the_block.iter().filter_map(|key| zone_of(key)).collect();
            // One from the environment, `{$NAME}`, may be any.
            if zones.iter().any(|zone| zone.contains('{')) {
                continue;
            }
            let of_addresses = |zone: &str| zone.rsplit('.').next() == Some("arpa") || zone.contains('/');
            domains.extend(zones.into_iter().filter(|zone| !of_addresses(zone)));
        }
        domains
    }

    /// The port that pods' questions come to: that of the cluster's own server block.
    pub fn port(&self) -> u16 {
        let cluster = self.servers.iter().find(|server| server.plugin("kubernetes").is_some());
        let server = cluster.or_else(|| self.servers.iter().find(|server| server.serves(".")));
        server.map_or(DEFAULT_PORT, Server::port)
    }
}

/// The port of a server block that names none.
const DEFAULT_PORT: u16 = 53;

impl<'a> Server<'a> {
    fn take(&mut self, word: &'a str, begins: bool) {
        match self.plugins.last_mut().filter(|_| !begins) {
            Some(plugin) => plugin.push(word),
            None => self.plugins.push(vec![word]),
        }
    }

    /// The arguments of the first plugin of this name.
    pub fn plugin(&self, name: &str) -> Option<&[&'a str]> {
        self.plugins.iter().find(|plugin| plugin.first() == Some(&name)).map(|plugin| &plugin[1..])
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        let plain = |key: &&&str| zone_of(key).is_some();
        self.keys.iter().find(plain).and_then(|key| port_of(key)).unwrap_or(DEFAULT_PORT)
    }

    fn serves(&self, zone: &str) -> bool {
        self.keys.iter().any(|key| zone_of(key).as_deref() == Some(zone))
    }
}

/// The zone of a key, in lower case and without the dot at its end. `None`: it is not served over plain DNS.
fn zone_of(key: &str) -> Option<String> {
    let plain = key.strip_prefix("dns://").unwrap_or(key);
    if plain.contains("://") {
        return None;
    }
    let zone = match plain.rsplit_once(':') {
        Some((zone, port)) if port.parse::<u16>().is_ok() => zone,
        _ => plain,
    };
    let zone = zone.to_ascii_lowercase();
    Some(if zone == "." { zone } else { zone.strip_suffix('.').unwrap_or(&zone).to_owned() })
}

fn port_of(key: &str) -> Option<u16> {
    key.rsplit_once(':')?.1.parse().ok()
}

/// The words of a line, without its comment. Within quotes `\"` is a quote.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, behind) = if let Some(quoted) = rest.strip_prefix('"') {
            let ends = |(at, _): &(usize, &str)| !quoted[..*at].ends_with('\\');
            let end = quoted.match_indices('"').find(ends).map(|(at, _)| at);
            end.map_or((quoted, ""), |end| (&quoted[..end], &quoted[end + 1..]))
        } else {
            rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()))
        };
        words.push(word);
        rest = behind.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# first\n(snippet) {\n    errors # not a server\n}\n\ndns://Corp.example.:53, lab.example {\n    forward . 192.0.2.53 {\n        force_tcp\n    }\n    log \"a {\" b\n}\n\n.:1053 cluster.local {\n    kubernetes corp.local in-addr.arpa ip6.arpa {\n        ttl 30\n    }\n    bind 10.0.0.1 fd00::1\n    import snippet\n    reload 3s\n}\ntls://secret.example {\n    whoami\n}\nimport custom/*.server";

    #[test]
    fn servers_plugins_and_imports() {
        let corefile = Corefile::read(TEXT);
        assert_eq!(corefile.imports, ["custom/*.server"]);
        assert_eq!(corefile.servers.len(), 3, "the snippet is none: {corefile:#?}");
        assert!(corefile.serves("corp.example") && corefile.serves("lab.example"));
        assert!(!corefile.serves("example") && !corefile.serves("secret.example"));
        assert!(corefile.has("reload") && !corefile.has("force_tcp") && !corefile.has("snippet"));
        assert_eq!(corefile.port(), 1053);
        assert_eq!(corefile.cluster_domains(), ["corp.local"]);
        assert_eq!(
            corefile.servers[0].plugins,
            [vec!["forward", ".", "192.0.2.53"], vec!["log", "a {", "b"]]
        );
        let of = |zone| corefile.server_of(zone).and_then(|server| server.plugin("bind"));
        assert_eq!(of("svc.cluster.local"), Some(["10.0.0.1", "fd00::1"].as_slice()));
        assert_eq!(of("a.corp.example"), None, "the longest zone answers");
    }

    #[test]
    fn keys_are_read_as_coredns_reads_them() {
        for (key, zone, port) in [
            (".", Some("."), None),
            (".:53", Some("."), Some(53)),
            ("Weft.Mesh.:5353", Some("weft.mesh"), Some(5353)),
            ("dns://weft.mesh", Some("weft.mesh"), None),
            ("tls://weft.mesh:853", None, Some(853)),
            ("2001:db8::/32", Some("2001:db8::/32"), None),
        ] {
            assert_eq!((zone_of(key).as_deref(), port_of(key)), (zone, port), "{key}");
        }
    }

    #[test]
    fn what_is_no_corefile_says_nothing() {
        for text in ["", "}}}", "{", "a b c", "import", "\u{feff}", ".:53 {", "# only words"] {
            let corefile = Corefile::read(text);
            assert_eq!((corefile.port(), corefile.cluster_domains().len()), (53, 0), "{text}");
        }
    }

    #[test]
    fn what_is_added_at_the_end_of_some_corefiles_would_be_theirs() {
        for closed in [
            TEXT,
            "",
            "# nothing\n",
            "a.test { whoami }",
            "a.test,\nb.test {\n    whoami\n}\n",
            "a.test\n{\n    whoami\n}\n",
            ".:53 {\n    template IN TXT {\n        answer \"{{ .Name }} TXT \\\" { \\\"\"\n    }\n}\n",
        ] {
            assert!(!Corefile::read(closed).open_end, "{closed}");
        }
        for open in [
            ".:53\nerrors\nforward . 192.0.2.1\n",
            ".:53\nforward . 192.0.2.1 {\n    force_tcp\n}\n",
            ".:53",
            ".:53 {\n    errors\n",
            "(snippet) {\n    errors\n}\n.:53\nimport snippet",
            ".:53 {\n    forward . 192.0.2.1 {\n    errors\n}\n",
        ] {
            assert!(Corefile::read(open).open_end, "{open}");
        }
    }

    #[test]
    fn a_zone_from_the_environment_may_be_any() {
        for text in [
            ".:53 {\n    kubernetes {$CLUSTER_DOMAIN} corp.local in-addr.arpa\n}\n",
            "{$CLUSTER_DOMAIN}:53 {\n    kubernetes\n}\n",
        ] {
            assert_eq!(Corefile::read(text).cluster_domains(), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_block_in_one_line_is_a_block() {
        let corefile =
            Corefile::read("a.test { whoami }\nb.test:54 { forward . 192.0.2.1 { force_tcp } }\nimport x\n");
        assert!(corefile.serves("a.test") && corefile.serves("b.test") && corefile.has("whoami"));
        assert_eq!(corefile.imports, ["x"]);
    }

    #[test]
    fn a_block_without_zones_of_its_own_takes_the_servers() {
        assert_eq!(Corefile::read("corp.local:53 {\n    kubernetes\n}\n").cluster_domains(), ["corp.local"]);
    }
}
