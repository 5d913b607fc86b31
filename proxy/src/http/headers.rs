//! Headers we set for the backend and for the client. They are set, not appended: whatever a caller sent under the same
//! name, in any spelling that a backend may take for it, is gone.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use pingora::http::{RequestHeader, ResponseHeader};
use weft_config::contract::NODE_HEADER;

/// Names that tell where a request came from. A caller may not say that itself.
const FORWARDING: [&str; 3] = ["forwarded", "x-real-ip", NODE_HEADER];
/// So do all that begin with this.
const X_FORWARDED: &str = "x-forwarded-";
/// h2 in the clear by upgrade would hide what follows from us.
const H2C: &str = "h2c";

/// What this proxy says of itself.
#[derive(Debug, Clone)]
pub struct NodeHeader(HeaderValue);

/// The node's name cannot stand in a header.
#[derive(Debug, thiserror::Error)]
#[error("node name {0:?} cannot be used as a header value; set --node-name to the Kubernetes node's name")]
pub struct BadNode(String);

impl NodeHeader {
    /// For the proxy on `node`.
    pub fn new(node: &str) -> Result<Self, BadNode> {
        HeaderValue::from_str(node).map(Self).map_err(|_| BadNode(node.to_owned()))
    }

    /// Onto an answer, for the client.
    pub fn set_on_response(&self, response: &mut ResponseHeader) -> pingora::Result<()> {
        response.insert_header(NODE_HEADER, self.0.clone())
    }

    /// Onto a request from `source` to the Service's port `port`, for the backend.
    pub fn set_on_request(
        &self,
        request: &mut RequestHeader,
        source: Option<IpAddr>,
        port: u16,
    ) -> pingora::Result<()> {
        strip_forged(request);
        let host = request.headers.get(HOST).cloned().or_else(|| {
            request.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
        });
        request.insert_header("x-forwarded-proto", HeaderValue::from_static("http"))?;
        request.insert_header("x-forwarded-port", HeaderValue::from(port))?;
        request.insert_header("x-forwarded-server", self.0.clone())?;
        request.insert_header(NODE_HEADER, self.0.clone())?;
        if let Some(source) = source.map(|source| source.to_canonical()) {
            let mut address = Text::default();
            let _ = write!(address, "{source}");
            let value = HeaderValue::from_bytes(address.bytes()).ok();
            if let Some(value) = value {
                request.insert_header("x-forwarded-for", value.clone())?;
                request.insert_header("x-real-ip", value)?;
            }
            if let Some(forwarded) = forwarded(source.is_ipv6(), address.bytes(), host.as_ref()) {
                request.insert_header("forwarded", forwarded)?;
            }
        }
        if let Some(host) = host {
            request.insert_header("x-forwarded-host", host)?;
        }
        Ok(())
    }
}

/// RFC 7239. The host is left out when it cannot stand in a quoted string as it is.
fn forwarded(v6: bool, source: &[u8], host: Option<&HeaderValue>) -> Option<HeaderValue> {
    let mut text = Text::default();
    let (before, after) = if v6 { ("for=\"[", "]\"") } else { ("for=", "") };
    text.write_str(before).ok()?;
    text.add(source).ok()?;
    text.write_str(after).ok()?;
    let plain = |host: &&str| !host.is_empty() && !host.contains(['"', '\\']);
    if let Some(host) = host.and_then(|host| host.to_str().ok()).filter(plain) {
        for part in [";host=\"", host, "\""] {
            text.write_str(part).ok()?;
        }
    }
    text.write_str(";proto=http").ok()?;
    HeaderValue::from_bytes(text.bytes()).ok()
}

/// A text of ordinary length, without an allocation.
struct Text {
    bytes: [u8; 384],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; 384], length: 0 }
    }
}

impl Text {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn add(&mut self, bytes: &[u8]) -> std::fmt::Result {
        let end = self.length + bytes.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.add(text.as_bytes())
    }
}

/// Takes out every spelling of the names above: servers that speak CGI take `_` for `-`.
fn strip_forged(request: &mut RequestHeader) {
    if request.headers.keys().any(forges) {
        let names: Vec<_> = request.headers.keys().filter(|name| forges(name)).cloned().collect();
        for name in names {
            request.remove_header(&name);
        }
    }
}

fn forges(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let reads = |ours: &str, theirs: &[u8]| {
        ours.bytes().zip(theirs).all(|(ours, theirs)| ours == *theirs || (ours == b'-' && *theirs == b'_'))
    };
    matches!(name.first(), Some(b'x' | b'f'))
        && (FORWARDING.iter().any(|ours| ours.len() == name.len() && reads(ours, name))
            || (name.len() > X_FORWARDED.len() && reads(X_FORWARDED, name)))
}

/// The comma-separated words of a header, in lower case.
fn tokens(request: &RequestHeader, name: HeaderName) -> Vec<String> {
    let texts = request.headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or_default());
    texts.flat_map(|text| text.split(',')).map(|token| token.trim().to_ascii_lowercase()).collect()
}

/// Whether a request asks for an upgrade that is passed on: any but one to h2c.
pub fn asks_for_upgrade(request: &RequestHeader) -> bool {
    let is_h2c = |protocol: &String| protocol == H2C || protocol.starts_with("h2c/");
    request.headers.contains_key(UPGRADE)
        && tokens(request, CONNECTION).iter().any(|token| token == "upgrade")
        && !tokens(request, UPGRADE).iter().any(is_h2c)
}

/// Pingora leaves a request that asks for an upgrade as it is. Everything about the connection goes except the upgrade
/// itself; one to h2c goes, too.
pub fn tame_upgrade(request: &mut RequestHeader) -> pingora::Result<()> {
    if !request.headers.contains_key(UPGRADE) {
        return Ok(());
    }
    let nominated = tokens(request, CONNECTION);
    let upgrade = request.headers.get(UPGRADE).filter(|_| asks_for_upgrade(request)).cloned();
    for token in nominated.iter().filter(|token| *token != "host" && !token.is_empty()) {
        request.remove_header(token.as_str());
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings", "te", "connection", "upgrade"] {
        request.remove_header(name);
    }
    if let Some(upgrade) = upgrade {
        request.insert_header(CONNECTION, HeaderValue::from_static("Upgrade"))?;
        request.insert_header(UPGRADE, upgrade)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in headers {
            request.append_header((*name).to_owned(), *value).unwrap();
        }
        request
    }

    fn sent(headers: &[(&str, &str)], source: &str) -> Vec<(String, String)> {
        let mut request = request(headers);
        let node = NodeHeader::new("node1").unwrap();
        node.set_on_request(&mut request, Some(source.parse().unwrap()), 80).unwrap();
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let mut all: Vec<_> =
            request.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        all.sort();
        all
    }

    #[test]
    fn where_a_request_came_from_is_told() {
        insta::assert_debug_snapshot!(sent(&[("Host", "cart.shop.weft.mesh")], "::ffff:10.0.0.7"));
    }

    #[test]
    fn what_the_caller_says_of_it_is_gone() {
        let honest = sent(&[("Host", "h")], "10.0.0.7");
        let x_forwarded = ["for", "host", "port", "proto", "server", "prefix", "uri", "client-cert", "x"];
        let x_forwarded = x_forwarded.map(|end| format!("{X_FORWARDED}{end}"));
        for name in FORWARDING.map(str::to_owned).into_iter().chain(x_forwarded) {
            for spelling in
                [name.clone(), name.to_uppercase(), name.replace('-', "_"), name.replacen('-', "_", 1)]
            {
                let forged = [("Host", "h"), (spelling.as_str(), "6.6.6.6"), (spelling.as_str(), "7.7.7.7")];
                assert_eq!(sent(&forged, "10.0.0.7"), honest, "{spelling}");
            }
        }
    }

    #[test]
    fn what_only_looks_similar_passes() {
        for name in
            ["x-forward", "x-forwarded", "forwarded-x", "x-real-ips", "x.real.ip", "from", "x-weft-nodes"]
        {
            assert!(!forges(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn a_host_that_would_end_the_quotes_is_not_quoted() {
        let sent = sent(&[("Host", "a\";for=6.6.6.6")], "fd00::1");
        let forwarded = &sent.iter().find(|(name, _)| name == "forwarded").unwrap().1;
        assert_eq!(forwarded, "for=\"[fd00::1]\";proto=http");
    }

    #[test]
    fn an_upgrade_passes_alone() {
        let mut asked = request(&[
            ("Connection", "keep-alive, Upgrade, X-Secret"),
            ("Upgrade", "websocket"),
            ("X-Secret", "1"),
            ("Sec-WebSocket-Key", "k"),
            ("TE", "trailers"),
        ]);
        tame_upgrade(&mut asked).unwrap();
        let names: Vec<_> = asked.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(asked.headers[CONNECTION], "Upgrade");
        assert!(
            names.contains(&"sec-websocket-key") && !names.contains(&"x-secret") && !names.contains(&"te"),
            "{names:?}"
        );
    }

    #[test]
    fn h2c_by_upgrade_does_not_pass() {
        let h2c = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "H2C"), ("HTTP2-Settings", "x")];
        let not_nominated = [("Connection", "close"), ("Upgrade", "websocket")];
        for headers in [&h2c[..], &not_nominated] {
            let mut asked = request(headers);
            tame_upgrade(&mut asked).unwrap();
            assert_eq!(asked.headers.len(), 0, "{:?}", asked.headers);
        }
    }
}
