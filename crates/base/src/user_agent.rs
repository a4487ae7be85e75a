//! What a client over HTTP calls itself.

use serde::{Deserialize, Serialize};

use crate::{limits, utf8};

/// What a client over HTTP says of itself (RFC 9110, 10.1.5), as much as is kept of it: a bounded
/// text without control characters, and never an empty one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserAgent(Box<str>);

impl UserAgent {
    /// Reads the value of the header; none if it says nothing.
    pub fn read(value: &[u8]) -> Option<Self> {
        let text = utf8::lossy(value);
        let shown = text.chars().filter(|c| !c.is_control()).skip_while(|c| c.is_whitespace());
        let kept: String = shown.take(limits::USER_AGENT_CHARS_MAX).collect();
        let kept = kept.trim_end();
        (!kept.is_empty()).then(|| Self(kept.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_kept_of_a_user_agent() {
        let check = |value: &[u8], kept: Option<&str>| {
            let read = UserAgent::read(value);
            assert_eq!(read.as_ref().map(UserAgent::as_str), kept, "{value:?}");
        };
        check(b"curl/8.5.0", Some("curl/8.5.0"));
        check(b"  Mozilla/5.0 (X11; Linux x86_64)\t", Some("Mozilla/5.0 (X11; Linux x86_64)"));
        check(b"a\tb\x7f\xc2\x85c", Some("abc"));
        check("M\u{f6}wer \u{1f69c}".as_bytes(), Some("M\u{f6}wer \u{1f69c}"));
        check(b"caf\xe9", Some("caf\u{fffd}"));
        check(b"", None);
        check(b" \t\x01 ", None);
        let long = "\u{1f69c}".repeat(limits::USER_AGENT_CHARS_MAX + 1);
        check(long.as_bytes(), Some(&long[..4 * limits::USER_AGENT_CHARS_MAX]));
        check(&b"ab ".repeat(1000), Some("ab ".repeat(67)[..200].trim_end()));
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_has_no_control_characters(value: Vec<u8>) {
            let Some(kept) = UserAgent::read(&value) else { return Ok(()) };
            let text = kept.as_str();
            prop_assert!(!text.is_empty() && text.trim() == text);
            prop_assert!(text.chars().count() <= limits::USER_AGENT_CHARS_MAX);
            prop_assert!(!text.contains(char::is_control));
            prop_assert_eq!(UserAgent::read(text.as_bytes()), Some(kept.clone()));
        }
    }
}
