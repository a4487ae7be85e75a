//! Peers that speak another protocol than the listener: by their first bytes they are told apart
//! at once, instead of being waited for, and the log says what came where.

use base::{ConnInfo, Protocol};

use crate::logging::PeerLog;
use crate::peer_log;

/// What a peer speaks, by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Met {
    /// An MQTT CONNECT.
    Mqtt,
    /// A TLS handshake.
    Tls,
    /// An HTTP request.
    Http,
    /// A JSON object.
    Json,
    /// The header of the PROXY protocol.
    Proxy,
}

/// Methods of HTTP requests, and the beginning of HTTP/2.
const METHODS: [&[u8]; 10] = [
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PRI * HTTP/2",
];

const PROXY_V1: &[u8] = b"PROXY ";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The first byte of TLS's handshake records, and the major version behind it.
const TLS_HANDSHAKE: &[u8] = b"\x16\x03";

/// The first byte of MQTT's CONNECT.
const MQTT_CONNECT: u8 = 0x10;

impl Met {
    /// What the first bytes of a connection are; none for what nobody here speaks. One byte is
    /// enough for all but HTTP and the PROXY protocol, which are texts.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let begins = |start: &[u8]| bytes.starts_with(start);
        match bytes {
            [MQTT_CONNECT, ..] => Some(Self::Mqtt),
            [b'{', ..] => Some(Self::Json),
            [first] if *first == TLS_HANDSHAKE[0] => Some(Self::Tls),
            _ if begins(TLS_HANDSHAKE) => Some(Self::Tls),
            _ if begins(PROXY_V1) || begins(PROXY_V2) => Some(Self::Proxy),
            _ => METHODS.into_iter().any(begins).then_some(Self::Http),
        }
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "MQTT",
            Self::Tls => "TLS",
            Self::Http => "HTTP",
            Self::Json => "JSON",
            Self::Proxy => "the PROXY protocol",
        }
    }

    /// What to do about it, for operators and, over TCP, for the peer.
    const fn advice(self) -> &'static str {
        match self {
            Self::Mqtt => "MQTT is for mqtt.listen, or mqtt.tls_listen",
            Self::Tls => "TLS is for a tls_listen",
            Self::Http => "HTTP is for http.listen, or http.tls_listen",
            Self::Json => "JSON lines are for tcp.listen, or tcp.tls_listen",
            Self::Proxy => "only peers in proxy.trusted may say for whom they speak",
        }
    }

    /// A sentence for who is at a door of this protocol.
    pub fn sentence(self, door: Protocol) -> String {
        let (name, advice) = (self.as_str(), self.advice());
        format!("This listener speaks {}, and what came is {name}: {advice}.", spoken(door))
    }
}

/// What is spoken behind a door.
const fn spoken(door: Protocol) -> &'static str {
    match door {
        Protocol::Mqtt | Protocol::Ws => "MQTT",
        Protocol::Mqtts | Protocol::Wss => "MQTT over TLS",
        Protocol::Tcp => "TR50, one JSON object a line",
        Protocol::Tcps => "TR50, one JSON object a line, over TLS",
        Protocol::Http => "HTTP",
        Protocol::Https => "HTTP over TLS",
    }
}

/// Logs that a peer came to the wrong door.
pub fn log(info: &ConnInfo, met: Met) {
    static LOG: PeerLog = PeerLog::new(20);
    let (peer, listener) = (info.remote_addr, info.protocol.as_str());
    let (met, sentence) = (met.as_str(), met.sentence(info.protocol));
    peer_log!(LOG, %peer, listener, met, "a connection came to the wrong listener: {sentence}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_apart_by_their_first_bytes() {
        let check = |bytes: &[u8], expected| {
            assert_eq!(Met::of(bytes), expected, "{}", bytes.escape_ascii());
        };
        check(b"\x10\x0c\0\x04MQTT", Some(Met::Mqtt));
        check(b"\x10", Some(Met::Mqtt));
        check(b"\x16\x03\x01\x02\0\x01", Some(Met::Tls));
        check(b"\x16", Some(Met::Tls));
        check(b"{\"auth\":", Some(Met::Json));
        check(b"{", Some(Met::Json));
        for method in METHODS {
            check(&[method, b"/ HTTP/1.1\r\n"].concat(), Some(Met::Http));
        }
        check(b"PROXY TCP4 192.0.2.1 ", Some(Met::Proxy));
        check(PROXY_V2, Some(Met::Proxy));
        for other in [&b""[..], b"\x16\x10", b"P", b"GET", b"GETX ", b"get / ", b"\r\n", b"hello"] {
            check(other, None);
        }
    }
}
