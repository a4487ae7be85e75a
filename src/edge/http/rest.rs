//! The portal's REST style (`docs/protocol/tr50.md` 1.3, "REST, portal style"): the command in the
//! path, its parameters as the fields of a form.

use base::{limits, utf8};
use percent_encoding::{percent_decode, percent_decode_str};

use crate::tr50::over_http::Fields;

/// The fields of a body of the type `application/x-www-form-urlencoded`.
pub(super) fn fields(form: &[u8]) -> Fields {
    pairs(form).collect()
}

/// The field `sessionId`, which is no parameter, and the others.
pub(super) fn session_and_fields(form: &[u8]) -> (Option<String>, Fields) {
    let mut session = None;
    let mut fields = Fields::new();
    for (name, value) in pairs(form) {
        if name.eq_ignore_ascii_case("sessionId") {
            session = Some(value);
        } else {
            fields.push((name, value));
        }
    }
    (session, fields)
}

/// The name of a command as a path has it.
pub(super) fn command_name(segment: &str) -> Option<String> {
    let segment = segment.strip_suffix('/').unwrap_or(segment);
    let name = percent_decode_str(segment).decode_utf8_lossy();
    (!name.is_empty() && !name.contains('/')).then(|| name.into_owned())
}

/// The name and value of each field, in the order of the form. What is no triple like `%41` stays.
/// What is not UTF-8 is read as in JSON; `form_urlencoded` reads a cut character otherwise. Of more
/// than a command may have, and the session, one more: enough to be refused.
fn pairs(form: &[u8]) -> impl Iterator<Item = (String, String)> {
    let pairs = form.trim_ascii().split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs.take(limits::COMMANDS_PER_REQUEST + 2).map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let mut part = || {
            let raw = parts.next().unwrap_or_default();
            let spaced: Vec<u8> = raw.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
            let bytes: Vec<u8> = percent_decode(&spaced).collect();
            utf8::lossy(&bytes).into_owned()
        };
        (part(), part())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owned(fields: &[(&str, &str)]) -> Fields {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn forms_have_a_session_and_fields() {
        let check = |form: &[u8], session: Option<&str>, expected: &[(&str, &str)]| {
            let read = session_and_fields(form);
            assert_eq!(read, (session.map(str::to_owned), owned(expected)), "{form:?}");
        };
        check(
            b"sessionid=5f&key=m%C3%B6wer&empty=&flag&&%zz=%4",
            Some("5f"),
            &[("key", "m\u{f6}wer"), ("empty", ""), ("flag", ""), ("%zz", "%4")],
        );
        check(b"", None, &[]);
        check(b" \r\n", None, &[]);
        check(b"&&", None, &[]);
        check(b"=&a=b=c", None, &[("", ""), ("a", "b=c")]);
        // Which of those that are given twice counts is the command's to say.
        check(b"a=1&b=2&a=3&A=4", None, &[("a", "1"), ("b", "2"), ("a", "3"), ("A", "4")]);
        check(b"SESSIONID=a&sessionId=", Some(""), &[]);
        // What is not UTF-8 is replaced, byte by byte.
        check(b"a=\xf0%9f\x98", None, &[("a", "\u{fffd}\u{fffd}\u{fffd}")]);
        check(b"a=%ff&\xff=b%C3", None, &[("a", "\u{fffd}"), ("\u{fffd}", "b\u{fffd}")]);
        check(b"a=%00%22%5C+%2b%zz%", None, &[("a", "\0\"\\ +%zz%")]);
        // A '%' that begins no triple is itself, whatever follows; nothing is read twice.
        check(b"%=%&%4=%4g&%%41=%2541", None, &[("%", "%"), ("%4", "%4g"), ("%A", "%41")]);
        check(b"a%3Db=%26%3d&+=%20+", None, &[("a=b", "&="), (" ", "  ")]);
        check(b"%EF%BB%BFa=\xef\xbb\xbf", None, &[("\u{feff}a", "\u{feff}")]);
        check(b"a=1;b=2&=", None, &[("a", "1;b=2"), ("", "")]);
        check(b"\x0b a=\x0c \n", None, &[("\u{b} a", "")]);
    }

    #[test]
    fn a_login_takes_all_fields() {
        let form = b"username=a%40b.example&password=p+w%2B&sessionId=5f\r\n";
        let expected = [("username", "a@b.example"), ("password", "p w+"), ("sessionId", "5f")];
        assert_eq!(fields(form), owned(&expected));
    }

    #[test]
    fn command_names_come_from_the_path() {
        assert_eq!(command_name("session.list/").as_deref(), Some("session.list"));
        assert_eq!(command_name("session%2Elist").as_deref(), Some("session.list"));
        for (odd, name) in [("a+b", "a+b"), ("%zz%", "%zz%"), ("%ff", "\u{fffd}"), ("%00", "\0")] {
            assert_eq!(command_name(odd).as_deref(), Some(name), "{odd:?}");
        }
        for bad in ["", "/", "a/b", "a%2fb", "a//"] {
            assert_eq!(command_name(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn fields_are_read_as_they_were_written(
            texts in proptest::collection::vec((any::<String>(), any::<String>()), 0..5),
        ) {
            let encode = |text: &str| {
                text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>()
            };
            let field = |(name, value): &(String, String)| {
                format!("{}={}", encode(name), encode(value))
            };
            let form = texts.iter().map(field).collect::<Vec<_>>().join("&");
            prop_assert_eq!(fields(form.as_bytes()), texts);
        }

        #[test]
        fn every_form_can_be_read(form in any::<Vec<u8>>()) {
            let (session, read) = session_and_fields(&form);
            let is_session = |(name, _): &(String, String)| name.eq_ignore_ascii_case("sessionId");
            let all = fields(&form).into_iter();
            let (sessions, others): (Fields, Fields) = all.partition(is_session);
            prop_assert_eq!(session, sessions.into_iter().next_back().map(|(_, value)| value));
            prop_assert_eq!(read, others);
        }
    }
}
