//! The cookie by which a browser shows its session.
//!
//! It is read by the console's pages and by `/events` only. `__Host-` (RFC 6265bis, 4.1.3.2) keeps
//! other hosts of the same domain from setting it, which needs TLS.

use base::{ConnInfo, Protocol};
use hyper::header::{COOKIE, HeaderMap, HeaderValue};

const PLAIN: &str = "tr50d";
const OVER_TLS: &str = "__Host-tr50d";

fn is_over_tls(conn: &ConnInfo) -> bool {
    conn.protocol == Protocol::Https
}

fn name(conn: &ConnInfo) -> &'static str {
    if is_over_tls(conn) { OVER_TLS } else { PLAIN }
}

/// The id of the session that a request shows. A browser that sends two cookies of this name was
/// given one by somebody else.
pub fn session_id<'a>(headers: &'a HeaderMap, conn: &ConnInfo) -> Option<&'a str> {
    let wanted = name(conn);
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    // Neighbours' cookies beside it may be anything.
    let mut found = lines.flat_map(|line| line.split(|byte| *byte == b';')).filter_map(|pair| {
        let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
        (name.trim() == wanted).then_some(value.trim())
    });
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

/// Has the browser keep a session's id; an empty one: forget it.
pub(super) fn set(conn: &ConnInfo, id: &str) -> Option<HeaderValue> {
    let secure = if is_over_tls(conn) { "; Secure" } else { "" };
    let age = if id.is_empty() { "; Max-Age=0" } else { "" };
    let name = name(conn);
    let line = format!("{name}={id}; Path=/; HttpOnly; SameSite=Lax{secure}{age}");
    HeaderValue::try_from(line).ok()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn conn(protocol: Protocol) -> ConnInfo {
        ConnInfo::new(protocol, SocketAddr::from(([127, 0, 0, 1], 9)))
    }

    #[test]
    fn a_session_is_in_one_cookie() {
        let check = |protocol, lines: &[&'static str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, HeaderValue::from_static(line));
            }
            assert_eq!(session_id(&headers, &conn(protocol)), expected, "{lines:?}");
        };
        check(Protocol::Http, &["tr50d=a"], Some("a"));
        check(Protocol::Http, &["x=1; tr50d=a; y"], Some("a"));
        check(Protocol::Http, &["x=1", "tr50d=a"], Some("a"));
        check(Protocol::Http, &["tr50d=a; tr50d=a"], Some("a"));
        check(Protocol::Http, &["tr50d=a; tr50d=b"], None);
        check(Protocol::Http, &["__Host-tr50d=a"], None);
        check(Protocol::Https, &["__Host-tr50d=a; tr50d=b"], Some("a"));
        check(Protocol::Https, &["tr50d=b"], None);
        check(Protocol::Http, &[], None);
    }

    #[test]
    fn over_tls_it_is_sent_over_tls_only() {
        let line = |protocol, id| set(&conn(protocol), id).expect("a cookie");
        let plain = "tr50d=a; Path=/; HttpOnly; SameSite=Lax";
        assert_eq!(line(Protocol::Http, "a"), plain);
        let over_tls = "__Host-tr50d=a; Path=/; HttpOnly; SameSite=Lax; Secure";
        assert_eq!(line(Protocol::Https, "a"), over_tls);
        let gone = "tr50d=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0";
        assert_eq!(line(Protocol::Http, ""), gone);
    }
}
