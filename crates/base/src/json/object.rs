//! Objects written member by member, and values that listings have many of.

use std::io::Write as _;
use std::net::{SocketAddr, SocketAddrV4};

use super::{DIGIT_PAIRS, push_number, push_string, push_unsigned};
use crate::timestamp::Timestamp;

/// The name of a member, made by `key!`. Names are ours and need no escapes.
#[derive(Clone, Copy)]
pub struct Key(pub &'static str);

/// Writes the members of one JSON object straight into the reply.
pub struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> ObjectWriter<'a> {
    /// Begins an object.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Goes on with an object that has members already.
    pub const fn further(out: &'a mut Vec<u8>) -> Self {
        Self { out, empty: false }
    }

    /// Members that [`ObjectWriter::further`] has written, behind at least one other.
    pub fn members(&mut self, written: &[u8]) {
        self.out.extend_from_slice(written);
    }

    /// Ends the object.
    pub fn end(self) {
        self.out.push(b'}');
    }

    /// Writes a member's name; the value is appended to what is returned.
    // A row of a listing has some thirty: where the length is known, copying is a few moves.
    #[inline]
    pub fn name(&mut self, key: Key) -> &mut Vec<u8> {
        if self.empty {
            return self.first_name(key);
        }
        self.out.extend_from_slice(key.0.as_bytes());
        self.out
    }

    fn first_name(&mut self, key: Key) -> &mut Vec<u8> {
        self.empty = false;
        self.out.extend_from_slice(key.0.as_bytes().get(1..).unwrap_or_default());
        self.out
    }

    /// A member that is a string.
    #[inline]
    pub fn string(&mut self, key: Key, value: &str) {
        push_string(self.name(key), value);
    }

    /// A member that is a whole number.
    #[inline]
    pub fn integer(&mut self, key: Key, value: u64) {
        push_unsigned(self.name(key), value);
    }

    /// A member that is a number.
    pub fn number(&mut self, key: Key, value: f64) {
        push_number(self.name(key), value);
    }

    /// A member that is true or false.
    #[inline]
    pub fn flag(&mut self, key: Key, value: bool) {
        self.name(key).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A member that is identifying bytes in hexadecimal.
    #[inline]
    pub fn hex<const BYTES: usize>(&mut self, key: Key, value: &[u8; BYTES]) {
        push_hex(self.name(key), value);
    }

    /// A member that is a point in time.
    #[inline]
    pub fn time(&mut self, key: Key, value: Timestamp) {
        push_time(self.name(key), value);
    }
}

/// Identifying bytes in hexadecimal. A row of a listing has 32 of its own: data-encoding, which
/// everything else uses, takes twice the instructions (docs/decisions/0008-which-libraries.md).
/// Without a table, several are made in one step.
#[inline]
pub fn hex_digits<const BYTES: usize>(value: &[u8; BYTES]) -> [[u8; 2]; BYTES] {
    let digit = |nibble: u8| nibble + b'0' + (b'a' - b'0' - 10) * u8::from(nibble > 9);
    let mut digits = [[0; 2]; BYTES];
    for (pair, byte) in digits.iter_mut().zip(value) {
        *pair = [digit(byte >> 4), digit(byte & 0x0f)];
    }
    digits
}

/// Appends identifying bytes in hexadecimal, as a string.
#[inline]
pub fn push_hex<const BYTES: usize>(out: &mut Vec<u8>, value: &[u8; BYTES]) {
    let digits = hex_digits(value);
    out.reserve(2 * BYTES + 2);
    out.push(b'"');
    out.extend_from_slice(digits.as_flattened());
    out.push(b'"');
}

/// Appends a point in time, as a string.
#[inline]
pub fn push_time(out: &mut Vec<u8>, value: Timestamp) {
    let mut text = [b'"'; 26];
    text[1..25].copy_from_slice(&value.to_rfc3339());
    out.extend_from_slice(&text);
}

/// Appends `ip:port`, or `[ip]:port`, without the machinery of `fmt` for the usual kind.
pub fn push_address(out: &mut Vec<u8>, address: SocketAddr) {
    let SocketAddr::V4(address) = address else {
        // Writing to a Vec can't fail.
        let _ = write!(out, "{address}");
        return;
    };
    let (text, len) = address_text(address);
    out.extend_from_slice(text.get(..len).unwrap_or_default());
}

/// `ip:port`, and how many bytes that is.
#[inline]
pub fn address_text(address: SocketAddrV4) -> ([u8; 24], usize) {
    let (mut text, mut len) = ([0; 24], 0);
    for octet in address.ip().octets() {
        let (digits, bytes) = OCTETS[usize::from(octet)];
        text[len..len + 4].copy_from_slice(&digits);
        len += bytes;
    }
    text[len - 1] = b':';
    let port = usize::from(address.port());
    let ([b, c], [d, e]) = (DIGIT_PAIRS[port / 100 % 100], DIGIT_PAIRS[port % 100]);
    let zeros = [10, 100, 1000, 10_000].iter().filter(|least| port < **least).count();
    // Those in front are shifted out.
    let digits = u64::from_le_bytes([b'0' + (port / 10_000) as u8, b, c, d, e, 0, 0, 0]);
    text[len..len + 8].copy_from_slice(&(digits >> (8 * zeros)).to_le_bytes());
    (text, len + 5 - zeros)
}

/// The decimal digits of each byte with a dot behind them, and how many bytes that is.
const OCTETS: [([u8; 4], usize); 256] = {
    let mut texts = [([0; 4], 0); 256];
    let mut byte = 0;
    while byte < 256 {
        let digits = [b'0' + byte as u8 / 100, b'0' + byte as u8 / 10 % 10, b'0' + byte as u8 % 10];
        let [hundreds, tens, ones] = digits;
        texts[byte] = match byte {
            0..10 => ([ones, b'.', 0, 0], 2),
            10..100 => ([tens, ones, b'.', 0], 3),
            _ => ([hundreds, tens, ones, b'.'], 4),
        };
        byte += 1;
    }
    texts
};
