//! Whether an output has the shape of another one, as a reader would say: the same words, and ids,
//! times and numbers in the same places.
//!
//! `…` stands for anything. A number of two digits or more, or with a point, is like any other such;
//! one digit is itself, because 0 failures are not 1. Times are like each other, and so are ids: 8 or
//! more hexadecimal digits (with hyphens) or 16 or more small letters and digits. Lines may be broken
//! anywhere.

/// A text with names for what varies, and the ids in it by their places.
struct Plain {
    text: String,
    ids: Vec<(usize, String)>,
}

fn plain(text: &str) -> Plain {
    let mut found = Plain { text: String::new(), ids: Vec::new() };
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = time(rest);
        if length > 0 {
            found.text += "<time>";
            rest = &rest[length..];
            continue;
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if length == 0 {
            let doubled = first == ' ' && found.text.ends_with(' ');
            if first != '\n' && first != '\r' && !doubled {
                found.text.push(first);
            }
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = rest[..number].trim_end_matches('.').len();
        if number >= length {
            found.text += if number > 1 { "<number>" } else { &rest[..1] };
            rest = &rest[number..];
            continue;
        }
        let word = &rest[..length];
        if is_id(word) {
            found.ids.push((found.text.len(), word.to_owned()));
            found.text += "<id>";
        } else {
            found.text += word;
        }
        rest = &rest[length..];
    }
    found
}

/// How long the time is that the text begins with, in RFC 3339 and UTC; 0 if there is none.
fn time(text: &str) -> usize {
    let date = b"0000-00-00T";
    let is_like = |(found, like): (u8, &u8)| match like {
        b'0' => found.is_ascii_digit(),
        _ => found == *like,
    };
    if text.len() <= date.len() || !text.bytes().zip(date).all(is_like) {
        return 0;
    }
    let clock = &text[date.len()..];
    let end = clock.find(|c: char| !c.is_ascii_digit() && !":.".contains(c));
    end.filter(|end| clock[*end..].starts_with('Z')).map_or(0, |end| date.len() + end + 1)
}

fn is_id(word: &str) -> bool {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c) || c == '-';
    let hex = word.len() >= 8
        && word.chars().all(is_hex)
        && word.contains(|c: char| c.is_ascii_digit())
        && !word.starts_with('-');
    let small = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase();
    hex || (word.len() >= 16 && word.chars().all(small))
}

/// The ids of `shown`, each with what stands in its place in `found`; none if `found` does not have
/// the shape of `shown`.
pub(crate) fn pairs(shown: &str, found: &str) -> Option<Vec<(String, String)>> {
    let (shown, found) = (plain(shown.trim_end()), plain(found.trim_end()));
    let parts: Vec<&str> = shown.text.split('…').collect();
    let mut pairs = Vec::new();
    let (mut in_shown, mut in_found) = (0, 0);
    for (index, part) in parts.iter().enumerate() {
        let rest = &found.text[in_found..];
        let at = match (index, index + 1 == parts.len()) {
            (0, true) => (rest == *part).then_some(0)?,
            (0, false) => rest.starts_with(part).then_some(0)?,
            (_, true) => rest.ends_with(part).then(|| rest.len() - part.len())?,
            (_, false) => rest.find(part)?,
        };
        let here = in_found + at;
        for (place, id) in &shown.ids {
            if (in_shown..in_shown + part.len()).contains(place) {
                let place = place - in_shown + here;
                let other = found.ids.iter().find(|(at, _)| *at == place);
                pairs.push((id.clone(), other?.1.clone()));
            }
        }
        in_shown += part.len() + '…'.len_utf8();
        in_found = here + part.len();
    }
    Some(pairs)
}

#[test]
fn shapes_are_told_apart() {
    let check = |shown: &str, found: &str, same: bool| {
        assert_eq!(pairs(shown, found).is_some(), same, "{shown}\n{found}");
    };
    let json = r#"{"success":true,"params":{"time":1795295623009}}"#;
    check(json, &json.replace("1795295623009", "42"), true);
    check(json, &json.replace("1795295623009", "\"42\""), false);
    check(json, &json.replace("time", "clock"), false);
    check(json, &json.replace("true", "false"), false);
    check("failed 0  lost 12", "failed 0  lost 999", true);
    check("failed 0  lost 12", "failed 1  lost 999", false);
    check("p50 4.83 ms", "p50 12.1 ms", true);
    check("[-99999]", "[-95010]", false);
    check(r#""remoteAddr":"127.0.0.1:60452""#, r#""remoteAddr":"127.0.0.1:4""#, false);
    check("{\"a\":1,\n\"b\":2}", "{\"a\":1,\"b\":2}", true);
    check("{…}", "{\"a\":[1,2]}", true);
    check("{…,\"b\":…}", "{\"a\":1,\"b\":2}", true);
    check("{…,\"b\":…}", "{\"a\":1,\"c\":2}", false);
    check("a … a", "a", false);
    check("at 2026-11-21T21:13:42.494Z", "at 2026-12-01T01:02:03.004Z", true);
    check("at 2026-11-21T21:13:42Z", "at midnight", false);
    check("/tmp/tr50d-demo-…", "/tmp/tr50d-demo-17-19ab", true);
    check("mower-1", "mower-2", false);
    check("[]", "[{}]", false);
    let uuid = "0a779790-ddb1-8ff0-b7a5-2bb729d5b852";
    let other = "75c5992d-6a9c-81c9-be1d-9a841d8e41fe";
    let found = pairs(
        &format!("{{\"a\":…,\"id\":\"{uuid}\"}}"),
        &format!("{{\"a\":[],\"id\":\"{other}\"}}"),
    );
    assert_eq!(found, Some(vec![(uuid.to_owned(), other.to_owned())]));
    let found =
        pairs("Password  8vlr4jh1p1ah4c6a3p2h3b9t  (x)", "Password  0000vlr4jh1p1ah4c6a3p2h3  (x)");
    assert!(found.is_some_and(|pairs| pairs.len() == 1));
}
