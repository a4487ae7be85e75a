//! The query of `thing.search`.
//!
//! The cloud hands the text to a search engine (`docs/protocol/tr50.md` 4.1, `thing.search`), with
//! words such as `auto*` and `attrs.email.value:"…"`. Here a query is words, each of which has to
//! occur, in any case, in the key, the name, the description, a tag or an identifier of a thing.
//! `*` stands for any text, `field:word` looks in one field only, and quotes keep blanks in a word.
//! No words match every thing.

use crate::things::registry::{Alias, Thing};

/// A query, read.
pub(super) struct Query(Vec<Term>);

struct Term {
    field: Option<Field>,
    /// In lower case, in this order, with anything between.
    pieces: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Key,
    Name,
    Desc,
    Tags,
    SecTags,
    Alias(Alias),
}

impl Query {
    /// Reads a query; every text is one.
    pub(super) fn read(text: &str) -> Self {
        Self(words(text).iter().map(|word| Term::read(word)).collect())
    }

    /// Whether a thing is what is looked for.
    pub(super) fn matches(&self, thing: &Thing) -> bool {
        self.0.iter().all(|term| term.matches(thing))
    }
}

/// The words of a text, without quotes.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

impl Term {
    fn read(word: &str) -> Self {
        let named = word.split_once(':').and_then(|(name, rest)| Some((Field::named(name)?, rest)));
        let (field, text) = match named {
            Some((field, rest)) => (Some(field), rest),
            None => (None, word),
        };
        let pieces = text.split('*').filter(|piece| !piece.is_empty());
        Self { field, pieces: pieces.map(str::to_lowercase).collect() }
    }

    fn matches(&self, thing: &Thing) -> bool {
        let id = thing.id.to_string();
        let texts = [
            (Field::Id, id.as_str()),
            (Field::Key, thing.key.as_str()),
            (Field::Name, &thing.name),
            (Field::Desc, &thing.desc),
        ];
        let tags = thing.tags.iter().map(|tag| (Field::Tags, tag.as_str()));
        let sec_tags = thing.sec_tags.iter().map(|tag| (Field::SecTags, tag.as_str()));
        let aliases = thing.aliases.iter().map(|(kind, text)| (Field::Alias(*kind), text.as_str()));
        let mut texts = texts.into_iter().chain(tags).chain(sec_tags).chain(aliases);
        texts.any(|(field, text)| {
            // An id is found when it is asked for: as hexadecimal digits it is full of words.
            let wanted = self.field.map_or(field != Field::Id, |wanted| wanted == field);
            wanted && self.occurs_in(text)
        })
    }

    fn occurs_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let mut rest = text.as_str();
        self.pieces.iter().all(|piece| match rest.split_once(piece.as_str()) {
            Some((_, behind)) => {
                rest = behind;
                true
            }
            None => false,
        })
    }
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        let alias = |alias: &Alias| alias.as_str().eq_ignore_ascii_case(name);
        Some(match name.to_ascii_lowercase().as_str() {
            "id" => Self::Id,
            "key" | "thingkey" => Self::Key,
            "name" => Self::Name,
            "desc" => Self::Desc,
            "tags" => Self::Tags,
            "sectags" => Self::SecTags,
            _ => Self::Alias(Alias::ALL.into_iter().find(alias)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use base::{OrgId, ThingId, ThingKey, Timestamp};

    use super::*;

    #[test]
    fn words_are_looked_for_in_any_case_and_field() {
        let key = ThingKey::parse("Mower-7").expect("a key");
        let (id, org) = (ThingId::from_bytes([0xab; 12]), OrgId::from_bytes([1; 12]));
        let mut thing = Thing::new(id, org, key, "x", Timestamp::from_millis(0));
        thing.name = "The Green one".into();
        thing.desc = "Behind the house: north".into();
        thing.tags = vec!["field".into()];
        thing.aliases.insert(Alias::Imei, "356938035643809".into());
        let check = |query: &str, expected| {
            assert_eq!(Query::read(query).matches(&thing), expected, "{query}");
        };
        for query in ["", " ", "*", "mower", "MOWER-7", "m*7", "mow*", "*ower*", "green field"] {
            check(query, true);
        }
        for query in ["3569", "imei:*3809", "\"green one\"", "name:green", "house: behind"] {
            check(query, true);
        }
        for query in ["blue", "green blue", "7*mower", "key:green", "imei:mower", "\"one green\""] {
            check(query, false);
        }
        check("abab", false);
        check("id:abab", true);
        check("tags:field", true);
        check("secTags:field", false);
        check("nothing:7", false);
    }
}
