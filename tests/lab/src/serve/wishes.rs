//! What a request asks of the server in its query, so that a test decides how its backend behaves.
//!
//! | parameter | the server |
//! |---|---|
//! | `status=503` | answers with that status |
//! | `delay=MS` | waits before it answers |
//! | `close` | closes the connection (h2: resets the stream) instead of an answer |
//! | `fail=0.5` | does `status` (503 if not given) or `close` to so large a share of the requests only |
//! | `first=N` | does so to the first N requests with this `key` only |
//! | `key=K` | counts the requests with this key; `/seen?key=K` tells how many there were |
//! | `size=N` | answers with so many bytes of the pattern instead of its account |
//! | `chunked` | does not tell the size of these beforehand |
//! | `rate=N` | sends so many bytes of these a second |
//! | `cut=N` | breaks the connection after so many bytes of these |
//! | `read-rate=N` | reads so many bytes of the request's body a second |
//! | `unread` | answers without reading the request's body |
//! | `header=NAME:VALUE` | sets a header on the answer; may be given again |
//! | `trailer=NAME:VALUE` | sends a trailer behind a body of `size` bytes; may be given again |
//! | `end=N` | on `/ws`: closes the WebSocket after so many messages |

use std::str::FromStr;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};

/// How to answer.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) status: Option<StatusCode>,
    pub(super) delay: Duration,
    pub(super) close: bool,
    pub(super) fail: Option<f64>,
    pub(super) first: Option<u64>,
    pub(super) key: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) chunked: bool,
    pub(super) rate: Option<u64>,
    pub(super) cut: Option<u64>,
    pub(super) read_rate: Option<u64>,
    pub(super) unread: bool,
    pub(super) headers: HeaderMap,
    pub(super) trailers: HeaderMap,
    pub(super) end: Option<u64>,
}

impl Wishes {
    /// Of a query. A wish that cannot be understood is an error, or a test would prove nothing and not notice.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut wishes = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            wishes.add(name, value)?;
        }
        Ok(wishes)
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "status" => self.status = Some(number(name, value)?),
            "delay" => self.delay = Duration::from_millis(number(name, value)?),
            "close" => self.close = true,
            "fail" => self.fail = Some(number(name, value)?),
            "first" => self.first = Some(number(name, value)?),
            "key" => self.key = Some(value.to_owned()),
            "size" => self.size = Some(number(name, value)?),
            "chunked" => self.chunked = true,
            "rate" => self.rate = Some(number(name, value)?),
            "cut" => self.cut = Some(number(name, value)?),
            "read-rate" => self.read_rate = Some(number(name, value)?),
            "unread" => self.unread = true,
            "header" => add_header(&mut self.headers, value)?,
            "trailer" => add_header(&mut self.trailers, value)?,
            "end" => self.end = Some(number(name, value)?),
            // Others are for the eyes of a test.
            _ => (),
        }
        Ok(())
    }

    /// Whether this request, the how manieth with its key, is one of those to fail.
    pub(super) fn fails(&self, seen: u64) -> bool {
        let chosen = match (self.first, self.fail) {
            (Some(first), _) => seen <= first,
            (None, Some(share)) => fastrand::f64() < share,
            (None, None) => self.close || self.status.is_some(),
        };
        chosen && !(self.first.is_some() && self.key.is_none())
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}={value} is not understood\n"))
}

fn add_header(headers: &mut HeaderMap, text: &str) -> Result<(), String> {
    let parsed = text.split_once(':').and_then(|(name, value)| {
        Some((HeaderName::from_str(name).ok()?, HeaderValue::from_str(value).ok()?))
    });
    let (name, value) = parsed.ok_or_else(|| format!("{text} is not name:value\n"))?;
    headers.append(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_understood_or_refused() {
        let wishes =
            Wishes::parse("status=503&delay=20&x=y&header=a:b&header=a:c&trailer=t:1&chunked").unwrap();
        assert_eq!(wishes.status, Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(wishes.delay, Duration::from_millis(20));
        assert_eq!((wishes.headers.get_all("a").iter().count(), wishes.chunked), (2, true));
        assert_eq!(wishes.trailers["t"], "1");
        for bad in ["status=x", "delay=", "fail=often", "size=-1", "header=nothing"] {
            assert!(Wishes::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn those_to_fail_are_all_a_share_or_the_first() {
        assert!(!Wishes::parse("").unwrap().fails(1));
        assert!(Wishes::parse("status=500").unwrap().fails(9));
        assert!(!Wishes::parse("status=500&fail=0").unwrap().fails(1));
        assert!(Wishes::parse("fail=1").unwrap().fails(1));
        let first = Wishes::parse("key=k&first=2&close").unwrap();
        assert_eq!([1, 2, 3].map(|seen| first.fails(seen)), [true, true, false]);
    }
}
