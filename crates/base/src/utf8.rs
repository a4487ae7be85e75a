//! Checking that bytes are UTF-8, and reading those that are not.

use std::borrow::Cow;
use std::str::Utf8Error;

use ascii::AsciiStr;

/// As [`std::str::from_utf8`], which takes nine instructions for a byte of a short text: names and
/// small requests are ASCII, which shows in less than one.
///
/// # Errors
///
/// The bytes are not UTF-8.
#[inline]
pub fn text(bytes: &[u8]) -> Result<&str, Utf8Error> {
    match AsciiStr::from_ascii(bytes) {
        Ok(text) => Ok(text.as_str()),
        Err(_) => std::str::from_utf8(bytes),
    }
}

/// The text of bytes that may be ill-formed, as Go reads it (`docs/protocol/tr50.md` 0, fact 26):
/// each byte that is not part of well-formed UTF-8 is one U+FFFD. [`String::from_utf8_lossy`] makes
/// one of several where they begin a character that was cut.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = text(bytes) {
        return Cow::Borrowed(text);
    }
    let mut lossy = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        lossy.push_str(chunk.valid());
        lossy.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(lossy)
}

/// The line, from 1, in which a byte of the text is.
pub fn line_at(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    /// What Go's decoder does, byte by byte: `utf8.DecodeRune` has width 1 for what is ill-formed.
    fn read_as_go(bytes: &[u8]) -> String {
        let (mut rest, mut text) = (bytes, String::new());
        while !rest.is_empty() {
            let whole = |width: &usize| rest.get(..*width).is_some_and(is_one_char);
            let width = (1..=4).find(whole);
            match width.and_then(|width| std::str::from_utf8(&rest[..width]).ok()) {
                Some(char) => text.push_str(char),
                None => text.push('\u{fffd}'),
            }
            rest = &rest[width.unwrap_or(1)..];
        }
        text
    }

    fn is_one_char(bytes: &[u8]) -> bool {
        std::str::from_utf8(bytes).is_ok_and(|text| text.chars().count() == 1)
    }

    #[test]
    fn every_ill_formed_byte_is_one_replacement() {
        let check = |bytes: &[u8], expected: &str| {
            assert_eq!(super::lossy(bytes), expected, "{bytes:?}");
        };
        check(b"", "");
        check("23°C".as_bytes(), "23°C");
        check(b"23\xb0C", "23\u{fffd}C");
        // A character that was cut: three bytes of four.
        check(b"\xf0\x9f\x98", "\u{fffd}\u{fffd}\u{fffd}");
        check(b"\xe2\x82A", "\u{fffd}\u{fffd}A");
        // CESU-8: two surrogates of three bytes.
        check(b"\xed\xa0\xbd\xed\xb8\x80", &"\u{fffd}".repeat(6));
        check(b"\xc0\x80\xff", "\u{fffd}\u{fffd}\u{fffd}");
        assert!(matches!(super::lossy("é".as_bytes()), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn ill_formed_bytes_are_read_as_go_reads_them(
            parts in proptest::collection::vec(
                prop_oneof![
                    any::<char>().prop_map(|char| char.to_string().into_bytes()),
                    proptest::collection::vec(0x80_u8..=0xff, 1..5),
                    proptest::collection::vec(any::<u8>(), 1..3),
                ],
                0..8,
            ),
            cut in 0..4_usize,
        ) {
            let mut bytes = parts.concat();
            bytes.truncate(bytes.len().saturating_sub(cut));
            prop_assert_eq!(super::lossy(&bytes).into_owned(), read_as_go(&bytes));
        }

        #[test]
        fn it_makes_no_difference(text in "[a-zé\\u{1f600}]{0,40}", cut in 0..100_usize) {
            let bytes = text.as_bytes();
            let bytes = bytes.get(cut..).unwrap_or(bytes);
            prop_assert_eq!(super::text(bytes), std::str::from_utf8(bytes));
        }
    }
}
