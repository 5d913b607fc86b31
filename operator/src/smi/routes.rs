//! What splits and targets refer to: matches of route groups, compiled once when the group comes, and ports.

use weft_config::{HttpMatch, Pattern};
use weft_crds::smi::{self, HttpRouteGroup, PortRoute};

use super::{Finding, Name, Object, Objects};

/// An `HTTPRouteGroup`, compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// By their names; what is wrong with those that cannot be used.
    matches: Vec<(String, Result<HttpMatch, String>)>,
}

impl Group {
    /// Compiles the matches of `group`.
    pub fn of(group: &HttpRouteGroup) -> Self {
        Self { matches: group.matches.iter().map(|one| (one.name.clone(), compile(one))).collect() }
    }
}

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
        if !group.matches.iter().any(|(name, _)| name == wanted) {
            notes.push(format!("HTTPRouteGroup {name} has no match {wanted:?}."));
        }
    }
    let mut usable = Vec::new();
    for (its_name, one) in
        group.matches.iter().filter(|(name, _)| named.is_none_or(|named| named.contains(name)))
    {
        match one {
            Ok(one) => usable.push(one.clone()),
            Err(why) => {
                notes.push(format!("HTTPRouteGroup {name}, match {its_name:?} cannot be used: {why}."));
            }
        }
    }
    usable
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

/// What becomes of every route. Whether somebody uses it is not asked.
pub(super) fn review(objects: &Objects) -> Vec<Finding> {
    let group = |object: &Object<Group>| match &object.read {
        Ok(group) => {
            let some = group.matches.is_empty() || group.matches.iter().any(|(_, one)| one.is_ok());
            let wrong = group.matches.iter().filter_map(|(name, one)| Some((name, one.as_ref().err()?)));
            let notes = wrong.map(|(name, why)| format!("Match {name:?} cannot be used: {why}."));
            object.finding(smi::HTTP_ROUTE_GROUP, some, notes.collect())
        }
        Err(error) => object.unreadable(smi::HTTP_ROUTE_GROUP, error),
    };
    let ports = |kind, object: &Object<PortRoute>| match &object.read {
        Ok(_) => object.finding(kind, true, Vec::new()),
        Err(error) => object.unreadable(kind, error),
    };
    let mut all: Vec<_> = objects.groups.values().map(|object| group(object)).collect();
    all.extend(objects.tcp_routes.values().map(|object| ports(smi::TCP_ROUTE, object)));
    all.extend(objects.udp_routes.values().map(|object| ports(smi::UDP_ROUTE, object)));
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::smi::{Meta, Verdict};

    fn finding(kind: smi::Kind, object: &Value) -> (Verdict, String) {
        let mut objects = Objects::default();
        objects.insert(kind, &Name::new("shop", "route"), Meta::default(), object);
        let [finding] = review(&objects).try_into().unwrap();
        (finding.verdict, finding.notes.join(" "))
    }

    #[test]
    fn a_route_is_told_what_is_wrong_with_it() {
        let good = json!({"name": "good", "pathRegex": "/a"});
        let bad = json!({"name": "bad", "headers": [{"x-a": "["}]});
        let group =
            |matches: &[&Value]| finding(smi::HTTP_ROUTE_GROUP, &json!({"spec": {"matches": matches}}));
        assert_eq!(group(&[&good]), (Verdict::Accepted, String::new()));
        let (verdict, notes) = group(&[&good, &bad]);
        assert_eq!(verdict, Verdict::PartlyApplied);
        assert!(notes.contains("\"bad\"") && notes.contains("x-a"), "{notes}");
        assert_eq!(group(&[&bad]).0, Verdict::Rejected);
        let (verdict, notes) = finding(smi::HTTP_ROUTE_GROUP, &json!({"spec": {"matches": 5}}));
        assert!(verdict == Verdict::Rejected && notes.contains("cannot be read"), "{notes}");
        let (verdict, notes) = finding(smi::UDP_ROUTE, &json!({"spec": {"matches": {"ports": [0]}}}));
        assert!(verdict == Verdict::Rejected && notes.contains("0 is no port"), "{notes}");
        assert_eq!(finding(smi::TCP_ROUTE, &json!({"spec": {}})).0, Verdict::Accepted);
    }
}
