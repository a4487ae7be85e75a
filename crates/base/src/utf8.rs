//! Checking that bytes are UTF-8.

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

/// The line, from 1, in which a byte of the text is.
pub fn line_at(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_makes_no_difference(text in "[a-zé\\u{1f600}]{0,40}", cut in 0..100_usize) {
            let bytes = text.as_bytes();
            let bytes = bytes.get(cut..).unwrap_or(bytes);
            prop_assert_eq!(super::text(bytes), std::str::from_utf8(bytes));
        }
    }
}
