//! Names that people could take for others: e-mail addresses, and keys of organisations.
//!
//! Two things are asked of a new one. By itself it has to be written in the only way there is, in
//! letters that nobody mixes ([`is_unambiguous`]). And it must not look like one that is there
//! ([`outlines`]). Both go by Unicode's Technical Standard 39. Those that are in the store are as
//! they are.

use smallvec::{SmallVec, smallvec};
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::is_nfkc;
use unicode_security::{
    GeneralSecurityProfile as _, RestrictionLevel, RestrictionLevelDetection as _, skeleton,
};

/// The rule of [`is_unambiguous`].
pub const UNAMBIGUOUS_RULE: &str = "in letters of one script a word, composed and of ordinary width (NFKC), without marks and \
     invisible characters that identifiers may not have (UTS 39)";

/// Whether the text can be read in one way only: what is not ASCII is normalised (NFKC), allowed in
/// identifiers, and in each word of one script (or of those that Japanese, Korean and Chinese mix
/// with Latin letters); and no mark sits on an ASCII letter, or on two others.
pub fn is_unambiguous(text: &str) -> bool {
    if text.is_ascii() {
        return true;
    }
    let allowed = |c: char| c.is_ascii() || c.identifier_allowed();
    let mut words = text.split(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric());
    is_nfkc(text)
        && text.chars().all(allowed)
        && has_sane_marks(text)
        && words.all(|word| word.check_restriction_level(RestrictionLevel::HighlyRestrictive))
}

/// Whether each mark has a letter to sit on, which no composed one would be for, and at most one
/// other with it.
fn has_sane_marks(text: &str) -> bool {
    let (mut base, mut marks) = (None, 0);
    for c in text.chars() {
        if !is_combining_mark(c) {
            (base, marks) = (Some(c), 0);
            continue;
        }
        marks += 1;
        if marks > 2 || base.is_none_or(|base: char| base.is_ascii()) {
            return false;
        }
    }
    true
}

/// What the text looks like, without regard to case: texts that share one look alike. One is that
/// of the lower case, and one that of the text as it is written, where a capital `I` is a small `l`.
pub(super) fn outlines(text: &str) -> SmallVec<[String; 2]> {
    let (lower, written) = (outline(&text.to_lowercase()), outline(text));
    if lower == written { smallvec![lower] } else { smallvec![lower, written] }
}

/// The skeleton of UTS 39, in lower case, and with an `m` that stays one: as `rn`, it would keep
/// people apart whose names only nearly look alike.
fn outline(text: &str) -> String {
    let mut outline = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            outline.push(plain(c));
            continue;
        }
        let mut letter = [0; 4];
        let prototype: String = skeleton(c.encode_utf8(&mut letter)).collect();
        match prototype.as_str() {
            "rn" => outline.push('m'),
            prototype => outline.extend(prototype.chars().flat_map(char::to_lowercase).map(plain)),
        }
    }
    outline
}

/// An ASCII character as it looks.
const fn plain(c: char) -> char {
    match c {
        '0' | 'O' => 'o',
        '1' | '|' | 'I' => 'l',
        c => c.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_alike(one: &str, other: &str) -> bool {
        let (one, other) = (outlines(one), outlines(other));
        one.iter().any(|outline| other.contains(outline))
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_told() {
        for plain in [
            "operator@basicorg.example",
            "jürgen.größe@bücher.example",
            "иван@пример.example",
            "田中さん@example.jp",
            "Завод Siemens",
            "Acme & Söhne",
            "ẹ́mi@example.ng",
        ] {
            assert!(is_unambiguous(plain), "{plain}");
        }
        for doubtful in [
            "oper\u{430}tor@basicorg.example",
            "operator\u{200b}@basicorg.example",
            "operator\u{ad}@basicorg.example",
            "operator@basicorg.example\u{202e}",
            "\u{2066}operator@basicorg.example",
            "ｏperator@basicorg.example",
            "\u{fb01}sh@basicorg.example",
            "ju\u{308}rgen@basicorg.example",
            "opera\u{323}\u{323}tor@basicorg.example",
            "q\u{301}@basicorg.example",
            "\u{301}q@basicorg.example",
            "ω\u{325}\u{325}\u{325}@basicorg.example",
            "Basic\u{3a9}rg",
            "Basic\u{2160}rg",
            "Basic\u{e0041}Org",
            "Basic\u{fe0f}Org",
        ] {
            assert!(!is_unambiguous(doubtful), "{doubtful:?}");
        }
    }

    #[test]
    fn what_looks_alike_has_one_outline() {
        for (one, other) in [
            ("BasicOrg", "basicorg"),
            ("BasicOrg", "Basic0rg"),
            ("BasicOrg", "B\u{430}sicOrg"),
            ("ADMIN", "ADMlN"),
            ("sales1", "saIesl"),
            ("аррӏе", "apple"),
            ("scope@x.example", "ѕсоре@x.example"),
            ("ｂasic", "basic"),
            ("ⅿower", "mower"),
        ] {
            assert!(look_alike(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("tom@x.example", "torn@x.example"),
            ("tom@x.example", "tim@x.example"),
            ("jürgen", "jurgen"),
            ("org-2", "org-3"),
            ("иван", "ivan"),
        ] {
            assert!(!look_alike(one, other), "{one} {other}");
        }
    }
}
