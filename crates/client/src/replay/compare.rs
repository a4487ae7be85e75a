//! Whether an answer says the same as one of then, on another server and at another time.

use std::net::SocketAddr;

use base::Timestamp;
use serde_json::{Number, Value};

/// Milliseconds since 1970 that are a time of this century.
const TIMES_MS: std::ops::Range<u64> = 946_684_800_000..4_102_444_800_000;

/// Whether two texts say the same: as JSON, if they have some at their end, or to the letter.
pub(super) fn same_texts(then: &str, now: &str) -> bool {
    if then == now {
        return true;
    }
    let parts = |text: &str| {
        let at = text.find(['{', '[']).unwrap_or(text.len());
        (text[..at].to_owned(), serde_json::from_str::<Value>(&text[at..]).ok())
    };
    match (parts(then), parts(now)) {
        ((head_then, Some(then)), (head_now, Some(now))) => {
            same_words(&head_then, &head_now) && same(&then, &now)
        }
        _ => same_words(then, now),
    }
}

/// What is another time, another id, or was not to be seen, is the same.
fn same(then: &Value, now: &Value) -> bool {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            then.len() == now.len()
                && then.iter().all(|(key, value)| now.get(key).is_some_and(|n| same(value, n)))
        }
        (Value::Array(then), Value::Array(now)) => {
            then.len() == now.len() && then.iter().zip(now).all(|(then, now)| same(then, now))
        }
        (Value::String(then), Value::String(now)) => same_words(then, now),
        (Value::Number(then), Value::Number(now)) => {
            let is_time = |number: &Number| number.as_u64().is_some_and(|n| TIMES_MS.contains(&n));
            then == now || (is_time(then) && is_time(now))
        }
        (then, now) => then == now,
    }
}

fn same_words(then: &str, now: &str) -> bool {
    let is_time = |text: &str| Timestamp::parse(text).is_some();
    let is_id = |text: &str| {
        matches!(text.len(), 24 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let is_address = |text: &str| text.parse::<SocketAddr>().is_ok();
    then == now
        || (is_time(then) && is_time(now))
        || (is_address(then) && is_address(now))
        || (is_id(then) && is_id(now))
        || (then.contains("***") && fits(then, now))
}

/// Whether a text is as one in which stars stand for any letters.
fn fits(masked: &str, text: &str) -> bool {
    let mut rest = text;
    let mut parts = masked.split('*').filter(|part| !part.is_empty()).peekable();
    if let Some(first) = parts.peek()
        && !masked.starts_with('*')
        && !rest.starts_with(first)
    {
        return false;
    }
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    masked.ends_with('*') || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_ids_and_secrets_may_differ() {
        let check = |then: &str, now: &str, expected: bool| {
            assert_eq!(same_texts(then, now), expected, "{then} and {now}");
        };
        check("PINGRESP", "PINGRESP", true);
        check("PUBLISH reply/1 {\"a\":1}", "PUBLISH reply/1 {\"a\": 1}", true);
        check("PUBLISH reply/1 {\"a\":1}", "PUBLISH reply/2 {\"a\":1}", false);
        check("{\"a\":1}", "{\"a\":2}", false);
        check("{\"a\":1795937284139}", "{\"a\":1895937284139}", true);
        check("{\"a\":1}", "{\"a\":1,\"b\":2}", false);
        check(r#"{"ts":"2026-03-02T08:15:00.000Z"}"#, r#"{"ts":"2027-03-02T08:15:00.000Z"}"#, true);
        check(r#"{"ts":"2026-03-02T08:15:00.000Z"}"#, r#"{"ts":"yesterday"}"#, false);
        let id = "0123456789abcdef01234567";
        check(&format!("[\"{id}\"]"), "[\"f123456789abcdef01234567\"]", true);
        check("[\"************************\"]", &format!("[\"{id}\"]"), true);
        check("[\"x ****** y\"]", "[\"x secret y\"]", true);
        check("[\"x ****** y\"]", "[\"z secret y\"]", false);
        check("[\"x ****** y\"]", "[\"x secret z\"]", false);
    }
}
