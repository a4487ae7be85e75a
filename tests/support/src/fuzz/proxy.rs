//! The header of the PROXY protocol, read as it comes.

use std::net::{IpAddr, SocketAddr};

use tr50d::edge::proxy::{Parsed, parse};

use super::Target;

/// The longest header that is read: of version 2 with extensions.
const BYTES_MAX: usize = 16 + 4096;

const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The reader of both versions.
pub struct ProxyHeader;

impl Target for ProxyHeader {
    const NAME: &'static str = "proxy";

    fn new() -> Self {
        Self
    }

    fn check(&mut self, data: &[u8]) {
        let mut used = 0;
        let peer = loop {
            match parse(&data[..used]) {
                Ok(Parsed::Done(peer)) => break peer,
                Ok(Parsed::Incomplete { missing_min }) => {
                    assert!(missing_min > 0 && used + missing_min <= BYTES_MAX, "{used}");
                    used += missing_min;
                }
                Err(_) => return,
            }
            if used > data.len() {
                return;
            }
        };
        if data.starts_with(V2_START) {
            let length = usize::from(u16::from_be_bytes([data[14], data[15]]));
            assert_eq!(used, 16 + length, "nothing behind it was read");
        } else {
            let end = data.windows(2).position(|pair| pair == b"\r\n").expect("a line");
            assert_eq!(used, end + 2, "nothing behind it was read");
            assert_eq!(peer, of_line(&data[..end]));
        }
        assert!(peer.is_none_or(|peer| peer.ip() == peer.ip().to_canonical()));
    }
}

/// The peer in a line of version 1, which is known to be right.
fn of_line(line: &[u8]) -> Option<SocketAddr> {
    let line = std::str::from_utf8(line).expect("ASCII");
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!(words[0], "PROXY");
    if words[1] == "UNKNOWN" {
        return None;
    }
    let ip: IpAddr = words[2].parse().expect("an address");
    assert_eq!(words[1], if ip.is_ipv4() { "TCP4" } else { "TCP6" });
    assert_eq!(words.len(), 6);
    Some(SocketAddr::new(ip.to_canonical(), words[4].parse().expect("a port")))
}
