//! The real address of the peer behind load balancers and reverse proxies: the PROXY protocol,
//! version 1 and 2 (HAProxy's `proxy-protocol.txt`), and X-Forwarded-For. Both are taken from
//! trusted peers only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use base::{Trusted, limits};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time;

/// First bytes of a header of version 1.
const V1_START: &[u8] = b"PROXY ";

/// First bytes of a header of version 2.
const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 1, its line end included (section 2.1).
const V1_BYTES_MAX: usize = 107;

/// The shortest header of version 1: `PROXY UNKNOWN` and its line end.
const V1_BYTES_MIN: usize = 15;

/// Start, command, family and length of version 2.
const V2_FIXED_BYTES: usize = 16;

/// How long to wait before looking again at a socket that holds half the start of a header.
const PEEK_AGAIN: Duration = Duration::from_millis(10);

/// A connection whose peer can't be known.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The header breaks the protocol.
    #[error("bad PROXY protocol header: {0}")]
    Malformed(&'static str),
    /// The header did not come in time.
    #[error("no PROXY protocol header or first byte within {} s", limits::LOGIN_WAIT.as_secs())]
    TimedOut,
    /// The connection broke.
    #[error("while reading the PROXY protocol header: {0}")]
    Io(#[from] io::Error),
}

/// The real peer of a connection accepted from `socket_peer`: for a trusted one, what its PROXY
/// header says, which is taken off the stream; a trusted peer may send none.
///
/// Waits for the first bytes of a trusted peer, up to [`limits::LOGIN_WAIT`]: never call it on the
/// accept path.
pub async fn real_peer(
    stream: &mut TcpStream,
    socket_peer: SocketAddr,
    trusted: &Trusted,
) -> Result<SocketAddr, ProxyError> {
    let peer = SocketAddr::new(socket_peer.ip().to_canonical(), socket_peer.port());
    if !trusted.contains(peer.ip()) {
        return Ok(peer);
    }
    let header = time::timeout(limits::LOGIN_WAIT, read_header(stream)).await;
    Ok(header.map_err(|_| ProxyError::TimedOut)??.unwrap_or(peer))
}

async fn read_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    if !header_follows(stream).await? {
        return Ok(None);
    }
    // Nothing beyond the header may be read: the rest belongs to TLS or to the protocol.
    let mut bytes = Vec::with_capacity(V1_BYTES_MAX);
    loop {
        match parse(&bytes)? {
            Parsed::Done(peer) => return Ok(peer),
            Parsed::Incomplete { missing_min } => {
                let old = bytes.len();
                bytes.resize(old + missing_min, 0);
                stream.read_exact(bytes.get_mut(old..).unwrap_or_default()).await?;
            }
        }
    }
}

/// Whether the stream starts with a header of either version; takes nothing off it.
async fn header_follows(stream: &TcpStream) -> Result<bool, ProxyError> {
    let mut start = [0; V2_START.len()];
    loop {
        let count = stream.peek(&mut start).await?;
        let seen = start.get(..count).unwrap_or_default();
        if seen.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if seen.starts_with(V1_START) || seen.starts_with(V2_START) {
            return Ok(true);
        }
        if !V1_START.starts_with(seen) && !V2_START.starts_with(seen) {
            return Ok(false);
        }
        // The socket stays readable, so waiting for readiness would spin. Half a start in a packet
        // of its own hardly ever happens.
        time::sleep(PEEK_AGAIN).await;
    }
}

/// What is known from the first bytes of a header.
#[derive(PartialEq, Eq, Debug)]
pub enum Parsed {
    /// More bytes belong to the header.
    Incomplete {
        /// At least so many.
        missing_min: usize,
    },
    /// The header is complete. It names the peer, or none (`UNKNOWN`, `LOCAL`, a Unix socket).
    Done(Option<SocketAddr>),
}

/// Reads a header, of which `bytes` is the start or the whole.
///
/// # Errors
///
/// It breaks the protocol.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    if bytes.len() < V1_BYTES_MIN {
        return Ok(Parsed::Incomplete { missing_min: V1_BYTES_MIN - bytes.len() });
    }
    if bytes.starts_with(V2_START) { parse_v2(bytes) } else { parse_v1(bytes) }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let Some(line) = bytes.strip_suffix(b"\r\n") else {
        let missing_min = if bytes.ends_with(b"\r") { 1 } else { 2 };
        return match bytes.len() + missing_min {
            ..=V1_BYTES_MAX => Ok(Parsed::Incomplete { missing_min }),
            _ => Err(ProxyError::Malformed("line too long")),
        };
    };
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed("not ASCII"))?;
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return Err(ProxyError::Malformed("does not start with PROXY"));
    }
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Parsed::Done(None));
    }
    let source: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
    let _destination = words.next();
    let port = words.next().and_then(|word| word.parse().ok());
    let complete = words.next().is_some() && words.next().is_none();
    match (family, source, port) {
        (Some("TCP4"), Some(ip @ IpAddr::V4(_)), Some(port))
        | (Some("TCP6"), Some(ip @ IpAddr::V6(_)), Some(port))
            if complete =>
        {
            Ok(Parsed::Done(Some(SocketAddr::new(ip.to_canonical(), port))))
        }
        _ => Err(ProxyError::Malformed("not TCP4, TCP6 or UNKNOWN with addresses and ports")),
    }
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let Some((&fixed, variable)) = bytes.split_first_chunk::<V2_FIXED_BYTES>() else {
        return Ok(Parsed::Incomplete { missing_min: V2_FIXED_BYTES - bytes.len() });
    };
    let [.., version_command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > limits::PROXY_V2_BYTES_MAX {
        return Err(ProxyError::Malformed("too long"));
    }
    if variable.len() < length {
        return Ok(Parsed::Incomplete { missing_min: length - variable.len() });
    }
    match version_command {
        0x20 => return Ok(Parsed::Done(None)),
        0x21 => {}
        _ => {
            return Err(ProxyError::Malformed("version is not 2, or no known command"));
        }
    }
    // Source address, destination address, source port, destination port; then extensions.
    let short = || ProxyError::Malformed("too short for its addresses");
    let peer = match family >> 4 {
        0x1 => {
            let ([a, b, c, d, _, _, _, _, high, low, _, _], _) =
                variable.split_first_chunk::<12>().ok_or_else(short)?;
            let ip = IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d));
            Some(SocketAddr::new(ip, u16::from_be_bytes([*high, *low])))
        }
        0x2 => {
            let (source, rest) = variable.split_first_chunk::<16>().ok_or_else(short)?;
            let (_destination, ports) = rest.split_first_chunk::<16>().ok_or_else(short)?;
            let ([high, low, _, _], _) = ports.split_first_chunk::<4>().ok_or_else(short)?;
            let ip = IpAddr::V6(Ipv6Addr::from(*source)).to_canonical();
            Some(SocketAddr::new(ip, u16::from_be_bytes([*high, *low])))
        }
        _ => None,
    };
    Ok(Parsed::Done(peer))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A header of version 2 with the given command, family and variable part.
    fn v2(command: u8, family: u8, variable: &[u8]) -> Vec<u8> {
        let length = u16::try_from(variable.len()).expect("short").to_be_bytes();
        [&V2_START[..], &[command, family], &length, variable].concat()
    }

    #[test]
    fn headers_name_the_peer() {
        let check = |bytes: &[u8], expected: Option<&str>| {
            let expected = expected.map(|text| text.parse().expect(text));
            assert_eq!(parse(bytes).expect("a header"), Parsed::Done(expected), "{bytes:02x?}");
        };
        let v6 = [&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[1], &[0; 16], &[0, 80, 1, 187]];
        check(b"PROXY TCP4 192.0.2.1 10.0.0.1 4000 1883\r\n", Some("192.0.2.1:4000"));
        check(b"PROXY TCP6 2001:db8::1 ::1 4000 1883\r\n", Some("[2001:db8::1]:4000"));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN anything at all\r\n", None);
        check(b"PROXY UNKNOWN a b c d e f g\r\n", None);
        check(&v2(0x21, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 1, 0, 2, 0]), Some("192.0.2.1:256"));
        check(
            &v2(0x21, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 1, 0, 2, 0, 4, 0, 0]),
            Some("192.0.2.1:256"),
        );
        check(&v2(0x21, 0x21, &v6.concat()), Some("[2001:db8::1]:80"));
        check(&v2(0x20, 0x00, &[]), None);
        check(&v2(0x20, 0x11, &[]), None);
        check(&v2(0x21, 0x31, &[0; 216]), None);
    }

    #[test]
    fn broken_headers_are_refused() {
        let check = |bytes: &[u8]| {
            assert!(matches!(parse(bytes), Err(ProxyError::Malformed(_))), "{bytes:02x?}");
        };
        check(b"PROXY TCP4 ::1 10.0.0.1 4000 1883\r\n");
        check(b"PROXY TCP4 192.0.2.1 10.0.0.1 70000 1883\r\n");
        check(b"PROXY TCP4 192.0.2.1 10.0.0.1 4000\r\n");
        check(b"PROXY TCP4 192.0.2.1 10.0.0.1 4000 1883 5\r\n");
        check(b"PROXY TCP5 192.0.2.1 10.0.0.1 4000 1883\r\n");
        check(&[b"PROXY ".as_slice(), &[b'x'; 101]].concat());
        check(&v2(0x11, 0x11, &[0; 12]));
        check(&v2(0x22, 0x11, &[0; 12]));
        check(&v2(0x21, 0x11, &[0; 11]));
        check(&v2(0x21, 0x21, &[0; 33]));
        check(&v2(0x21, 0x11, &[0; 4097]));
    }

    proptest! {
        /// Whatever comes, the parser asks for more, refuses, or is done; it never asks for bytes
        /// beyond the header, so that nothing of the protocol behind is swallowed.
        #[test]
        fn no_header_reads_beyond_its_end(cut in 0_usize..100, tail in any::<Vec<u8>>()) {
            for header in [
                b"PROXY TCP6 2001:db8::1 ::1 4000 1883\r\n".to_vec(),
                v2(0x21, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 1, 0, 2, 0]),
            ] {
                if cut < header.len() {
                    match parse(&header[..cut]) {
                        Ok(Parsed::Incomplete { missing_min }) => {
                            prop_assert!(missing_min >= 1 && cut + missing_min <= header.len());
                        }
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
            }
            let _ = parse(&tail);
            let _ = parse(&[&V2_START[..], &tail].concat());
            let _ = parse(&[V1_START, &tail, b"\r\n"].concat());
        }
    }

    #[tokio::test]
    async fn the_header_is_taken_off_the_stream_and_nothing_else() {
        let check = async |pieces: &[&[u8]], networks: &[&str], peer: Option<&str>, rest: &[u8]| {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let addr = listener.local_addr().expect("its address");
            let mut client = TcpStream::connect(addr).await.expect("connecting");
            let (mut stream, socket_peer) = listener.accept().await.expect("accepting");
            let networks = Trusted::parse(networks.iter().copied()).expect("networks");
            let send = async {
                for piece in pieces {
                    client.write_all(piece).await.expect("writing");
                    tokio::task::yield_now().await;
                }
                client.shutdown().await.expect("closing");
            };
            let receive = async {
                let peer = real_peer(&mut stream, socket_peer, &networks).await;
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.expect("reading");
                (peer.expect("a peer"), rest)
            };
            let ((), (real, left)) = tokio::join!(send, receive);
            let expected = peer.map_or(socket_peer, |peer| peer.parse().expect(peer));
            assert_eq!((real, left.as_slice()), (expected, rest));
        };
        let local = &["127.0.0.0/8"];
        let v1 = b"PROXY TCP4 192.0.2.1 10.0.0.1 4000 1883\r\n";
        let v2 = v2(0x21, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 1, 0, 2, 0]);
        check(&[v1, b"\x10\x05abcde"], local, Some("192.0.2.1:4000"), b"\x10\x05abcde").await;
        check(&[&v2, b"\r\n\r\n"], local, Some("192.0.2.1:256"), b"\r\n\r\n").await;
        check(&[&v1[..3], &v1[3..20], &v1[20..]], local, Some("192.0.2.1:4000"), b"").await;
        check(&[b"POST /api HTTP/1.1"], local, None, b"POST /api HTTP/1.1").await;
        check(&[b"PUT"], local, None, b"PUT").await;
        check(&[v1], &["10.0.0.0/8"], None, v1).await;
    }
}
