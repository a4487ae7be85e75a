//! Writing JSON replies where serde is too slow or too general: strings, and raw values without
//! blanks.

use std::io::Write as _;
use std::net::SocketAddr;

use serde::Serialize;

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    if first_special(text.as_bytes()).is_none() {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        push_value(out, text);
    }
}

/// Where the first byte is that can't stand for itself in a JSON string: a quote, a backslash or a
/// control character. Eight bytes are looked at in one step: all strings that come and go are.
#[inline]
pub fn first_special(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The highest bit of each byte that is smaller than `limit`. A byte above such a one may be
    // marked as well, one below never.
    let below =
        |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & (ONES * 0x80);
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = text.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let marks = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
        if marks != 0 {
            return Some(8 * index + marks.trailing_zeros() as usize / 8);
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0x00..0x20);
    rest.iter().position(special).map(|position| 8 * words.len() + position)
}

/// Appends any serialisable value, compact. A value that refuses to be serialised leaves `null`;
/// none of ours does.
pub fn push_value<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

/// Appends a decimal integer.
pub fn push_integer(out: &mut Vec<u8>, value: i64) {
    push_value(out, &value);
}

/// Appends a number, a whole one without a fraction, as Go writes it. What is no number in JSON
/// becomes `null`; no client can send one.
pub fn push_number(out: &mut Vec<u8>, value: f64) {
    match whole(value) {
        Some(whole) => push_integer(out, whole),
        None => push_value(out, &value),
    }
}

/// The number as a whole one if it is one that 53 bits hold: Go, in which the cloud was most likely
/// written, prints `21` and not `21.0`.
pub fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// Appends valid JSON text without the blanks and line ends between its tokens: a reply over TCP
/// is one line.
pub fn push_compact(out: &mut Vec<u8>, json: &str) {
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            out.push(byte);
            in_string = byte == b'"';
        }
    }
}

/// A member's name as [`ObjectWriter`] takes it: `,"name":`, one piece to copy.
#[macro_export]
macro_rules! key {
    ($name:literal) => {
        $crate::json::Key(concat!(",\"", $name, "\":"))
    };
}

pub use key;

/// The name of a member, made by `key!`. Names are ours and need no escapes.
#[derive(Clone, Copy)]
pub struct Key(pub &'static str);

/// Writes the members of one JSON object straight into the reply.
pub struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

/// The two digits of each byte. A row of a listing has 76 of them: data-encoding, which everything
/// else uses, takes twice the instructions (docs/decisions/0008-which-libraries.md).
const HEX_PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0x0f]];
        byte += 1;
    }
    pairs
};

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
    pub fn name(&mut self, key: Key) -> &mut Vec<u8> {
        let comma = usize::from(self.empty);
        self.empty = false;
        self.out.extend_from_slice(key.0.as_bytes().get(comma..).unwrap_or_default());
        self.out
    }

    /// A member that is a string.
    pub fn string(&mut self, key: Key, value: &str) {
        push_string(self.name(key), value);
    }

    /// A member that is a whole number.
    pub fn integer(&mut self, key: Key, value: u64) {
        push_value(self.name(key), &value);
    }

    /// A member that is a number.
    pub fn number(&mut self, key: Key, value: f64) {
        push_number(self.name(key), value);
    }

    /// A member that is true or false.
    pub fn flag(&mut self, key: Key, value: bool) {
        self.name(key).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A member that is identifying bytes in hexadecimal.
    pub fn hex<const BYTES: usize>(&mut self, key: Key, value: &[u8; BYTES]) {
        let out = self.name(key);
        out.push(b'"');
        out.reserve(2 * BYTES);
        value.iter().for_each(|byte| out.extend_from_slice(&HEX_PAIRS[usize::from(*byte)]));
        out.push(b'"');
    }

    /// A member that is a point in time.
    pub fn time(&mut self, key: Key, value: crate::timestamp::Timestamp) {
        let out = self.name(key);
        out.push(b'"');
        out.extend_from_slice(&value.to_rfc3339());
        out.push(b'"');
    }
}

/// Appends `ip:port`, or `[ip]:port`, without the machinery of `fmt` for the usual kind.
pub fn push_address(out: &mut Vec<u8>, address: SocketAddr) {
    let SocketAddr::V4(address) = address else {
        // Writing to a Vec can't fail.
        let _ = write!(out, "{address}");
        return;
    };
    for (octet, end) in address.ip().octets().into_iter().zip(*b"...:") {
        push_value(out, &octet);
        out.push(end);
    }
    push_value(out, &address.port());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn special_bytes_are_found_where_they_are(
            text in proptest::collection::vec(
                prop_oneof![Just(b'a'), Just(b' '), Just(b'!'), Just(b'#'), Just(b']'), any::<u8>()],
                0..40,
            )
        ) {
            let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
            prop_assert_eq!(first_special(&text), text.iter().position(special));
        }
    }

    #[test]
    fn compact_text_keeps_what_is_inside_strings() {
        let check = |json: &str, expected: &str| {
            let mut out = Vec::new();
            push_compact(&mut out, json);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check("{ \"a b\" : [ 1 ,\n2 ] }", r#"{"a b":[1,2]}"#);
        check(r#"{"a":" \" \\" , "b":1}"#, r#"{"a":" \" \\","b":1}"#);
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        let check = |value: f64, expected: &str| {
            let mut out = Vec::new();
            push_number(&mut out, value);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check(21.0, "21");
        check(-0.0, "0");
        check(-2.5, "-2.5");
        check(1e16, "1e+16");
        check(9_007_199_254_740_992.0, "9007199254740992");
        check(f64::NAN, "null");
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for text in ["127.0.0.1:50061", "255.255.255.255:65535", "0.0.0.0:0", "[::1]:8080"] {
            let mut out = Vec::new();
            push_address(&mut out, text.parse().expect("an address"));
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }

    #[test]
    fn an_object_has_commas_between_its_members_only() {
        let mut out = Vec::new();
        ObjectWriter::new(&mut out).end();
        let mut object = ObjectWriter::new(&mut out);
        object.string(key!("a"), "\"");
        object.integer(key!("b"), 7);
        object.hex(key!("c"), &[0x0f, 0xa0]);
        object.end();
        assert_eq!(String::from_utf8_lossy(&out), r#"{}{"a":"\"","b":7,"c":"0fa0"}"#);
    }

    proptest! {
        #[test]
        fn a_string_is_what_serde_writes(text in "\\PC*|[\\x00-\\x7f]{0,20}") {
            let mut out = Vec::new();
            push_string(&mut out, &text);
            prop_assert_eq!(out, serde_json::to_vec(&text).expect("a string"));
        }
    }
}
