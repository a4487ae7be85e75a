//! JSON where serde is too slow, too general or too strict: writing strings and raw values without
//! blanks, and reading text with ill-formed Unicode.

use std::borrow::Cow;
use std::io;

use memchr::memchr;
use serde::Serialize;

use crate::{utf8, yield_point};

mod object;

/// JSON text whose Unicode may be ill-formed, as Go's decoder reads it (`docs/protocol/tr50.md` 2):
/// each byte that is not part of well-formed UTF-8, and each escape of a surrogate without its
/// other half, is U+FFFD. What is no JSON stays so.
pub fn well_formed(bytes: &[u8]) -> Cow<'_, str> {
    let text = utf8::lossy(bytes);
    if has_lone_surrogate(&text) { Cow::Owned(without_lone_surrogates(&text)) } else { text }
}

/// Whether there is an escape of a surrogate without its other half. serde_json passes over them in
/// values that it does not look into, and refuses them in others.
pub fn has_lone_surrogate(json: &str) -> bool {
    LoneSurrogates { json, at: 0 }.next().is_some()
}

fn without_lone_surrogates(json: &str) -> String {
    let (mut text, mut done) = (String::with_capacity(json.len()), 0);
    for at in (LoneSurrogates { json, at: 0 }) {
        text.push_str(json.get(done..at).unwrap_or_default());
        text.push(char::REPLACEMENT_CHARACTER);
        done = at + ESCAPE_BYTES;
    }
    text.push_str(json.get(done..).unwrap_or_default());
    text
}

/// Bytes of `\uXXXX`.
const ESCAPE_BYTES: usize = 6;

/// Where escapes of surrogates without their other half are.
struct LoneSurrogates<'a> {
    json: &'a str,
    /// How far they have been looked for.
    at: usize,
}

impl Iterator for LoneSurrogates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let escape = |at: usize| {
            let digits = self.json.get(at..at + ESCAPE_BYTES)?.strip_prefix("\\u")?;
            let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            u16::from_str_radix(digits, 16).ok().filter(|_| hexadecimal)
        };
        loop {
            // Byte by byte: what follows a backslash in text that is no JSON may be any character.
            let rest = self.json.as_bytes().get(self.at..)?;
            let at = self.at + memchr(b'\\', rest)?;
            self.at = at + 2;
            match escape(at) {
                Some(0xd800..=0xdbff) => {
                    if matches!(escape(at + ESCAPE_BYTES), Some(0xdc00..=0xdfff)) {
                        self.at = at + 2 * ESCAPE_BYTES;
                        continue;
                    }
                }
                Some(0xdc00..=0xdfff) => {}
                _ => continue,
            }
            self.at = at + ESCAPE_BYTES;
            return Some(at);
        }
    }
}

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
    if serde_json::to_writer(Text { passed: start, out: &mut *out }, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

/// Text that is written; whoever writes much of it yields now and then.
struct Text<'o> {
    out: &'o mut Vec<u8>,
    /// How long it was at the last yield point.
    passed: usize,
}

impl io::Write for Text<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.extend_from_slice(bytes);
        if self.out.len() - self.passed >= TEXT_BETWEEN_YIELDS {
            self.passed = self.out.len();
            yield_point::pass();
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of text that are written between two yield points: some ten microseconds.
const TEXT_BETWEEN_YIELDS: usize = 8 * 1024;

/// Appends a decimal integer.
pub fn push_integer(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_unsigned(out, value.unsigned_abs());
}

/// The decimal digits of what has two, with a leading zero.
pub(crate) const DIGIT_PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut value = 0;
    while value < 100 {
        pairs[value] = [b'0' + value as u8 / 10, b'0' + value as u8 % 10];
        value += 1;
    }
    pairs
};

/// Appends a decimal integer that is not negative. Most of a listing's have four digits at most.
#[inline]
pub fn push_unsigned(out: &mut Vec<u8>, value: u64) {
    let pair = |value: u64| DIGIT_PAIRS[(value % 100) as usize];
    match value {
        0..10 => out.push(b'0' + value as u8),
        10..100 => out.extend_from_slice(&pair(value)),
        100..1000 => {
            let [tens, ones] = pair(value);
            out.extend_from_slice(&[b'0' + (value / 100) as u8, tens, ones]);
        }
        1000..10_000 => {
            let ([a, b], [c, d]) = (pair(value / 100), pair(value));
            out.extend_from_slice(&[a, b, c, d]);
        }
        _ => push_large(out, value),
    }
}

/// The same from 10,000 on.
fn push_large(out: &mut Vec<u8>, value: u64) {
    let (mut digits, mut begin, mut rest) = ([b'0'; 20], 20, value);
    while rest > 0 {
        begin -= 2;
        digits[begin..begin + 2].copy_from_slice(&DIGIT_PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
    begin += usize::from(digits[begin] == b'0');
    out.extend_from_slice(&digits[begin..]);
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

pub use object::{Key, ObjectWriter, address_text, hex_digits, push_address, push_hex, push_time};

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
    fn ill_formed_unicode_is_read_as_go_reads_it() {
        let check = |json: &[u8], expected: &str| {
            let read = well_formed(json);
            assert_eq!(read, expected, "{:?}", String::from_utf8_lossy(json));
            let same = read.as_bytes() == json;
            assert_eq!(matches!(read, Cow::Borrowed(_)), same, "copied when it has to be");
        };
        check(br#"{"a":"\ud83d\ude00"}"#, r#"{"a":"\ud83d\ude00"}"#);
        check(br#""\ud83d""#, "\"\u{fffd}\"");
        check(br#""\uD83Dx\uDE00""#, "\"\u{fffd}x\u{fffd}\"");
        check(br#""\ud83d\ud83d\ude00""#, "\"\u{fffd}\\ud83d\\ude00\"");
        check(br#""\ude00\ud83d""#, "\"\u{fffd}\u{fffd}\"");
        // What follows is read on its own.
        check(br#""\ud83d\u0041\n\ud83d\"""#, "\"\u{fffd}\\u0041\\n\u{fffd}\\\"\"");
        // A backslash, and letters.
        check(br#""\\ud83d""#, r#""\\ud83d""#);
        check(br#""\\\ud83d""#, "\"\\\\\u{fffd}\"");
        // No escapes.
        for text in [r#""\ud83"#, r#""\u+83d""#, r#""\"#, r#""\u"#, "\\é\\ud83"] {
            check(text.as_bytes(), text);
        }
        check(b"\"\\ud83d\xb0\\ude00\"", "\"\u{fffd}\u{fffd}\u{fffd}\"");
        check(b"{\"\xb0\":\"\\u00b0\"}", "{\"\u{fffd}\":\"\\u00b0\"}");
    }

    /// The text of a JSON string as Go's `unquote` reads it, unit by unit; none if it is no string.
    fn unquoted_as_go(json: &[u8]) -> Option<String> {
        let mut rest = json.strip_prefix(b"\"")?;
        let mut text = String::new();
        let unit = |rest: &[u8]| {
            let digits = std::str::from_utf8(rest.strip_prefix(b"\\u")?.get(..4)?).ok()?;
            let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            u16::from_str_radix(digits, 16).ok().filter(|_| hexadecimal)
        };
        loop {
            let (first, tail) = rest.split_first()?;
            match (first, unit(rest)) {
                (b'"', _) => return tail.is_empty().then_some(text),
                (0..0x20, _) => return None,
                (b'\\', Some(high)) => {
                    let pair = unit(&rest[6..]).map(|low| [high, low]);
                    let pair = pair.and_then(|pair| String::from_utf16(&pair).ok());
                    let pair = pair.filter(|pair| pair.chars().count() == 1);
                    rest = &rest[if pair.is_some() { 12 } else { 6 }..];
                    let alone = || String::from_utf16_lossy(&[high]);
                    text.push_str(&pair.unwrap_or_else(alone));
                }
                (b'\\', None) => {
                    let (escaped, tail) = tail.split_first()?;
                    let at = b"\"\\/bfnrt".iter().position(|known| known == escaped)?;
                    text.push(['"', '\\', '/', '\u{8}', '\u{c}', '\n', '\r', '\t'][at]);
                    rest = tail;
                }
                _ => {
                    let plain = rest.iter().take_while(|b| **b >= 0x20 && !b"\"\\".contains(b));
                    let (plain, tail) = rest.split_at(plain.count());
                    text.push_str(&utf8::lossy(plain));
                    rest = tail;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn strings_are_read_as_go_reads_them(
            parts in proptest::collection::vec(
                prop_oneof![
                    r"\\u[dD][89abcdefABCDEF][0-9a-f]{2}".prop_map(String::into_bytes),
                    r#"\\["\\/bfnrtux]|\\u[0-9a-f]{3,4}|[a-z°€\u{1f600}]|\\"#
                        .prop_map(String::into_bytes),
                    proptest::collection::vec(0x80_u8..=0xff, 1..4),
                    proptest::collection::vec(any::<u8>(), 1..2),
                ],
                0..8,
            ),
        ) {
            let json = [&b"\""[..], &parts.concat(), b"\""].concat();
            let read = serde_json::from_str::<String>(&well_formed(&json)).ok();
            prop_assert_eq!(read, unquoted_as_go(&json));
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
    fn integers_are_written_as_serde_writes_them() {
        let powers = (0..19).map(|power| 10_i64.pow(power));
        for value in powers.flat_map(|power| [power - 1, power, power + 1, 7 * power]) {
            for value in [value, -value, value.wrapping_mul(-3)] {
                let mut out = Vec::new();
                push_integer(&mut out, value);
                assert_eq!(String::from_utf8_lossy(&out), value.to_string());
            }
        }
        for value in [i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            push_integer(&mut out, value);
            assert_eq!(String::from_utf8_lossy(&out), value.to_string());
        }
        let mut out = Vec::new();
        push_unsigned(&mut out, u64::MAX);
        assert_eq!(String::from_utf8_lossy(&out), u64::MAX.to_string());
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
