//! Whatever headers a caller sends, the backend is told who called by us alone. The text holds the target in its first line
//! and a header in each further one, `name: value`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pingora::http::RequestHeader;
use weft_proxy::http::headers::{NodeHeader, tame_upgrade};
use weft_proxy::http::screen;

/// What only the proxy says, as a server would read it that takes `_` for `-`.
fn is_ours(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with("x-forwarded-") || ["forwarded", "x-real-ip", "x-weft-node"].contains(&name.as_str())
}

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let target = lines.next().unwrap_or("/");
    let Ok(mut request) = RequestHeader::build("GET", target.as_bytes(), None) else { return };
    for line in lines {
        let Some((name, value)) = line.split_once(": ") else { continue };
        let _ = request.append_header(name.to_owned(), format!("theirs {value}"));
    }
    let Ok(None) = screen::request(&mut request, None) else { return };
    assert!(request.raw_path().starts_with(b"/"), "{request:?}");
    tame_upgrade(&mut request).expect("any upgrade is tamed");
    let node = NodeHeader::new("node1").expect("a name");
    node.set_on_request(&mut request, Some([10, 0, 0, 7].into()), 80).expect("headers can be set");
    for (name, value) in &request.headers {
        let theirs = value.as_bytes().starts_with(b"theirs ") && name.as_str() != "x-forwarded-host";
        assert!(!(is_ours(name.as_str()) && theirs), "{name}: {value:?}");
    }
    assert_eq!(request.headers["x-forwarded-for"], "10.0.0.7");
    assert_eq!(request.headers.get_all("x-forwarded-for").iter().count(), 1);
});
