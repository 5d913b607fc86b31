//! What the engine lets through and an endpoint or a client may read in another way than we did: it is refused, or passed on
//! in the one form that has one reading. What the engine refuses itself is not repeated here.

use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use weft_config::ServiceId;

const SCHEME: &[u8] = b"http://";

/// Says what is wrong with a request, as a part of a sentence; a request in order is brought into one form.
pub fn request(
    request: &mut RequestHeader,
    service: Option<&ServiceId>,
) -> pingora::Result<Option<&'static str>> {
    if let Some(fault) = target(request)? {
        return Ok(Some(fault));
    }
    match request.headers.get(HOST) {
        Some(host) if !host.as_bytes().iter().copied().all(may_be_in_host) => {
            return Ok(Some("its Host header is not valid"));
        }
        // RFC 9112, section 3.2.
        None if request.version == Version::HTTP_11 => return Ok(Some("it has no Host header")),
        // The endpoint is asked in HTTP/1.1 and may insist on one.
        None if request.version < Version::HTTP_11 => {
            if let Some(service) = service {
                request.insert_header(HOST, format!("{}.{}", service.name, service.namespace))?;
            }
        }
        _ => {}
    }
    one_length(request)?;
    Ok(None)
}

/// The target must be a path; as an absolute URI it is made one (RFC 9112, section 3.2.2).
fn target(request: &mut RequestHeader) -> pingora::Result<Option<&'static str>> {
    if request.version > Version::HTTP_11 {
        return Ok(None);
    }
    let path = match request.raw_path() {
        [b'/', ..] => return Ok(None),
        b"*" if request.method == Method::OPTIONS => return Ok(None),
        target => absolute(target).map(<[u8]>::to_vec),
    };
    let Some(path) = path else { return Ok(Some("its target is not a path")) };
    let path = if path.starts_with(b"/") { path } else { [b"/", &path[..]].concat() };
    request.set_raw_path(&path)?;
    Ok(None)
}

/// What follows the authority of an `http` URI. The engine has seen that the authority is the Host.
fn absolute(target: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = target.split_at_checked(SCHEME.len())?;
    let authority = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
    (scheme.eq_ignore_ascii_case(SCHEME) && authority > 0).then(|| &rest[authority..])
}

/// RFC 3986, section 3.2: `reg-name`, addresses and a port.
fn may_be_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// The engine has seen that all lengths are the same; one is enough (RFC 9110, section 8.6).
fn one_length(request: &mut RequestHeader) -> pingora::Result<()> {
    let mut all = request.headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = all.next() else { return Ok(()) };
    if all.next().is_none() && !first.as_bytes().contains(&b',') {
        return Ok(());
    }
    let length = first.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    let length = HeaderValue::from_bytes(length).ok();
    match length {
        Some(length) => request.insert_header(CONTENT_LENGTH, length),
        None => Ok(()),
    }
}

/// Whether an answer's body has one end only: no coding but `chunked` was asked for (RFC 9112, section 6.1). What has no
/// body is not said to have one (section 6.3).
pub fn answer(response: &mut ResponseHeader) -> bool {
    if response.status.is_informational() || response.status == StatusCode::NO_CONTENT {
        response.remove_header(&CONTENT_LENGTH);
        response.remove_header(&TRANSFER_ENCODING);
        return true;
    }
    let mut codings = response.headers.get_all(TRANSFER_ENCODING).iter();
    let one = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    one && codings.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screened(
        line: (&str, &str, Version),
        headers: &[(&str, &str)],
    ) -> Result<RequestHeader, &'static str> {
        let mut header = RequestHeader::build(line.0, line.1.as_bytes(), None).unwrap();
        header.set_version(line.2);
        for (name, value) in headers {
            header.append_header((*name).to_owned(), *value).unwrap();
        }
        let service = ServiceId::new("shop", "cart");
        request(&mut header, Some(&service)).unwrap().map_or(Ok(header), Err)
    }

    fn get(target: &str, headers: &[(&str, &str)]) -> Result<RequestHeader, &'static str> {
        screened(("GET", target, Version::HTTP_11), headers)
    }

    #[test]
    fn a_target_is_a_path() {
        let host = [("Host", "x")];
        for (target, path) in [
            ("/a?b", "/a?b"),
            ("http://x/a?b", "/a?b"),
            ("http://x", "/"),
            ("http://x?b", "/?b"),
            ("//x/a", "//x/a"),
        ] {
            let asked = get(target, &host).unwrap_or_else(|fault| panic!("{target}: {fault}"));
            assert_eq!(asked.raw_path(), path.as_bytes(), "{target}");
        }
        for target in ["*", "?a", "http://", "https://x/", "ftp://x"] {
            get(target, &host).unwrap_err();
        }
        assert_eq!(screened(("OPTIONS", "*", Version::HTTP_11), &host).unwrap().raw_path(), b"*");
    }

    #[test]
    fn a_host_is_a_host() {
        for host in ["", "cart", "cart.shop.weft.mesh:80", "[::1]:8080", "a_b", "%41", "x,y"] {
            get("/", &[("Host", host)]).unwrap();
        }
        for host in ["x y", "x/y", "x@y", "x?y", "x#y", "x\\y", "x\"y"] {
            get("/", &[("Host", host)]).unwrap_err();
        }
        get("/", &[]).unwrap_err();
        let old = screened(("GET", "/", Version::HTTP_10), &[]).unwrap();
        assert_eq!(old.headers[HOST], "cart.shop");
    }

    #[test]
    fn a_length_is_told_once() {
        for lengths in [&["5"][..], &["5", "5"], &["5, 5"], &["5 ,5", "5"]] {
            let headers: Vec<_> =
                lengths.iter().map(|length| ("Content-Length", *length)).chain([("Host", "x")]).collect();
            let all = get("/", &headers).unwrap();
            let all: Vec<_> = all.headers.get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(all, ["5"], "{lengths:?}");
        }
    }

    #[test]
    fn only_chunks_frame_an_answer() {
        let framed = |codings: &[&str]| {
            let mut response = ResponseHeader::build(200, None).unwrap();
            for coding in codings {
                response.append_header("Transfer-Encoding", *coding).unwrap();
            }
            answer(&mut response)
        };
        for status in [103, 204] {
            let mut response = ResponseHeader::build(status, None).unwrap();
            response.insert_header("Content-Length", "5").unwrap();
            response.insert_header("Transfer-Encoding", "x").unwrap();
            assert!(answer(&mut response) && response.headers.is_empty(), "{response:?}");
        }
        assert!(framed(&[]) && framed(&["chunked"]) && framed(&["Chunked"]));
        for codings in
            [&["xchunked"][..], &["chunked, identity"], &["gzip, chunked"], &["chunked", "chunked"], &[""]]
        {
            assert!(!framed(codings), "{codings:?}");
        }
    }
}
