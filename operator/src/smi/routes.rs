//! What is referred to by splits and targets: matches of route groups, compiled.

use weft_config::{HttpMatch, Pattern};
use weft_crds::smi;

use super::{Name, Objects};

/// The matches of the group `name`, or those of them that are named. What is missing or cannot be understood is left out and
/// noted: a match more is a request more that is meant.
pub(super) fn http(
    objects: &Objects,
    name: &Name,
    named: Option<&[String]>,
    notes: &mut Vec<String>,
) -> Vec<HttpMatch> {
    let group = match objects.groups.get(name).map(|group| &group.read) {
        Some(Ok(group)) => group,
        Some(Err(error)) => {
            notes.push(format!("HTTPRouteGroup {name} cannot be read: {error}."));
            return Vec::new();
        }
        None => {
            notes.push(format!("There is no HTTPRouteGroup {name}."));
            return Vec::new();
        }
    };
    for wanted in named.unwrap_or_default() {
        if !group.matches.iter().any(|one| one.name == *wanted) {
            notes.push(format!("HTTPRouteGroup {name} has no match {wanted:?}."));
        }
    }
    let meant = |one: &&smi::HttpMatch| named.is_none_or(|named| named.contains(&one.name));
    let mut compiled = Vec::new();
    for one in group.matches.iter().filter(meant) {
        match compile(one) {
            Ok(one) => compiled.push(one),
            Err(why) => {
                notes.push(format!("HTTPRouteGroup {name}, match {:?} cannot be used: {why}.", one.name));
            }
        }
    }
    compiled
}

fn compile(one: &smi::HttpMatch) -> Result<HttpMatch, String> {
    let path = one
        .path_regex
        .as_deref()
        .map(|text| Pattern::at_start(text).map_err(|why| format!("pathRegex {text:?}: {why}")));
    let header = |(name, text): &(String, String)| {
        let pattern = Pattern::anywhere(text).map_err(|why| format!("header {name:?}, {text:?}: {why}"))?;
        Ok::<_, String>((name.clone(), pattern))
    };
    Ok(HttpMatch {
        methods: one.methods.clone(),
        path: path.transpose()?,
        headers: one.headers.iter().map(header).collect::<Result<_, _>>()?,
    })
}
