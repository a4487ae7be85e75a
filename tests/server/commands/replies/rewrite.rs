//! `UPDATE_REPLIES=1`: the data files say what the server answers, with the placeholders and the
//! line breaks that they had.

use std::collections::BTreeSet;

use base::Timestamp;
use support::bootstrap::DEMO;

use super::{Names, Step, compact, length_of};

/// The longest line of a data file.
const LINE_MAX: usize = 100;

/// What becomes of a data file, whose lines count from 1.
#[derive(Default)]
pub(super) struct Changes(Vec<Change>);

/// These lines (none: before the first) become others.
struct Change {
    first: usize,
    end: usize,
    text: String,
}

impl Changes {
    /// The reply of a step is another one now.
    ///
    /// # Errors
    ///
    /// If what would be written does not fit the reply.
    pub(super) fn replace(
        &mut self,
        step: &Step,
        reply: &str,
        names: &mut Names,
    ) -> Result<(), String> {
        let text = rewritten(&step.text, &step.breaks, reply, names)?;
        self.0.push(Change { first: step.line, end: step.end, text });
        Ok(())
    }

    /// There is a reply behind a step, and none was expected.
    ///
    /// # Errors
    ///
    /// If what would be written does not fit the reply.
    pub(super) fn insert(
        &mut self,
        behind: &Step,
        reply: &str,
        names: &mut Names,
    ) -> Result<(), String> {
        let text = rewritten("", &BTreeSet::new(), reply, names)?;
        self.0.push(Change { first: behind.end, end: behind.end, text });
        Ok(())
    }

    /// The data file with the changes; none if there are none.
    pub(super) fn apply(self, file: &str) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let mut lines: Vec<_> = file.lines().map(str::to_owned).collect();
        for Change { first, end, text } in self.0.into_iter().rev() {
            lines.splice(first - 1..end - 1, text.lines().map(str::to_owned));
        }
        Some(lines.join("\n") + "\n")
    }
}

/// The lines for a reply, where `expected` stood with line breaks at these places: what is the same
/// keeps its placeholders and breaks.
fn rewritten(
    expected: &str,
    breaks: &BTreeSet<usize>,
    reply: &str,
    names: &mut Names,
) -> Result<String, String> {
    let old = tokens(expected);
    let new: Vec<_> = tokens(reply).into_iter().map(|(_, token)| token).collect();
    let mut pieces = Vec::with_capacity(new.len());
    let mut wanted = aligned(&old, &new, names).into_iter().peekable();
    for (index, token) in new.iter().enumerate() {
        match wanted.next_if(|(_, at)| *at == index) {
            Some((kept, _)) => {
                let (start, text) = old[kept];
                names.compare(text, token)?;
                pieces.push((breaks.contains(&start), text.to_owned()));
            }
            None => pieces.push((false, guessed(token, names))),
        }
    }
    let lines = laid_out(&pieces);
    let joined: String = lines.iter().map(String::as_str).collect();
    names.compare(&compact(&joined), reply).map_err(|why| format!("can't be written: {why}"))?;
    Ok(format!("< {}", lines.join("\n    ")))
}

/// JSON's tokens, each with its place; blanks between them are left out. Of what is no JSON, any
/// text between marks is one.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let bytes = text.as_bytes();
    let (mut tokens, mut start) = (Vec::new(), 0);
    while start < bytes.len() {
        let end = match bytes[start] {
            b' ' => {
                start += 1;
                continue;
            }
            b'"' => start + string_length(&bytes[start..]),
            b'{' | b'}' | b'[' | b']' | b',' | b':' => start + 1,
            _ => {
                let is_mark = |byte: &u8| b" \"{}[],:".contains(byte);
                let length = bytes[start..].iter().position(is_mark);
                length.map_or(bytes.len(), |length| start + length)
            }
        };
        tokens.push((start, &text[start..end]));
        start = end;
    }
    tokens
}

/// The length of the string that begins here, its quotes included.
fn string_length(bytes: &[u8]) -> usize {
    let mut escaped = false;
    let closes = |byte: &u8| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    };
    bytes[1..].iter().position(closes).map_or(bytes.len(), |at| at + 2)
}

/// The longest sequence of tokens that both have, as pairs of their numbers.
fn aligned(old: &[(usize, &str)], new: &[&str], names: &Names) -> Vec<(usize, usize)> {
    let fits = |(_, old): (usize, &str), new: &str| {
        old == new || old.contains('<') && names.clone().compare(old, new).is_ok()
    };
    let width = new.len() + 1;
    // How long it is of what begins at a pair of tokens.
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    for (row, token) in old.iter().enumerate().rev() {
        for column in (0..new.len()).rev() {
            lengths[row * width + column] = if fits(*token, new[column]) {
                lengths[(row + 1) * width + column + 1] + 1
            } else {
                lengths[(row + 1) * width + column].max(lengths[row * width + column + 1])
            };
        }
    }
    let (mut pairs, mut row, mut column) = (Vec::new(), 0, 0);
    while row < old.len() && column < new.len() {
        let without_old = lengths[(row + 1) * width + column];
        if fits(old[row], new[column]) {
            pairs.push((row, column));
            (row, column) = (row + 1, column + 1);
        } else if without_old >= lengths[row * width + column + 1] {
            row += 1;
        } else {
            column += 1;
        }
    }
    pairs
}

/// A token that was not there before, with a placeholder for what looks like differing from run to
/// run.
fn guessed(token: &str, names: &Names) -> String {
    let inner = token.trim_matches('"');
    let quoted = |placeholder: &str| token.replace(inner, &format!("<{placeholder}>"));
    if let Some(name) = names.name_of(inner) {
        return quoted(name);
    }
    let is_all = |kind: &str| !inner.is_empty() && length_of(kind, inner) == Some(inner.len());
    // Seconds since 1970 of now: a time that somebody sent is far from it.
    let now = Timestamp::now().as_millis() / 1000;
    let is_now = |millis: i64| (millis / 1000 - now).abs() < 86_400;
    let time = || Timestamp::parse(inner).is_some_and(|time| is_now(time.as_millis()));
    match () {
        () if is_all("id") && !DEMO.contains(inner) => quoted("id"),
        () if is_all("ref") => quoted("ref"),
        () if is_all("addr") => quoted("addr"),
        () if is_all("time") && time() => quoted("time"),
        () if is_all("millis") && inner.parse().is_ok_and(is_now) => quoted("millis"),
        () => token.to_owned(),
    }
}

/// The lines of these tokens: with the breaks that they bring, and with more behind commas where a
/// line would be too long.
fn laid_out(pieces: &[(bool, String)]) -> Vec<String> {
    let room = LINE_MAX - 4;
    let (mut lines, mut line, mut comma) = (Vec::new(), String::new(), 0);
    for (breaks, token) in pieces {
        if *breaks && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
            comma = 0;
        } else if line.len() + token.len() > room && comma > 0 {
            let rest = line.split_off(comma);
            lines.push(std::mem::replace(&mut line, rest));
            comma = 0;
        }
        line.push_str(token);
        if token == "," {
            comma = line.len();
        }
    }
    lines.push(line);
    lines
}

#[test]
fn what_stays_keeps_its_placeholders_and_line_breaks() {
    let id = "0a".repeat(12);
    let mut names = Names::default();
    names.learn("id:me", &"0b".repeat(12)).expect("new");
    let mut check = |expected: &str, reply: &str, written: &str| {
        let (mut text, mut breaks) = (String::new(), BTreeSet::new());
        for line in expected.lines() {
            breaks.insert(text.len());
            text.push_str(line.trim());
        }
        let found = rewritten(&text, &breaks, reply, &mut names).expect("it fits");
        assert_eq!(found, written, "{expected}");
    };
    let time = "2021-08-10T14:16:10.976Z";
    let expected = "{\"a\":{\"id\":\"<id>\",\"t\":\"<time>\",\n\"b\":1}}";
    check(
        expected,
        &format!(r#"{{"a":{{"id":"{id}","new":"x","t":"{time}","b":2}}}}"#),
        "< {\"a\":{\"id\":\"<id>\",\"new\":\"x\",\"t\":\"<time>\",\n    \"b\":2}}",
    );
    check(expected, r#"{"error":"a, b"}"#, r#"< {"error":"a, b"}"#);
    check(
        "?",
        &format!(r#"{{"id":"{}","other":"{id}","sent":"{time}"}}"#, "0b".repeat(12)),
        r#"< {"id":"<id:me>","other":"<id>","sent":"2021-08-10T14:16:10.976Z"}"#,
    );
    check("", &format!(r#""{}""#, Timestamp::now()), r#"< "<time>""#);
    check("201", "404nothing", "< 404nothing");
    let long = format!("[{}1]", "1234567890,".repeat(12));
    let lines = format!("< [{}\n    {}1]", "1234567890,".repeat(8), "1234567890,".repeat(4));
    check("", &long, &lines);
}

#[test]
fn only_the_lines_of_changed_replies_are_written() {
    let file = "# a\n[http]\n> {}\n< {\"a\":1}\n\n> {}\n# b\n> {}\n< {\"b\":1,\n    \"c\":2}\n";
    let steps = super::read(file);
    let mut changes = Changes::default();
    assert_eq!(Changes::default().apply(file), None);
    let names = &mut Names::default();
    changes.insert(&steps[3], r#"{"new":0}"#, names).expect("written");
    changes.replace(&steps[5], r#"{"b":1,"c":3}"#, names).expect("written");
    let expected = file.replace("> {}\n# b", "> {}\n< {\"new\":0}\n# b").replace(":2", ":3");
    assert_eq!(changes.apply(file), Some(expected));
}
