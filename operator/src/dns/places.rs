//! The lines of ours in a cluster's `ConfigMaps`: what they are to be, what they are, and what has to be changed. Pure.

use std::collections::BTreeMap;

use super::block::{self, Block};
use super::corefile::{self, CorefileError};
use super::detect::{COREFILE, Cache, Found, Place, STUB_DOMAINS, Server};
use super::facts::{CUSTOM, ConfigMaps, KUBE_DNS};
use super::stubs::{self, Resolver, StubsError};
use super::syntax::Corefile;

/// What is to stand in one `ConfigMap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Between our marks in the Corefile.
    Block(String),
    /// Under our key.
    Key(String),
    /// These domains among the stub domains.
    Stubs(Vec<String>),
}

/// Why a `ConfigMap` is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The Corefile cannot be edited.
    #[error(transparent)]
    Corefile(#[from] CorefileError),
    /// The stub domains cannot be edited.
    #[error(transparent)]
    Stubs(#[from] StubsError),
}

/// The values that change, by their keys; `None`: the key goes.
pub type Edit = BTreeMap<String, Option<String>>;

/// Our key in [`CUSTOM`].
pub fn custom_key(mesh: &str) -> String {
    format!("weft.mesh.{mesh}.server")
}

/// What is to stand where, by the `ConfigMaps`' names. `exact` as in [`Block`].
pub fn wanted(
    found: &Found,
    maps: &ConfigMaps,
    domains: &[String],
    cluster_domain: &str,
    mesh: &str,
    exact: &[(String, String, String)],
) -> BTreeMap<String, Part> {
    let mut parts = BTreeMap::new();
    if domains.is_empty() {
        return parts;
    }
    let block = |port| {
        let dns_service = found.address.to_string();
        Block { domains, cluster_domain, namespace: mesh, dns_service: &dns_service, port, exact }.render()
    };
    match &found.server {
        Server::CoreDns { config_map, place: Place::Corefile, port } => {
            parts.insert(config_map.clone(), Part::Block(block(*port)));
        }
        Server::CoreDns { place: Place::Custom, port, .. } => {
            parts.insert(CUSTOM.to_owned(), Part::Key(block(*port)));
        }
        Server::KubeDns { .. } => {
            parts.insert(KUBE_DNS.to_owned(), Part::Stubs(domains.to_vec()));
        }
        Server::OpenShift { .. } => {}
    }
    if let Some(Cache::Told(name)) = &found.cache {
        let text = maps.get(name).and_then(|data| data.get(COREFILE)).map_or("", String::as_str);
        let rest = corefile::edit(text, mesh, None).unwrap_or_default();
        if let Some(lines) = block::of_node_cache(&Corefile::read(&rest), domains, cluster_domain) {
            parts.insert(name.clone(), Part::Block(lines));
        }
    }
    parts
}

/// What has to be changed in the `ConfigMap` `name` for it to have just `part` of ours.
pub fn edit(
    name: &str,
    data: &BTreeMap<String, String>,
    part: Option<&Part>,
    mesh: &str,
    resolver: Resolver,
) -> Result<Edit, PlaceError> {
    let mut edit = Edit::new();
    if let Some(corefile) = data.get(COREFILE) {
        let block = if let Some(Part::Block(block)) = part { Some(block.as_str()) } else { None };
        edit.insert(COREFILE.to_owned(), Some(corefile::edit(corefile, mesh, block)?));
    }
    let key = if let Some(Part::Key(lines)) = part { Some(lines.clone()) } else { None };
    edit.insert(custom_key(mesh), key);
    if name == KUBE_DNS && resolver.is_known() {
        let domains = if let Some(Part::Stubs(domains)) = part { domains.as_slice() } else { &[] };
        let before = data.get(STUB_DOMAINS).map(String::as_str);
        // Whoever has nothing of ours in it is not read, let alone judged.
        let ours = before.is_some_and(|text| stubs::inner(text, resolver).is_some());
        if ours || !domains.is_empty() {
            edit.insert(STUB_DOMAINS.to_owned(), stubs::edit(before, domains, resolver)?);
        }
    }
    edit.retain(|key, value| data.get(key) != value.as_ref());
    Ok(edit)
}

/// What there is of ours in a `ConfigMap`, for comparison with what it was.
pub fn ours(name: &str, data: &BTreeMap<String, String>, mesh: &str, resolver: Resolver) -> Option<String> {
    let block = data.get(COREFILE).and_then(|text| corefile::inner(text, mesh)).map(ToOwned::to_owned);
    let key = || data.get(&custom_key(mesh)).cloned();
    let stubs = || stubs::inner(data.get(STUB_DOMAINS).filter(|_| name == KUBE_DNS)?, resolver);
    block.or_else(key).or_else(stubs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESH: &str = "weft-system";

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn apply(data: &BTreeMap<String, String>, edit: Edit) -> BTreeMap<String, String> {
        let mut data = data.clone();
        for (key, value) in edit {
            match value {
                Some(value) => drop(data.insert(key, value)),
                None => drop(data.remove(&key)),
            }
        }
        data
    }

    #[test]
    fn each_part_comes_and_goes_and_leaves_the_rest() {
        let resolver = Resolver { now: Some([10, 96, 0, 77].into()), before: None };
        let lines = "weft.mesh:53 {\n}\n".to_owned();
        for (name, data, part) in [
            ("coredns", map(&[(COREFILE, ".:53 {\n}\n"), ("NodeHosts", "x")]), Part::Block(lines.clone())),
            (CUSTOM, map(&[("corp.server", "corp.example:53 {\n}\n")]), Part::Key(lines)),
            (KUBE_DNS, map(&[("upstreamNameservers", "[]")]), Part::Stubs(vec!["weft.mesh".into()])),
            (KUBE_DNS, map(&[(STUB_DOMAINS, "{}")]), Part::Stubs(vec!["weft.mesh".into()])),
        ] {
            assert_eq!(ours(name, &data, MESH, resolver), None, "{name}");
            let with = apply(&data, edit(name, &data, Some(&part), MESH, resolver).unwrap());
            assert_eq!(
                with.iter().filter(|(key, value)| data.get(*key) != Some(*value)).count(),
                1,
                "{with:?}"
            );
            assert!(ours(name, &with, MESH, resolver).is_some(), "{with:?}");
            assert_eq!(edit(name, &with, Some(&part), MESH, resolver).unwrap(), Edit::new(), "at rest");
            let without = apply(&with, edit(name, &with, None, MESH, resolver).unwrap());
            assert_eq!(without, data);
        }
    }

    #[test]
    fn a_part_of_another_kind_takes_the_others_place() {
        let data = map(&[(COREFILE, ".:53 {\n}\n"), (&custom_key(MESH), "old {\n}\n")]);
        let edit = edit(
            "coredns",
            &data,
            Some(&Part::Block("weft.mesh:53 {\n}\n".into())),
            MESH,
            Resolver::default(),
        )
        .unwrap();
        assert_eq!(edit[&custom_key(MESH)], None);
        assert!(edit[COREFILE].as_ref().unwrap().contains("weft.mesh:53"));
    }

    #[test]
    fn what_is_broken_and_has_nothing_of_ours_is_nobodys_business() {
        let resolver = Resolver { now: Some([10, 96, 0, 77].into()), before: None };
        let data = map(&[(STUB_DOMAINS, "not JSON")]);
        assert_eq!(edit(KUBE_DNS, &data, None, MESH, resolver).unwrap(), Edit::new());
        let error = edit(KUBE_DNS, &data, Some(&Part::Stubs(vec!["weft.mesh".into()])), MESH, resolver);
        assert!(error.unwrap_err().to_string().contains("no JSON object"));
    }
}
