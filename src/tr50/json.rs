//! The little of JSON that a reply needs beside serde: strings, and raw values made compact.

use serde::Serialize;

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    if text.as_bytes().iter().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        push_value(out, text);
    }
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

/// Writes the members of one JSON object straight into the reply. Names are trusted: they are ours
/// and need no escapes.
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

    /// Ends the object.
    pub fn end(self) {
        self.out.push(b'}');
    }

    /// Writes a member's name; the value is appended to what is returned.
    pub fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A member that is a string.
    pub fn string(&mut self, name: &str, value: &str) {
        push_string(self.name(name), value);
    }

    /// A member that is a whole number.
    pub fn integer(&mut self, name: &str, value: u64) {
        push_value(self.name(name), &value);
    }

    /// A member that is true or false.
    pub fn flag(&mut self, name: &str, value: bool) {
        self.name(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A member that is identifying bytes in hexadecimal.
    pub fn hex<const BYTES: usize>(&mut self, name: &str, value: &[u8; BYTES]) {
        let out = self.name(name);
        out.push(b'"');
        let start = out.len();
        out.resize(start + 2 * BYTES, 0);
        crate::id::put_hex(value, &mut out[start..]);
        out.push(b'"');
    }

    /// A member that is a point in time.
    pub fn time(&mut self, name: &str, value: crate::timestamp::Timestamp) {
        let out = self.name(name);
        out.push(b'"');
        out.extend_from_slice(&value.to_rfc3339());
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn a_string_is_what_serde_writes(text in "\\PC*|[\\x00-\\x7f]{0,20}") {
            let mut out = Vec::new();
            push_string(&mut out, &text);
            prop_assert_eq!(out, serde_json::to_vec(&text).expect("a string"));
        }
    }
}
