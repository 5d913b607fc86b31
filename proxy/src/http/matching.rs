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

fn describes(one: &HttpMatch, form: Form<'_>) -> bool {
    let method = one.methods.is_empty() || one.methods.iter().any(|method| method == form.method);
    method
        && one.path.as_ref().is_none_or(|path| path.matches(form.path))
        && one.headers.iter().all(|(name, pattern)| {
            let values = form.headers.get_all(name).iter();
            values.filter_map(|value| value.to_str().ok()).any(|value| pattern.matches(value))
        })
}

/// The path as servers understand it that resolve it: `.` and `..` segments, escaped or not, doubled and escaped slashes.
/// `None`: it is the same.
///
/// A rule for paths must hold for both forms: which of them the server goes by is not known here.
pub fn resolved(path: &str) -> Option<String> {
    let plain = !path.contains(['%', '\\', ';']) && !path.contains("//") && !path.contains("/.");
    if plain {
        return None;
    }
    let decoded = decoded(path).replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        // What follows a semicolon are parameters to some servers: `/..;/` is `/../` to them.
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut resolved = format!("/{}", segments.join("/"));
    if decoded.ends_with('/') && resolved.len() > 1 {
        resolved.push('/');
    }
    (resolved != path).then_some(resolved)
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
            ("/public/../admin", Some("/admin")),
            ("/public/%2e%2e/admin", Some("/admin")),
            ("/public/%2E./admin", Some("/admin")),
            ("/public/..;/admin", Some("/admin")),
            ("/public%2f..%2fadmin", Some("/admin")),
            ("/public/%252e%252e/admin", Some("/admin")),
            ("/public/%25252e%25252e%2525252fadmin", Some("/admin")),
            ("/public\\..\\admin", Some("/admin")),
            ("//admin", Some("/admin")),
            ("/./admin/", Some("/admin/")),
            ("/../../admin", Some("/admin")),
            ("/public/..", Some("/")),
            ("/a%20b", Some("/a b")),
            ("/books/1", None),
            ("/", None),
            ("/books/.hidden", None),
            ("/a/b/", None),
        ] {
            assert_eq!(resolved(path).as_deref(), expected, "{path}");
        }
    }
}
