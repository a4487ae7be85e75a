//! The rules for `Host` (RFC 9112, 3.2). Whoever gets two of them through a proxy reaches another
//! server than the proxy thinks; so they are obeyed, although this server has one name for all.

use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Request, Version};

/// What is wrong with a request's `Host`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadHost {
    /// HTTP/1.1 needs one.
    #[error("an HTTP/1.1 request needs a Host header")]
    Missing,
    /// There may be one line.
    #[error("the request has more than one Host header")]
    Several,
    /// It is no host and port.
    #[error("the Host header is not a host with or without a port")]
    Invalid,
}

/// Checks the `Host` of a request.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), BadHost> {
    check_headers(request.headers(), request.version())
}

fn check_headers(headers: &HeaderMap, version: Version) -> Result<(), BadHost> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err(BadHost::Several),
        (Some(host), None) if is_valid(host) => Ok(()),
        (Some(_), None) => Err(BadHost::Invalid),
        (None, None) if version < Version::HTTP_11 => Ok(()),
        (None, None) => Err(BadHost::Missing),
    }
}

/// Whether it is `uri-host [ ":" port ]` (RFC 9110, 7.2), the empty one of a target without a host
/// included.
fn is_valid(host: &HeaderValue) -> bool {
    let host = host.as_bytes().trim_ascii();
    let (name, port) = match host.iter().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(end) if host.get(end) == Some(&b':') => {
            (host.get(..end).unwrap_or_default(), host.get(end + 1..).unwrap_or_default())
        }
        _ => (host, &b""[..]),
    };
    let name_fits = match name {
        [b'[', address @ .., b']'] => address.iter().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'%' | b'-' | b'_' | b'~')
        }),
        // What a registered name is made of (RFC 3986, 3.2.2), percent-encoding not looked into.
        _ => name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte)),
    };
    name_fits && port.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &[&'static str], version: Version, expected: Result<(), BadHost>) {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        assert_eq!(check_headers(&headers, version), expected, "{hosts:?} {version:?}");
    }

    #[test]
    fn there_is_one_host_and_only_old_clients_have_none() {
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        check(&[], old, Ok(()));
        check(&[], new, Err(BadHost::Missing));
        for version in [old, new] {
            check(&["a", "a"], version, Err(BadHost::Several));
            check(&["", "a"], version, Err(BadHost::Several));
            check(&["a b"], version, Err(BadHost::Invalid));
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        let good = [
            "",
            "a",
            "tr50.example",
            "tr50.example:80",
            "a_b:8080",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:8080",
            "[fe80::1%25eth0]",
            "a:",
            "m%C3%B6wer.example",
            "a.",
            "x",
        ];
        for host in good {
            check(&[host], Version::HTTP_11, Ok(()));
        }
        for host in [
            "a, b", "a b", "me@a", "http://a", "a/b", "a:b", "a:80:90", "::1", "[::1", "[::1]x",
            "a?b", "a#b", "a\\b", "<a>",
        ] {
            check(&[host], Version::HTTP_11, Err(BadHost::Invalid));
        }
    }
}
