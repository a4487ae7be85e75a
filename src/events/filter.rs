//! Which events a reader wants, and what one is asked for that.

use std::borrow::Cow;
use std::sync::Arc;

use base::{OrgId, Timestamp, topic};
use bytes::Bytes;
use rules::directory::text::AddressPrefix;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use super::{Class, KINDS, SERVER};

/// Which events are wanted; what may be seen of them is another question.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Filter {
    /// Of these types; of all if there are none.
    pub types: Vec<TypeFilter>,
    /// About these things, by their keys; about anything if there are none.
    pub things: Vec<String>,
    /// Of which organisations.
    pub scope: Scope,
}

/// Of which organisations events are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// All that may be seen.
    #[default]
    All,
    /// This one.
    One(OrgId),
    /// This one and those below it, deleted ones included.
    Within(OrgId),
}

/// A type of event, or a family of them: `session.started`, `session`, `session.*`, `*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TypeFilter(Box<str>);

/// A text is no type of event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a type of event such as session.started, a family such as session.*, or *")]
pub struct BadType;

impl TypeFilter {
    /// Reads one. Types of administration are names of commands, so any name is one.
    ///
    /// # Errors
    ///
    /// It is no name.
    pub fn parse(text: &str) -> Result<Self, BadType> {
        let name = text.trim().to_ascii_lowercase();
        let name = name.strip_suffix(".*").unwrap_or(&name);
        if name == "*" {
            return Ok(Self("".into()));
        }
        let is_word = |word: &str| {
            let mut bytes = word.bytes();
            !word.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        let good = name.len() <= TYPE_BYTES_MAX && name.split('.').all(is_word);
        if good { Ok(Self(name.into())) } else { Err(BadType) }
    }

    /// Reads several, with commas between them.
    ///
    /// # Errors
    ///
    /// One is no name.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, BadType> {
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(Self::parse).collect()
    }

    /// Whether a type is this one, or of this family. Some acts have capitals in their names.
    pub fn matches(&self, kind: &str) -> bool {
        let (name, kind) = (self.0.as_bytes(), kind.as_bytes());
        let begins = kind.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        name.is_empty() || begins && matches!(kind.get(name.len()), None | Some(b'.'))
    }

    /// Whether an event of this class may be of such a type.
    fn may_be(&self, class: Class) -> bool {
        // Any command may be one of an administrator.
        class == Class::Administration
            || KINDS.iter().any(|info| info.class == class && self.matches(info.name))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { "*" } else { &self.0 }
    }
}

/// Bytes of a type's name.
const TYPE_BYTES_MAX: usize = 128;

impl Serialize for TypeFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TypeFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Filter {
    /// The classes of which it may want something.
    pub fn classes(&self) -> Vec<Class> {
        let may = |class: &Class| {
            self.types.is_empty() || self.types.iter().any(|kind| kind.may_be(*class))
        };
        Class::ALL.into_iter().filter(may).collect()
    }

    /// Whether it wants this event, of whatever organisation.
    pub fn wants(&self, seen: &Seen) -> bool {
        let of_type =
            || self.types.is_empty() || self.types.iter().any(|kind| kind.matches(&seen.kind));
        let of_thing = || {
            let thing = seen.thing.as_deref();
            self.things.is_empty()
                || thing.is_some_and(|thing| self.things.iter().any(|wanted| wanted == thing))
        };
        of_type() && of_thing()
    }
}

/// An event as readers get it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its number.
    pub number: u64,
    /// Its class.
    pub class: Class,
    /// Its type.
    pub kind: Box<str>,
    /// Whose it is; [`SERVER`] if nobody's.
    pub org: OrgId,
    /// When it happened.
    pub ts: Timestamp,
    /// The key of the thing that it is about.
    pub thing: Option<Box<str>>,
    /// Who it is about or who did it: the last level of its topic if it is about no thing.
    pub who: Option<Box<str>>,
    /// The event itself, a JSON object.
    pub text: Bytes,
}

/// What is asked of a row.
#[derive(Deserialize)]
struct Facts {
    ts: Option<Timestamp>,
    #[serde(rename = "type")]
    kind: Option<Box<str>>,
    command: Option<Box<str>>,
    #[serde(rename = "thingKey")]
    thing_key: Option<Box<str>>,
    #[serde(rename = "whoAmI")]
    who_am_i: Option<Box<str>>,
    target: Option<TargetFacts>,
}

#[derive(Deserialize)]
struct TargetFacts {
    kind: Option<Box<str>>,
    name: Option<Box<str>>,
}

/// From where an event came.
#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow, rename = "remoteAddr")]
    remote_addr: Option<Cow<'a, str>>,
}

impl Seen {
    /// The event of a row; none of one that can't be read.
    pub(super) fn of_row(
        (class, org, org_key): (Class, OrgId, Option<Arc<str>>),
        number: u64,
        row: &[u8],
    ) -> Option<Self> {
        let facts: Facts = serde_json::from_slice(row).ok()?;
        let untold = facts.kind.is_none();
        let command = facts.command.as_deref().unwrap_or_default();
        let kind = facts.kind.unwrap_or_else(|| match class {
            Class::Refusals if command == "login" => "login.refused".into(),
            Class::Refusals => "command.refused".into(),
            _ => command.into(),
        });
        let target = facts.target.unwrap_or(TargetFacts { kind: None, name: None });
        let is_thing = target.kind.as_deref() == Some("thing");
        // Of an act, what it was done on; who did it may be a thing, too.
        let (thing, who) = match (class, is_thing) {
            (Class::Administration, true) => (target.name.clone(), target.name),
            (Class::Administration, false) => (None, target.name.or(facts.who_am_i)),
            _ => (facts.thing_key, facts.who_am_i),
        };
        let place = (class, org, org_key);
        let text = complete_text(place, number, untold.then_some(&*kind), row).into();
        let ts = facts.ts.unwrap_or_default();
        Some(Self { number, class, kind, org, ts, thing, who, text })
    }

    /// Whether it came from an address that begins so.
    pub fn is_from(&self, prefix: &AddressPrefix) -> bool {
        let place = serde_json::from_slice::<Place<'_>>(&self.text).ok();
        let from = place.and_then(|place| place.remote_addr);
        from.and_then(|from| from.parse().ok()).is_some_and(|from| prefix.begins(from))
    }

    /// The topic of its MQTT message: `$events/`, the type with levels for its words, and the key or
    /// name of what it is about, without what no level may have.
    pub fn topic(&self) -> String {
        let about = self.thing.as_deref().or(self.who.as_deref()).unwrap_or("-");
        let about = topic_level(about);
        format!("{EVENTS_TOPIC}{}/{about}", self.kind.replace('.', "/"))
    }
}

/// What the topics of events begin with.
pub const EVENTS_TOPIC: &str = "$events/";

/// The class of the event of a topic; none for other topics.
pub fn topic_class(topic: &str) -> Option<Class> {
    let (kind, _) = topic.strip_prefix(EVENTS_TOPIC)?.rsplit_once('/')?;
    let same = |name: &str| {
        name.len() == kind.len()
            && name.bytes().zip(kind.bytes()).all(|(n, k)| n == k || n == b'.' && k == b'/')
    };
    let known = KINDS.iter().find(|info| same(info.name));
    Some(known.map_or(Class::Administration, |info| info.class))
}

/// The thing that the text of an event, which is none of administration, is about.
pub fn thing_of_text(text: &[u8]) -> Option<Box<str>> {
    serde_json::from_slice::<Facts>(text).ok()?.thing_key
}

fn topic_level(name: &str) -> String {
    let level: String = name
        .chars()
        .map(|c| if matches!(c, '/' | '+' | '#') || c.is_control() { '_' } else { c })
        .collect();
    debug_assert!(topic::valid_topic(&level) || level.is_empty());
    if level.is_empty() { "-".to_owned() } else { level }
}

/// A row with what is in its key, as one line of JSON.
pub(super) fn complete_text(
    (class, org, org_key): (Class, OrgId, Option<Arc<str>>),
    number: u64,
    kind: Option<&str>,
    row: &[u8],
) -> Vec<u8> {
    let mut text = Vec::with_capacity(row.len() + 128);
    text.extend_from_slice(format!("{{\"number\":{number}").as_bytes());
    if let Some(kind) = kind {
        text.extend_from_slice(b",\"type\":");
        base::json::push_string(&mut text, kind);
    }
    text.extend_from_slice(format!(",\"class\":\"{}\"", class.as_str()).as_bytes());
    if org != SERVER {
        text.extend_from_slice(format!(",\"orgId\":\"{org}\"").as_bytes());
    }
    if let Some(org_key) = org_key {
        text.extend_from_slice(b",\"orgKey\":");
        base::json::push_string(&mut text, &org_key);
    }
    match row.get(1..) {
        Some(rest) if rest.first() != Some(&b'}') => {
            text.push(b',');
            text.extend_from_slice(rest);
        }
        _ => text.push(b'}'),
    }
    text
}

/// One event of what several organisations see of it, which are those of the reader.
pub(super) fn merged(mut rows: SmallVec<[Arc<Seen>; 1]>) -> Option<Arc<Seen>> {
    if rows.len() < 2 {
        return rows.pop();
    }
    let mut rows = rows.into_iter();
    let mut first = Arc::unwrap_or_clone(rows.next()?);
    let mut all: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&first.text).ok()?;
    for row in rows {
        super::reader::merge(&mut all, serde_json::from_slice(&row.text).ok()?);
    }
    first.text = store::rows::encode(&all).into();
    Some(Arc::new(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_not_the_beginning_of_a_name() {
        let check = |filter: &str, kind: &str, expected: bool| {
            let filter = TypeFilter::parse(filter).expect("a type");
            assert_eq!(filter.matches(kind), expected, "{filter:?} {kind}");
        };
        check("session", "session.started", true);
        check("Session.*", "session.started", true);
        check("session.started", "session.started", true);
        check("session.start", "session.started", false);
        check("thing", "thing_def.create", false);
        check("*", "alarm.changed", true);
        check("user.org.*", "user.org.add", true);
        check("SetLoginSessionInfo", "SetLoginSessionInfo", true);
        check("setlogin", "SetLoginSessionInfo", false);
        check("session.startedx", "session.started", false);
        for bad in ["", ".", "a..b", "a*", "session.", "a b", "a/b"] {
            assert_eq!(TypeFilter::parse(bad), Err(BadType), "{bad}");
        }
        assert_eq!(TypeFilter::parse_list("a, b.*,").expect("two").len(), 2);
    }

    #[test]
    fn rows_are_completed_and_read() {
        let row = br#"{"ts":"2026-03-02T08:15:04.117Z","type":"alarm.changed","thingKey":"a/b+"}"#;
        let org = OrgId::from_bytes([1; 12]);
        let seen = Seen::of_row((Class::Alarms, org, None), 7, row).expect("a row");
        assert_eq!((&*seen.kind, seen.thing.as_deref()), ("alarm.changed", Some("a/b+")));
        assert_eq!(seen.topic(), "$events/alarm/changed/a_b_");
        assert_eq!(topic_class(&seen.topic()), Some(Class::Alarms));
        assert_eq!(topic_class("$events/role/update/x"), Some(Class::Administration));
        assert_eq!(topic_class("events/alarm/changed/x"), None);
        let text = String::from_utf8(seen.text.to_vec()).expect("text");
        assert!(text.starts_with(r#"{"number":7,"class":"alarms","orgId":"010101"#), "{text}");
        assert!(text.ends_with(r#","thingKey":"a/b+"}"#), "{text}");
        let login = br#"{"command":"login","whoAmI":"x"}"#;
        let seen = Seen::of_row((Class::Refusals, SERVER, None), 8, login).expect("a row");
        assert_eq!(&*seen.kind, "login.refused");
        assert!(
            seen.text.starts_with(br#"{"number":8,"type":"login.refused","class":"refusals","#)
        );
    }
}
