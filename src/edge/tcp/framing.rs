//! Framing: where one JSON value ends and the next begins.

use base::json::first_special;

/// The next thing in the bytes that have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// A value, at these positions.
    Value {
        /// Where it begins.
        start: usize,
        /// Where what follows it begins.
        end: usize,
    },
    /// A line, or what is left of one, that is no value; it ends here.
    Garbage {
        /// Where what follows it begins.
        end: usize,
    },
    /// The end of a value has not come. What is before this position is blank.
    Nothing {
        /// Where the value begins.
        start: usize,
    },
}

/// Finds values: objects that end in the line in which they begin. It remembers how far it has
/// looked, so that a value which comes in many pieces is looked at once.
#[derive(Debug, Default)]
pub(super) struct Framing {
    /// How many bytes of the unfinished value have been looked at.
    looked: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Framing {
    /// Looks at bytes that begin where the last value ended; after `Nothing`, at the `start` that
    /// it told.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Next {
        let blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let start = bytes.iter().take_while(blank).count();
        let text = bytes.get(start..).unwrap_or_default();
        let (Some(first), looked) = (text.first(), self.looked) else {
            return Next::Nothing { start };
        };
        if *first != b'{' {
            let rest = text.get(looked..).unwrap_or_default();
            let line_end = rest.iter().position(|byte| *byte == b'\n');
            self.looked = line_end.map_or(text.len(), |_| 0);
            return match line_end {
                Some(line_end) => Next::Garbage { end: start + looked + line_end + 1 },
                None => Next::Nothing { start },
            };
        }
        let mut position = looked;
        loop {
            if self.in_string && !self.escaped {
                // Nothing else in a string matters.
                let rest = text.get(position..).unwrap_or_default();
                position += first_special(rest).unwrap_or(rest.len());
            }
            let Some(byte) = text.get(position) else { break };
            if *byte == b'\n' {
                *self = Self::default();
                return Next::Garbage { end: start + position + 1 };
            }
            if self.step(*byte) {
                *self = Self::default();
                return Next::Value { start, end: start + position + 1 };
            }
            position += 1;
        }
        self.looked = text.len();
        Next::Nothing { start }
    }

    /// Takes one more byte of a value; true when it is the last. Only braces are counted: in JSON,
    /// brackets close between them, and a line with a bracket in the wrong place is one mistake and
    /// gets one answer.
    #[inline]
    const fn step(&mut self, byte: u8) -> bool {
        if self.in_string {
            if self.escaped {
                self.escaped = false;
            } else if byte == b'\\' {
                self.escaped = true;
            } else if byte == b'"' {
                self.in_string = false;
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' => self.depth += 1,
            b'}' => {
                self.depth -= 1;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything found in `text` when it comes in pieces of `size` bytes.
    fn frames(text: &str, size: usize) -> Vec<String> {
        let (mut framing, mut rest, mut found) = (Framing::default(), Vec::new(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            rest.extend_from_slice(piece);
            loop {
                let (name, start, end) = match framing.next(&rest) {
                    Next::Value { start, end } => ("", start, end),
                    Next::Garbage { end } => ("!", 0, end),
                    Next::Nothing { start } => {
                        rest.drain(..start);
                        break;
                    }
                };
                let text = String::from_utf8_lossy(&rest[start..end]).trim().to_owned();
                found.push(format!("{name}{text}"));
                rest.drain(..end);
            }
        }
        found
    }

    #[test]
    fn values_are_found_with_and_without_line_ends() {
        let check = |text: &str, expected: &[&str]| {
            for size in [1, 2, 3, 1000] {
                assert_eq!(frames(text, size), expected, "{text:?} in pieces of {size}");
            }
        };
        check("{\"a\":1}\n{\"b\":2}\r\n", &["{\"a\":1}", "{\"b\":2}"]);
        check("{\"a\":1}{\"b\":[{}]} {}", &["{\"a\":1}", "{\"b\":[{}]}", "{}"]);
        check("{\"a\":\"}\\\"{\"}{}", &["{\"a\":\"}\\\"{\"}", "{}"]);
        check("hello\n{}", &["!hello", "{}"]);
        check("{}}\n{}", &["{}", "!}", "{}"]);
        check("{\"a\":]}\n{\"a\":[}\n{]\n{}", &["{\"a\":]}", "{\"a\":[}", "!{]", "{}"]);
        // A line that ends inside a value: the next line is a new beginning.
        check("{\"a\":{\n{}", &["!{\"a\":{", "{}"]);
        check("{\"a\":\"x\n{}", &["!{\"a\":\"x", "{}"]);
        check("\n\n  {", &[]);
    }

    #[test]
    fn no_byte_is_looked_at_twice() {
        for begin in ["{\"a\":\"", "garbage"] {
            let (mut framing, mut bytes) = (Framing::default(), begin.as_bytes().to_vec());
            assert_eq!(framing.next(&bytes), Next::Nothing { start: 0 });
            // Only who looks once more sees this.
            bytes[begin.len() - 1] = b'\n';
            bytes.push(b'a');
            assert_eq!(framing.next(&bytes), Next::Nothing { start: 0 }, "{begin}");
            bytes.push(b'\n');
            assert_eq!(framing.next(&bytes), Next::Garbage { end: bytes.len() }, "{begin}");
            assert_eq!(framing.next(b"{}"), Next::Value { start: 0, end: 2 }, "{begin}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[{}\\[\\]\"\\\\a \n]{0,60}", size in 1_usize..10) {
            prop_assert_eq!(frames(&text, size), frames(&text, 1000));
        }
    }
}
