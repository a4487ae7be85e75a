//! Topics that are nearly one of TR50's. To such a topic a device can publish for ever: it is an
//! ordinary one, or reserved, and an acknowledgement comes. So the log says it, once a session.

use std::borrow::Cow;
use std::net::SocketAddr;

use rules::directory::{Session, Who};
use strsim::osa_distance;

use crate::app::App;
use crate::logging::PeerLog;
use crate::peer_log;
use crate::things::feed::ThingTopic;

/// What may be written of a thing, as the second half of its topics.
const WRITTEN: [&str; 3] = ["property", "alarm", "attribute"];

/// The rest of what may be read of it.
const ONLY_READ: [&str; 2] = ["location", "connected"];

/// What is said when there is no better guess.
const FORMS: &str = "thing/<key>/property/<name>, …/alarm/<name> or …/attribute/<name>";

/// Bytes of the longest first level that can be near.
const FIRST_BYTES_MAX: usize = 8;

/// Bytes of a level in which slips are looked for.
const LEVEL_BYTES_MAX: usize = 16;

/// What a client did with a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Did<'a> {
    /// It published this.
    Publish(&'a [u8]),
    /// It subscribed.
    Subscribe,
}

/// Logs a topic that is nearly one of TR50's, or below `thing/` and none; whether it is.
pub(super) fn note(
    app: &App,
    session: &Session,
    peer: SocketAddr,
    did: Did<'_>,
    name: &str,
) -> bool {
    static LOG: PeerLog = PeerLog::new(20);
    let meant = match did {
        Did::Publish(payload) => meant_by_publish(name, payload),
        Did::Subscribe => meant_by_subscribe(name),
    };
    let meant = meant.or_else(|| no_topic_of_a_thing(did, name).then(|| FORMS.to_owned()));
    let Some(meant) = meant else { return false };
    let who = match session.who() {
        Who::Application { thing_key, .. } => thing_key.as_str(),
        Who::User(user) => user.email.as_str(),
    };
    let did = match did {
        Did::Publish(_) => "published to",
        Did::Subscribe => "subscribed to",
    };
    let (topic, meant) = (app.shown(name), app.shown(&meant));
    let no_topic = format_args!("{who} {did} {topic:?}, which is no topic of TR50");
    peer_log!(LOG, %peer, who, topic, meant, "{no_topic}; was {meant:?} meant?");
    true
}

/// Whether a topic may be one to note: it has only a few other letters than what could be meant.
/// Ordinary topics are many and this is asked for each.
pub(super) fn may_be_near(name: &str) -> bool {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'/';
    let name = name.as_bytes();
    let start = name.iter().take_while(|byte| is_blank(byte)).count();
    let first = name.get(start..).unwrap_or_default();
    let first = first.iter().take(FIRST_BYTES_MAX + 1).take_while(|byte| **byte != b'/');
    let (mut count, mut api, mut thing) = (0, 0, 0);
    for byte in first {
        count += 1;
        match byte.to_ascii_lowercase() {
            b'i' => (api, thing) = (api + 1, thing + 1),
            b'a' | b'p' | b'z' | b'0'..=b'9' | b' ' => api += 1,
            b't' | b'h' | b'n' | b'g' => thing += 1,
            _ => {}
        }
    }
    count > 1 && count <= FIRST_BYTES_MAX && api.max(thing) + 1 >= count
}

/// Whether a name below `thing/` is none of a topic of a thing.
fn no_topic_of_a_thing(did: Did<'_>, name: &str) -> bool {
    let topic = ThingTopic::parse(name);
    let fits = match did {
        Did::Publish(_) => topic.is_some_and(|topic| topic.is_published()),
        Did::Subscribe => topic.is_some() || name.contains(['+', '#']),
    };
    name.starts_with("thing/") && !fits
}

/// The topic that was most likely meant by a PUBLISH; none if nothing of TR50's is near.
fn meant_by_publish(name: &str, payload: &[u8]) -> Option<String> {
    let (first, rest) = levels(name);
    let api = match nearest(first, &["api", "apiz"]) {
        // `app/…` and `abi/…` have a meaning of their own, unless a request comes there.
        Some((_, Slip::Letter)) if !is_request(payload) => None,
        // `ai` and `pi`, too.
        Some((_, Slip::Length)) if first.len() < 3 && first != "ap" && !is_request(payload) => None,
        Some((word, _)) => Some(format!("{word}{rest}")),
        None => first.to_ascii_lowercase().strip_prefix("api").and_then(|number| {
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            (is_number && rest.is_empty()).then(|| format!("api/{number}"))
        }),
    };
    api.or_else(|| meant_of_thing(first, rest, &WRITTEN)).filter(|meant| meant != name)
}

/// The filter that was most likely meant by a SUBSCRIBE.
fn meant_by_subscribe(filter: &str) -> Option<String> {
    let (first, rest) = levels(filter);
    let meant = match nearest(first, &["reply", "replyz", "notify"]) {
        Some((word, _)) => Some(format!("{word}{rest}")),
        None => meant_of_thing(first, rest, &[&WRITTEN[..], &ONLY_READ].concat()),
    };
    meant.filter(|meant| meant != filter)
}

/// The first level, without what does not belong there, and the rest with its `/`.
fn levels(name: &str) -> (&str, &str) {
    let name = name.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    let name = name.trim_start_matches('/').trim_start();
    let (first, rest) = name.split_at(name.find('/').unwrap_or(name.len()));
    (first.trim_end(), rest)
}

fn meant_of_thing(first: &str, rest: &str, kinds: &[&str]) -> Option<String> {
    nearest(first, &["thing"])?;
    let mut rest = rest.strip_prefix('/')?.splitn(3, '/');
    let (thing, kind, name) = (rest.next()?, rest.next()?, rest.next());
    let thing: Cow<'_, str> = match thing.eq_ignore_ascii_case("self") {
        true => "self".into(),
        false => thing.into(),
    };
    let kind = meant_kind(kind, kinds)?;
    let meant = match name.filter(|name| !name.is_empty()) {
        _ if ONLY_READ.contains(&kind) => format!("thing/{thing}/{kind}"),
        Some(name) => format!("thing/{thing}/{kind}/{name}"),
        None => format!("thing/{thing}/{kind}/<name>"),
    };
    Some(meant)
}

/// `property` for `properties`, `prop` and `propertie`.
fn meant_kind<'a>(written: &str, kinds: &[&'a str]) -> Option<&'a str> {
    let written = written.trim().to_ascii_lowercase();
    let begins = |kind: &&&str| written.len() >= 3 && (kind.starts_with(&written));
    let near = |kind: &&&str| {
        (written.len() <= LEVEL_BYTES_MAX) && osa_distance(&written, kind) <= 1 + kind.len() / 4
    };
    kinds.iter().find(begins).or_else(|| kinds.iter().find(near)).copied()
}

/// How a word differs from what was meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slip {
    /// Not, but for capitals.
    None,
    /// A letter is missing, or one too many, or two are swapped.
    Length,
    /// A letter is another one.
    Letter,
}

/// Which word was meant, if not more than one letter is wrong.
fn nearest<'a>(written: &str, words: &[&'a str]) -> Option<(&'a str, Slip)> {
    if written.len() > LEVEL_BYTES_MAX {
        return None;
    }
    let written = written.to_ascii_lowercase();
    let slip = |word: &&'a str| match osa_distance(&written, word) {
        0 => Some((*word, Slip::None)),
        1 if written.len() == word.len() && !has_same_letters(&written, word) => {
            Some((*word, Slip::Letter))
        }
        1 => Some((*word, Slip::Length)),
        _ => None,
    };
    let slips: Vec<_> = words.iter().filter_map(slip).collect();
    let best = slips.iter().find(|(_, slip)| *slip == Slip::None);
    best.or_else(|| slips.iter().find(|(_, slip)| *slip == Slip::Length)).or(slips.first()).copied()
}

fn has_same_letters(one: &str, other: &str) -> bool {
    let sorted = |text: &str| {
        let mut letters = text.as_bytes().to_vec();
        letters.sort_unstable();
        letters
    };
    sorted(one) == sorted(other)
}

/// Whether a payload is most likely a request.
fn is_request(payload: &[u8]) -> bool {
    let key = b"\"command\"";
    payload.trim_ascii_start().starts_with(b"{")
        && payload.windows(key.len()).any(|part| part.eq_ignore_ascii_case(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = br#"{"cmd":{"command":"diag.ping"}}"#;

    #[test]
    fn slips_in_topics_of_requests_are_found() {
        let check = |name: &str, payload: &[u8], expected: Option<&str>| {
            assert_eq!(meant_by_publish(name, payload).as_deref(), expected, "{name:?}");
            assert!(expected.is_none() || may_be_near(name), "{name:?}");
        };
        for (name, meant) in [
            ("ap/1", "api/1"),
            ("ap", "api"),
            ("API/1", "api/1"),
            ("Api", "api"),
            ("/api/1", "api/1"),
            ("//api", "api"),
            (" api/1", "api/1"),
            ("api /1", "api/1"),
            ("api\n", "api"),
            ("apii/1", "api/1"),
            ("appi/1", "api/1"),
            ("aip/1", "api/1"),
            ("apis/0001", "api/0001"),
            ("APIZ/1", "apiz/1"),
            ("/apiz/1", "apiz/1"),
            ("apz/1", "apiz/1"),
            ("api17", "api/17"),
            ("thing/self/propertie/t", "thing/self/property/t"),
            ("thing/self/properties/a/b", "thing/self/property/a/b"),
            ("thing/self/Property/t", "thing/self/property/t"),
            ("thing/mower-1/prop/t", "thing/mower-1/property/t"),
            ("thing/Self/attr/t", "thing/self/attribute/t"),
            ("thing/self/alarms/t", "thing/self/alarm/t"),
            ("thing/self/property", "thing/self/property/<name>"),
            ("things/self/property/t", "thing/self/property/t"),
            ("/thing/self/property/t", "thing/self/property/t"),
            ("Thing/self/property/t", "thing/self/property/t"),
        ] {
            check(name, b"1", Some(meant));
        }
        check("app/1", REQUEST, Some("api/1"));
        check("ai/1", REQUEST, Some("api/1"));
        for ordinary in [
            "app/1",
            "ai/1",
            "pi/1",
            "a",
            "a/b",
            "sensors/1",
            "apple/1",
            "think/1",
            "thing",
            "ping",
            "things/1",
            "things/self/on",
            "map/api",
            "",
        ] {
            check(ordinary, b"1", None);
        }
        for right in ["api", "api/1", "apiz/x", "thing/self/property/t", "thing/a/alarm/b"] {
            check(right, REQUEST, None);
        }
    }

    #[test]
    fn slips_in_filters_are_found() {
        let check = |filter: &str, expected: Option<&str>| {
            assert_eq!(meant_by_subscribe(filter).as_deref(), expected, "{filter:?}");
        };
        check("repl/#", Some("reply/#"));
        check("Reply/1", Some("reply/1"));
        check("/reply/#", Some("reply/#"));
        check("notifi/#", Some("notify/#"));
        check("thing/self/propertie/t", Some("thing/self/property/t"));
        check("thing/self/Location", Some("thing/self/location"));
        check("thing/self/connect", Some("thing/self/connected"));
        for right in ["reply/#", "replyz/1", "notify/#", "thing/self/location", "a/b", "#", "+/+"] {
            check(right, None);
        }
        check("thing/+/property/#", None);
    }

    #[test]
    fn ordinary_topics_are_passed_over_quickly() {
        for ordinary in
            ["a", "sensors/1/temp", "test/1", "data", "fleet/api/1", "", "/", "////////"]
        {
            assert!(!may_be_near(ordinary), "{ordinary:?}");
        }
    }
}
