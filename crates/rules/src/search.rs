//! Texts as they are searched: entries of fields, many in a row, so that one look goes through
//! thousands of them.
//!
//! Entry and needle are folded: case, the ways to write a letter (NFKC), and what is invisible say
//! nothing. A byte that no UTF-8 has begins each field and says which it is; so the bytes around a
//! match tell whether it is the whole field, its beginning, or a part of it.

use std::ops::Range;

use memchr::memmem::Finder;
use memchr::{memchr, memrchr};
use unicode_normalization::UnicodeNormalization as _;

use crate::identity::is_unseen;

/// Begins the field 0, and with it an entry; that of field n is n more.
const ENTRY: u8 = 0xf5;

/// The field that is not searched: a text as it was written.
const WRITTEN: u8 = 10;

/// Pieces that a needle has at most; of a text with more, the whole has to occur.
const PIECES_MAX: usize = 8;

/// How much of a field is what is looked for. The order is that of the results.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// All of it.
    Exact,
    /// Its beginning.
    Prefix,
    /// Something in it.
    Part,
}

/// Where in an entry something was found. The best comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Match {
    /// How much of the field it is.
    pub class: Class,
    /// The field.
    pub field: u8,
}

impl Class {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Part => "part",
        }
    }
}

/// Appends a field, of which an entry has ten at most; 0 begins an entry.
pub fn push_field(entry: &mut Vec<u8>, field: u8, text: &str) {
    debug_assert!(field < WRITTEN, "there are ten");
    entry.push(ENTRY + field);
    fold(text, entry);
}

/// Appends a text that is not searched, as it is. It is the entry's last.
pub fn push_written(entry: &mut Vec<u8>, text: &str) {
    entry.push(ENTRY + WRITTEN);
    entry.extend_from_slice(text.as_bytes());
}

/// The first field of an entry, and the text of [`push_written`] if it has one.
pub fn first_and_written(entry: &[u8]) -> (&[u8], Option<&[u8]>) {
    let text = entry.get(1..).unwrap_or_default();
    let first = text.split(|byte| *byte >= ENTRY).next().unwrap_or_default();
    let written = memrchr(ENTRY + WRITTEN, text).and_then(|at| text.get(at + 1..));
    (first, written)
}

/// The entry that begins here, and what is behind it.
pub fn split_entry(entries: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = entries.get(1..)?;
    let end = memchr(ENTRY, rest).map_or(entries.len(), |at| at + 1);
    Some(entries.split_at(end))
}

/// The text as it is compared: in lower case, composed, blanks as one space, without what is
/// invisible.
pub fn fold(text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    if text.is_ascii() {
        for byte in text.bytes() {
            match byte {
                b'\t'..=b'\r' | b' ' => push_blank(out, start),
                0..b' ' | 0x7f => {}
                byte => out.push(byte.to_ascii_lowercase()),
            }
        }
    } else {
        let lower = text.nfkc().flat_map(char::to_lowercase);
        for c in lower.nfc().filter(|c| c.is_whitespace() || !is_invisible(*c)) {
            match c {
                c if c.is_whitespace() => push_blank(out, start),
                // At the end of a word or not: one letter.
                'ς' => out.extend_from_slice("σ".as_bytes()),
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    while out.len() > start && out.last() == Some(&b' ') {
        out.pop();
    }
}

fn push_blank(out: &mut Vec<u8>, start: usize) {
    if out.len() > start && out.last() != Some(&b' ') {
        out.push(b' ');
    }
}

/// What comes along when people copy a text, and is not seen.
fn is_invisible(c: char) -> bool {
    let is_mark = matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}'
    );
    is_mark || is_unseen(c)
}

/// What is looked for: words, each of which has to occur in a field. `*` stands for any text.
pub struct Needle {
    /// The whole text, which makes a match better; none with a `*`.
    whole: Option<Finder<'static>>,
    words: Vec<Word>,
    /// A piece that every match has, the longest.
    rarest: Finder<'static>,
}

struct Word {
    /// In this order, with anything between.
    pieces: Vec<Finder<'static>>,
    has_wildcard: bool,
    /// Whether a field may begin with it: no `*` is before it.
    may_begin: bool,
}

impl Needle {
    /// Reads a text; none: there is nothing in it to look for.
    pub fn read(text: &str) -> Option<Self> {
        let mut folded = Vec::new();
        fold(text, &mut folded);
        let words: Vec<_> = folded.split(|byte| *byte == b' ').filter_map(Word::read).collect();
        let pieces = words.iter().map(|word| word.pieces.len()).sum::<usize>();
        let words = match pieces {
            0 => return None,
            1..=PIECES_MAX => words,
            _ => vec![Word::literal(&folded)],
        };
        let is_literal = words.iter().all(|word| !word.has_wildcard);
        let all = words.iter().flat_map(|word| &word.pieces);
        let rarest = all.max_by_key(|piece| piece.needle().len())?.clone();
        let whole = is_literal.then(|| Finder::new(&folded).into_owned());
        Some(Self { whole, words, rarest })
    }

    /// Visits every entry in which it is found, in their order.
    pub fn find_all<'e>(&self, entries: &'e [u8], mut visit: impl FnMut(&'e [u8], Match)) {
        let mut rest = entries;
        while let Some(at) = self.rarest.find(rest) {
            let start = memrchr(ENTRY, &rest[..at]).unwrap_or(0);
            let end = memchr(ENTRY, &rest[at..]).map_or(rest.len(), |behind| at + behind);
            let entry = &rest[start..end];
            if let Some(found) = self.find(entry) {
                visit(entry, found);
            }
            rest = &rest[end..];
        }
    }

    /// The best match in an entry.
    pub fn find(&self, entry: &[u8]) -> Option<Match> {
        let whole = self.whole.as_ref().and_then(|whole| best_of(whole, entry));
        if let [Word { has_wildcard: false, .. }] = &self.words[..] {
            return whole;
        }
        let mut first = None;
        for word in &self.words {
            let found = word.find(entry)?;
            first.get_or_insert(found);
        }
        let of_words = match &self.words[..] {
            [_] => first,
            _ => first.map(|first| Match { class: Class::Part, ..first }),
        };
        whole.into_iter().chain(of_words).min()
    }

    /// How much of the entry's first field it is.
    pub fn find_in_first(&self, entry: &[u8]) -> Option<Class> {
        let (first, _) = first_and_written(entry);
        self.find(entry.get(..first.len() + 1)?).map(|found| found.class)
    }
}

impl Word {
    fn read(word: &[u8]) -> Option<Self> {
        let pieces = word.split(|byte| *byte == b'*').filter(|piece| !piece.is_empty());
        let pieces: Vec<_> = pieces.map(|piece| Finder::new(piece).into_owned()).collect();
        let (has_wildcard, may_begin) = (word.contains(&b'*'), !word.starts_with(b"*"));
        (!pieces.is_empty()).then_some(Self { pieces, has_wildcard, may_begin })
    }

    fn literal(text: &[u8]) -> Self {
        let pieces = vec![Finder::new(text).into_owned()];
        Self { pieces, has_wildcard: false, may_begin: true }
    }

    fn find(&self, entry: &[u8]) -> Option<Match> {
        if let ([only], false) = (&self.pieces[..], self.has_wildcard) {
            return best_of(only, entry);
        }
        fields(entry).filter_map(|(field, text)| self.find_in_field(field, text)).min()
    }

    fn find_in_field(&self, field: u8, text: &[u8]) -> Option<Match> {
        let (mut rest, mut begins) = (text, self.may_begin);
        for (index, piece) in self.pieces.iter().enumerate() {
            let at = piece.find(rest)?;
            begins &= index > 0 || at == 0;
            rest = &rest[at + piece.needle().len()..];
        }
        Some(Match { class: if begins { Class::Prefix } else { Class::Part }, field })
    }
}

/// The fields of an entry that are searched.
fn fields(entry: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = entry;
    std::iter::from_fn(move || {
        let (tag, text) = rest.split_first()?;
        let end = text.iter().position(|byte| *byte >= ENTRY).unwrap_or(text.len());
        rest = &text[end..];
        Some((tag - ENTRY, &text[..end]))
    })
    .filter(|(field, _)| *field != WRITTEN)
}

/// The best place of a text in an entry.
fn best_of(text: &Finder<'_>, entry: &[u8]) -> Option<Match> {
    let mut best: Option<Match> = None;
    for at in text.find_iter(entry) {
        let found = match_at(entry, at..at + text.needle().len());
        if found.field != WRITTEN && best.is_none_or(|best| found < best) {
            best = Some(found);
            if found.class == Class::Exact && found.field == 0 {
                break;
            }
        }
    }
    best
}

fn match_at(entry: &[u8], found: Range<usize>) -> Match {
    let before = &entry[..found.start];
    let (field, class) = match before.last() {
        Some(tag) if *tag >= ENTRY => match entry.get(found.end) {
            Some(behind) if *behind < ENTRY => (*tag, Class::Prefix),
            _ => (*tag, Class::Exact),
        },
        _ => (
            before.iter().rev().find(|byte| **byte >= ENTRY).copied().unwrap_or(ENTRY),
            Class::Part,
        ),
    };
    Match { class, field: field - ENTRY }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Class::{Exact, Part, Prefix};
    use super::*;

    fn entry(fields: &[&str]) -> Vec<u8> {
        let mut entry = Vec::new();
        for (field, text) in fields.iter().enumerate() {
            push_field(&mut entry, field as u8, text);
        }
        entry
    }

    fn found(query: &str, fields: &[&str]) -> Option<(Class, u8)> {
        let found = Needle::read(query)?.find(&entry(fields));
        found.map(|found| (found.class, found.field))
    }

    #[test]
    fn the_best_field_counts_and_how_much_of_it() {
        let mower = ["Mower-7", "The green one", "356938035643809"];
        let check = |query: &str, expected| assert_eq!(found(query, &mower), expected, "{query}");
        check("MOWER-7", Some((Exact, 0)));
        check("mow", Some((Prefix, 0)));
        check("ower", Some((Part, 0)));
        check(" the  green ONE ", Some((Exact, 1)));
        check("the green", Some((Prefix, 1)));
        check("e", Some((Part, 0)));
        check("green the", Some((Part, 1)));
        check("one mower", Some((Part, 1)));
        check("mower blue", None);
        check("356938035643809", Some((Exact, 2)));
        // No match goes over the end of a field.
        check("7the", None);
        check("mow*", Some((Prefix, 0)));
        check("m*7", Some((Prefix, 0)));
        check("*7", Some((Part, 0)));
        check("7*m", None);
        check("m*7 *green*", Some((Part, 0)));
        for nothing in ["", " \t\r\n", "*", "** *", "\u{200f}\u{202e}\0\u{7f}"] {
            assert!(Needle::read(nothing).is_none(), "{nothing:?}");
        }
        // A longer text has to be there as it is.
        let many = "a b c d e f g h i";
        assert_eq!(found(many, &[many]), Some((Exact, 0)));
        assert_eq!(found(many, &["i h g f e d c b a"]), None);
    }

    #[test]
    fn case_form_and_what_is_invisible_say_nothing() {
        let check = |query: &str, text: &str| {
            assert_eq!(found(query, &[text]), Some((Exact, 0)), "{query} {text}");
        };
        check("MÄHER", "mäher");
        check("ma\u{308}her", "Mäher");
        check("ｍｏｗｅｒ\u{a0}７", "Mower 7");
        check("\u{202e}mower\u{200f}\0", "mo\u{ad}wer");
        check("ΟΔΥΣΣΕΥΣ", "Οδυσσευς");
        check("тест", "ТЕСТ");
        check("İ", "i\u{307}");
        assert_eq!(found("日", &["本日"]), Some((Part, 0)));
    }

    #[test]
    fn what_is_written_is_kept_and_not_searched() {
        let mut entry = entry(&["mower-7", "x"]);
        push_written(&mut entry, "MOWER-7");
        assert_eq!(first_and_written(&entry), (&b"mower-7"[..], Some(&b"MOWER-7"[..])));
        let needle = Needle::read("7").expect("a word");
        assert_eq!(needle.find(&entry), Some(Match { class: Part, field: 0 }));
        assert_eq!(needle.find_in_first(&entry), Some(Part));
        assert_eq!(Needle::read("x").expect("a word").find_in_first(&entry), None);
    }

    proptest! {
        #[test]
        fn all_entries_are_found_in_their_order(
            keys in prop::collection::vec("[ab]{0,4}( [ab]{1,2})?", 0..20),
            query in "[ab*]{0,3}( [ab*]{1,2})?",
        ) {
            let Some(needle) = Needle::read(&query) else { return Ok(()) };
            let entries: Vec<_> = keys.iter().map(|key| entry(&[key, "x", "ba"])).collect();
            let expected: Vec<_> = entries
                .iter()
                .filter_map(|entry| Some((&entry[..], needle.find(entry)?)))
                .collect();
            let all = entries.concat();
            let mut found = Vec::new();
            needle.find_all(&all, |entry, best| found.push((entry, best)));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_text_is_read(text in any::<String>(), query in any::<String>()) {
            let entry = entry(&[&text, &query]);
            prop_assert!(entry.iter().filter(|byte| **byte >= ENTRY).count() == 2);
            if let Some(needle) = Needle::read(&query) {
                prop_assert!(needle.find(&entry).is_some(), "{} in {}", query, text);
            }
        }
    }
}
