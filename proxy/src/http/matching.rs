//! Whether a request is one of those that are meant. What happens to it then is decided elsewhere.

use http::HeaderMap;
use pingora::http::RequestHeader;
use weft_config::HttpMatch;

/// How often a path is decoded.
const MOST_DECODINGS: usize = 4;

/// What is looked at of a request.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, without the query.
    pub path: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
}

impl<'a> Form<'a> {
    /// Of a request.
    pub fn of(request: &'a RequestHeader) -> Self {
        Self { method: request.method.as_str(), path: request.uri.path(), headers: &request.headers }
    }
}

/// Whether one of `matches` describes the request.
pub fn any(matches: &[HttpMatch], form: Form<'_>) -> bool {
    matches.iter().any(|one| describes(one, form))
}

/// Whether `one` describes the request.
pub fn describes(one: &HttpMatch, form: Form<'_>) -> bool {
    let method = one.methods.is_empty() || one.methods.iter().any(|method| method == form.method);
    method
        && one.path.as_ref().is_none_or(|path| path.matches(form.path))
        && one.headers.iter().all(|(name, pattern)| {
            let values = form.headers.get_all(name).iter();
            values.filter_map(|value| value.to_str().ok()).any(|value| pattern.matches(value))
        })
}

/// How servers may read a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// All as it is written.
    Plain,
    /// Some as it is written, some like this: escapes, doubled slashes and parameters resolved. A rule for paths must hold for
    /// both, since which of them the server goes by is not known here.
    Resolved(String),
    /// With a `..` in it, plain or escaped, there are more readings than can be told: no rule for paths holds. Clients resolve
    /// such segments before they send.
    Unclear,
}

/// How servers may read `path`.
pub fn reading(path: &str) -> Reading {
    let plain = !path.contains(['%', '\\', ';']) && !path.contains("//") && !path.contains("/.");
    if plain {
        return Reading::Plain;
    }
    let decoded = decoded(path).replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        // What follows a semicolon are parameters to some servers: `/..;/` is `/../` to them.
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => return Reading::Unclear,
            segment => segments.push(segment),
        }
    }
    let mut resolved = format!("/{}", segments.join("/"));
    if decoded.ends_with('/') && resolved.len() > 1 {
        resolved.push('/');
    }
    if resolved == path { Reading::Plain } else { Reading::Resolved(resolved) }
}

/// Decoded until nothing is left to decode: some servers do it more than once.
fn decoded(path: &str) -> String {
    let mut text = path.to_owned();
    for _ in 0..MOST_DECODINGS {
        let next = percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if next == text {
            break;
        }
        text = next;
    }
    text
}

#[cfg(test)]
mod tests {
    use weft_config::Pattern;

    use super::*;

    fn reads() -> HttpMatch {
        HttpMatch {
            methods: vec!["GET".into(), "HEAD".into()],
            path: Some(Pattern::at_start("/books").unwrap()),
            headers: vec![("user-agent".into(), Pattern::anywhere("Android").unwrap())],
        }
    }

    fn is_meant(matches: &[HttpMatch], method: &str, path: &str, headers: &[(&str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        any(matches, Form { method, path, headers: &map })
    }

    #[test]
    fn everything_in_a_match_must_hold() {
        let android = [("User-Agent", "Mozilla Android")];
        assert!(is_meant(&[reads()], "GET", "/books/1", &android));
        assert!(!is_meant(&[reads()], "POST", "/books/1", &android));
        assert!(!is_meant(&[reads()], "get", "/books/1", &android), "methods are what they are");
        assert!(!is_meant(&[reads()], "GET", "/my/books", &android));
        assert!(!is_meant(&[reads()], "GET", "/books", &[("User-Agent", "curl")]));
        assert!(!is_meant(&[reads()], "GET", "/books", &[]));
        assert!(is_meant(&[reads()], "GET", "/books", &[("user-agent", "curl"), ("User-Agent", "Android")]));
    }

    #[test]
    fn one_of_several_matches_is_enough_and_an_empty_one_means_all() {
        assert!(is_meant(&[reads(), HttpMatch::default()], "POST", "/", &[]));
        assert!(!is_meant(&[], "GET", "/books", &[]), "of none, none");
    }

    #[test]
    fn a_path_is_resolved_as_servers_do() {
        for (path, expected) in [
            ("//admin", Some("/admin")),
            ("/./admin/", Some("/admin/")),
            ("/%61dmin", Some("/admin")),
            ("/%2561dmin", Some("/admin")),
            ("/admin;a=b/c", Some("/admin/c")),
            ("/a%20b", Some("/a b")),
            ("/books/1", None),
            ("/", None),
            ("/books/.hidden", None),
            ("/a/b/", None),
            ("/a..b/c..", None),
        ] {
            let expected = expected.map_or(Reading::Plain, |text| Reading::Resolved(text.to_owned()));
            assert_eq!(reading(path), expected, "{path}");
        }
    }

    #[test]
    fn a_path_that_leads_upwards_may_be_read_in_too_many_ways() {
        for path in [
            "/public/../admin",
            "/public/%2e%2e/admin",
            "/public/%2E./admin",
            "/public/..;/admin",
            "/public%2f..%2fadmin",
            "/public/%252e%252e/admin",
            "/public/%25252e%25252e%2525252fadmin",
            "/public\\..\\admin",
            "/public/../admin/..;/public",
            "/public/../admin/%252e%252e/public",
            "/public/../admin%5c..%5cpublic",
            "/../../admin",
            "/public/..",
        ] {
            assert_eq!(reading(path), Reading::Unclear, "{path}");
        }
    }
}
