//! libtr50's tunnel through an HTTPS port: `GET /mqtt` without an upgrade, answered by a bare 200,
//! after which plain MQTT follows on the same stream (`docs/protocol/tr50.md` 1.1, last paragraph).

use base::{ConnInfo, Protocol};

/// The answer. libtr50 wants it to start and end exactly so, within 255 bytes.
pub(super) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// The length of the head with which `bytes` start, its empty line included.
pub(super) fn head_length(bytes: &[u8]) -> Option<usize> {
    let mut line_ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    line_ends.find_map(|(index, _)| match bytes.get(index + 1..) {
        Some([b'\n', ..]) => Some(index + 2),
        Some([b'\r', b'\n', ..]) => Some(index + 3),
        _ => None,
    })
}

/// The length of the request for a tunnel with which `bytes` start; none for every other request,
/// that for a WebSocket on the same path in particular. It needs no `Host`; one that has two is
/// refused as every other request is.
pub(super) fn request_length(bytes: &[u8]) -> Option<usize> {
    let length = head_length(bytes)?;
    let head = std::str::from_utf8(bytes.get(..length)?).ok()?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let tunnel = words.next() == Some("GET")
        && matches!(words.next(), Some("/mqtt" | "/mqtt-ssl"))
        && words.next() == Some("HTTP/1.1")
        && words.next().is_none();
    let names = lines.filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let count = |wanted| names.clone().filter(|name| name.eq_ignore_ascii_case(wanted)).count();
    (tunnel && count("upgrade") == 0 && count("host") <= 1).then_some(length)
}

/// The details of the MQTT connection inside.
pub(super) fn conn_info(info: ConnInfo) -> ConnInfo {
    let protocol = match info.protocol {
        Protocol::Https => Protocol::Mqtts,
        _ => Protocol::Mqtt,
    };
    ConnInfo { protocol, ..info }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_get_is_a_tunnel() {
        let check = |bytes: &[u8], length: Option<usize>| {
            assert_eq!(request_length(bytes), length, "{}", bytes.escape_ascii());
        };
        check(b"GET /mqtt HTTP/1.1\r\nhost: x\r\n\r\n", Some(31));
        check(b"GET /mqtt HTTP/1.1\r\nhost: x\r\n\r\n\x10\x0c", Some(31));
        check(b"GET /mqtt-ssl HTTP/1.1\r\n\r\n", Some(26));
        check(b"GET /mqtt HTTP/1.1\r\nHost: x\r\nuPgrade: websocket\r\n\r\n", None);
        check(b"GET /mqtt HTTP/1.1\r\nhost: x\r\nHost: y\r\n\r\n", None);
        check(b"GET /mqtt HTTP/1.1\r\nhost: x\r\n", None);
        check(b"GET /mqtt HTTP/1.0\r\n\r\n", None);
        check(b"GET /mqttx HTTP/1.1\r\n\r\n", None);
        check(b"POST /mqtt HTTP/1.1\r\n\r\n", None);
        check(b"\r\n\r\n", None);
        check(b"", None);
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        let check = |bytes: &[u8], length: Option<usize>| {
            assert_eq!(head_length(bytes), length, "{}", bytes.escape_ascii());
        };
        check(b"GET / HTTP/1.1\r\n\r\nbody", Some(18));
        check(b"GET / HTTP/1.1\n\nbody", Some(16));
        check(b"GET / HTTP/1.1\r\nA: b\r\n", None);
        check(b"GET / HTTP/1.1\r\nA: b\r\n\r", None);
    }
}
