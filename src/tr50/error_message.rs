//! `errorMessage`, the text of a failure, beside `errorMessages`: clients of the API of 2012 look
//! for that (`docs/protocol/tr50.md` 2).

use base::json;
use serde_json::value::RawValue;

use super::envelope::members_of;

/// Adds `errorMessage` to the failures in a reply, which begins at `start`: to the request's own,
/// and to those of its commands.
pub(super) fn add(reply: &mut Vec<u8>, start: usize) {
    let text = reply.get(start..).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let object = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    if let Some(object) = object
        && let Some(text) = with_message(object, true)
    {
        reply.truncate(start);
        reply.extend_from_slice(&text);
    }
}

/// The object with the message of its failure, and, if it is a reply, with those of the objects in
/// it; none for any other value.
fn with_message(object: &RawValue, is_reply: bool) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(object.get().len() + 64);
    text.push(b'{');
    for (name, value) in members_of(object)? {
        if text.len() > 1 {
            text.push(b',');
        }
        json::push_string(&mut text, &name);
        text.push(b':');
        let inner = if is_reply { with_message(value, false) } else { None };
        text.extend_from_slice(inner.as_deref().unwrap_or(value.get().as_bytes()));
        if name == "errorMessages" {
            let messages: Vec<&RawValue> = serde_json::from_str(value.get()).unwrap_or_default();
            if let Some(message) = messages.first() {
                text.extend_from_slice(br#","errorMessage":"#);
                text.extend_from_slice(message.get().as_bytes());
            }
        }
    }
    text.push(b'}');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_gets_its_message() {
        let check = |reply: &str, expected: &str| {
            let mut text = b"before".to_vec();
            text.extend_from_slice(reply.as_bytes());
            add(&mut text, 6);
            assert_eq!(String::from_utf8_lossy(&text), format!("before{expected}"));
        };
        let failure = |more: &str| {
            format!(r#""success":false,"errorCodes":[-1],"errorMessages":["a \"b\""]{more}"#)
        };
        let (plain, more) = (failure(""), failure(r#","errorMessage":"a \"b\"""#));
        check(&format!("{{{plain}}}"), &format!("{{{more}}}"));
        check(
            &format!(r#"{{"auth":{{"success":true}},"1":{{{plain},"params":{{{plain}}}}}}}"#),
            &format!(r#"{{"auth":{{"success":true}},"1":{{{more},"params":{{{plain}}}}}}}"#),
        );
        // The reply to a failed login has both.
        check(
            &format!(r#"{{{plain},"auth":{{{plain}}}}}"#),
            &format!(r#"{{{more},"auth":{{{more}}}}}"#),
        );
        check(r#"{"errorMessages":{"success":true}}"#, r#"{"errorMessages":{"success":true}}"#);
        check("{}", "{}");
        check("", "");
    }
}
