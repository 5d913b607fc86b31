//! Adds and removes our entries in kube-dns's `stubDomains`, a JSON object of domains and the servers to be asked for them.
//! Everything else stays byte for byte: the text is edited, not written anew.

use std::net::IpAddr;
use std::ops::Range;

use serde_json::{Map, Value};

/// At the end of a text that was made for us, where there was none.
const MADE: &str = "\n";

/// Why `stubDomains` are left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StubsError {
    /// It cannot be read.
    #[error("stubDomains is no JSON object ({0}): put it right, kube-dns cannot read it either")]
    NotAnObject(String),
    /// Somebody else answers for our domain.
    #[error("stubDomains sends {0} to {1} already: take that out, or choose another domain in spec.domains")]
    Taken(String, String),
}

/// Our resolver, by its addresses: what leads to one of them is ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resolver {
    /// The one it has.
    pub now: Option<IpAddr>,
    /// The one it had when it was put down in the status. Its Service may have been made anew since.
    pub before: Option<IpAddr>,
}

impl Resolver {
    /// Whether any is known.
    pub fn is_known(self) -> bool {
        self.now.or(self.before).is_some()
    }

    fn has(self, servers: &Value) -> bool {
        [self.now, self.before].into_iter().flatten().any(|address| *servers == entry(address))
    }
}

fn entry(address: IpAddr) -> Value {
    Value::from(vec![address.to_string()])
}

/// `stubDomains` with each of `domains` leading to where our resolver is now, and no other domain to where it is or was. `None`:
/// there is nothing left, nor was there before us.
pub fn edit(
    text: Option<&str>,
    domains: &[String],
    resolver: Resolver,
) -> Result<Option<String>, StubsError> {
    let mut now = match text {
        Some(text) => text.to_owned(),
        None if domains.is_empty() => return Ok(None),
        None => format!("{{}}{MADE}"),
    };
    let stays = |domain: &String, to: &Value| {
        domains.contains(domain) && resolver.now.is_some_and(|address| *to == entry(address))
    };
    for (domain, to) in object(&now)? {
        if resolver.has(&to) && !stays(&domain, &to) {
            now = without(&now, &domain);
        }
    }
    for domain in domains {
        match (object(&now)?.get(domain), resolver.now) {
            (Some(there), _) if stays(domain, there) => {}
            (Some(there), _) => return Err(StubsError::Taken(domain.clone(), there.to_string())),
            (None, Some(address)) => now = with(&now, &format!("\"{domain}\": [\"{address}\"]")),
            (None, None) => {}
        }
    }
    Ok((now != format!("{{}}{MADE}")).then_some(now))
}

/// The domains that lead to our resolver, for comparison.
pub fn inner(text: &str, resolver: Resolver) -> Option<String> {
    let all = object(text).ok()?;
    let found: Vec<_> =
        all.into_iter().filter(|(_, to)| resolver.has(to)).map(|(domain, _)| domain).collect();
    (!found.is_empty()).then(|| found.join(" "))
}

/// Whether `text` sends `domain` anywhere.
pub fn has(text: &str, domain: &str) -> bool {
    object(text).is_ok_and(|all| all.contains_key(domain))
}

/// Whether `text` sends `domain` to somebody who is not `resolver`.
pub fn is_anothers(text: &str, domain: &str, resolver: Resolver) -> bool {
    object(text).is_ok_and(|all| all.get(domain).is_some_and(|to| !resolver.has(to)))
}

fn object(text: &str) -> Result<Map<String, Value>, StubsError> {
    serde_json::from_str(text).map_err(|error| StubsError::NotAnObject(error.to_string()))
}

/// The object with a member more, at its end. The text is known to be an object.
fn with(text: &str, member: &str) -> String {
    let members = members(text);
    let (at, comma) = match members.last() {
        Some(last) => (last.range.end, ", "),
        None => (text.find('{').map_or(0, |open| open + 1), ""),
    };
    format!("{}{comma}{member}{}", &text[..at], &text[at..])
}

/// The object without a member, and without the comma that stood before it, or behind when it was the first.
fn without(text: &str, domain: &str) -> String {
    let members = members(text);
    let Some(index) = members.iter().position(|member| member.key == domain) else { return text.to_owned() };
    let Range { mut start, mut end } = members[index].range.clone();
    if index > 0 {
        start = members[index - 1].range.end;
    } else if let Some(next) = members.get(1) {
        end = next.range.start;
    }
    format!("{}{}", &text[..start], &text[end..])
}

/// A member of an object, and where it stands.
struct Member {
    key: String,
    range: Range<usize>,
}

/// The members of `text`, which is known to be a JSON object.
fn members(text: &str) -> Vec<Member> {
    let bytes = text.as_bytes();
    let mut members: Vec<Member> = Vec::new();
    let (mut depth, mut at) = (0_usize, 0);
    // Where the member that is being read begins.
    let mut begin: Option<usize> = None;
    let mut end_of_value = 0;
    let mut take = |begin: &mut Option<usize>, end: usize| {
        if let Some(start) = begin.take() {
            let key = serde_json::Deserializer::from_str(&text[start..end]).into_iter::<String>().next();
            members.push(Member { key: key.and_then(Result::ok).unwrap_or_default(), range: start..end });
        }
    };
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                if depth == 1 {
                    begin.get_or_insert(start);
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    take(&mut begin, end_of_value);
                }
            }
            b',' if depth == 1 => take(&mut begin, end_of_value),
            _ => {}
        }
        at += 1;
        if !bytes[start].is_ascii_whitespace() {
            end_of_value = at.min(bytes.len());
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(last: u8) -> Resolver {
        Resolver { now: Some([10, 96, 0, last].into()), before: None }
    }

    fn resolver() -> Resolver {
        at(77)
    }

    fn domains(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    fn add(text: Option<&str>, all: &[&str]) -> String {
        edit(text, &domains(all), resolver()).unwrap().unwrap()
    }

    fn remove(text: &str) -> Option<String> {
        edit(Some(text), &[], resolver()).unwrap()
    }

    const GKE: &str =
        "{\"corp.example\": [\"192.0.2.53\", \"192.0.2.54\"],\n \"lab.example\":[\"192.0.2.55:5353\"]}\n";

    #[test]
    fn entries_come_and_go_and_the_rest_stays_byte_for_byte() {
        for text in [GKE, "{}", "{ }", "{\n}\n", "{\"a\":[]}", "{\"{,\\\"\": [\"}\"] , \"b\":[ ] }"] {
            let with = add(Some(text), &["weft.mesh", "traefik.mesh"]);
            let all = object(&with).unwrap();
            assert_eq!(all["weft.mesh"], serde_json::json!(["10.96.0.77"]), "{with}");
            assert_eq!(all.len(), object(text).unwrap().len() + 2, "{with}");
            assert_eq!(add(Some(&with), &["weft.mesh", "traefik.mesh"]), with, "the same again is no change");
            let fewer = add(Some(&with), &["traefik.mesh"]);
            assert!(!has(&fewer, "weft.mesh") && has(&fewer, "traefik.mesh"), "{fewer}");
            assert_eq!((remove(&with).as_deref(), remove(&fewer).as_deref()), (Some(text), Some(text)));
        }
    }

    #[test]
    fn what_was_made_for_us_goes_with_us() {
        let made = add(None, &["weft.mesh"]);
        assert_eq!(made, "{\"weft.mesh\": [\"10.96.0.77\"]}\n");
        assert_eq!(remove(&made), None);
        assert_eq!(edit(None, &[], resolver()).unwrap(), None);
        assert_eq!(inner(&made, resolver()).as_deref(), Some("weft.mesh"));
        assert_eq!(inner(GKE, resolver()), None);
    }

    #[test]
    fn two_meshes_have_entries_of_their_own() {
        let other = at(88);
        let both =
            edit(Some(&add(None, &["weft.mesh"])), &domains(&["second.mesh"]), other).unwrap().unwrap();
        assert_eq!(add(Some(&both), &["weft.mesh"]), both);
        let one = remove(&both).unwrap();
        assert_eq!((has(&one, "weft.mesh"), has(&one, "second.mesh")), (false, true));
        assert_eq!(edit(Some(&one), &[], other).unwrap(), None);
        let taken = edit(Some(&both), &domains(&["weft.mesh"]), other).unwrap_err();
        assert_eq!(
            taken.to_string(),
            "stubDomains sends weft.mesh to [\"10.96.0.77\"] already: take that out, or choose another domain in spec.domains"
        );
    }

    #[test]
    fn entries_for_the_address_that_the_resolver_had_are_ours_as_well() {
        let before = resolver().now;
        let with = add(Some(GKE), &["weft.mesh", "traefik.mesh"]);
        let moved = Resolver { before, ..at(88) };
        let now = edit(Some(&with), &domains(&["weft.mesh"]), moved).unwrap().unwrap();
        assert_eq!(object(&now).unwrap()["weft.mesh"], serde_json::json!(["10.96.0.88"]), "{now}");
        assert!(!has(&now, "traefik.mesh") && has(&now, "corp.example"), "{now}");
        assert_eq!(inner(&with, moved).as_deref(), Some("traefik.mesh weft.mesh"));
        for resolver in [moved, Resolver { now: None, before }] {
            assert_eq!(edit(Some(&with), &[], resolver).unwrap().as_deref(), Some(GKE));
        }
        assert_eq!(edit(Some(&now), &[], moved).unwrap().as_deref(), Some(GKE));
    }

    #[test]
    fn what_kube_dns_cannot_read_is_left_alone() {
        for text in ["", "[]", "{", "null", "{\"a\" 1}"] {
            let error = edit(Some(text), &domains(&["weft.mesh"]), resolver()).unwrap_err();
            assert!(error.to_string().starts_with("stubDomains is no JSON object ("), "{error}");
        }
    }

    /// JSON objects as people write them, with white space everywhere.
    fn objects() -> impl Strategy<Value = String> {
        let space = "[ \n\t]{0,2}";
        let value = prop::collection::vec("\"[a-z{}\\[\\],:]{0,6}\"", 0..3)
            .prop_map(|v| format!("[{}]", v.join(" ,")));
        let members = prop::collection::btree_map("[a-z.]{1,8}", (value, space, space, space), 0..4);
        (members, space).prop_map(|(members, end)| {
            let members = members.iter().map(|(k, (v, a, b, c))| format!("{a}\"{k}\"{b}:{c}{v}{a}"));
            format!("{{{}{end}}}{end}", members.collect::<Vec<_>>().join(","))
        })
    }

    proptest! {
        #[test]
        fn added_and_removed_is_byte_for_byte_as_before(text in objects()) {
            let before = object(&text).unwrap();
            let with = add(Some(&text), &["weft.mesh"]);
            let mut after = object(&with).unwrap();
            prop_assert!(after.remove("weft.mesh").is_some());
            prop_assert_eq!(after, before);
            // An empty object with a line feed is how ours looks when it is made for us, and goes.
            let kept = if text == "{}\n" { None } else { Some(text) };
            prop_assert_eq!(remove(&with), kept);
        }
    }
}
