//! The envelope: one JSON object, `auth` and any number of named commands (`tr50.md` 2).

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::error::{Code, Failure};
use crate::limits;

/// A request, borrowed from the bytes it came in.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// The member `auth`, unless it is null.
    pub auth: Option<&'a RawValue>,
    /// The commands in the order of the text.
    pub commands: SmallVec<[Command<'a>; 2]>,
}

/// A named command.
#[derive(Debug)]
pub struct Command<'a> {
    /// The name under which the answer goes back.
    pub id: Cow<'a, str>,
    /// What to do, or why it is no command.
    pub body: Result<Body<'a>, &'static str>,
}

/// What to do.
#[derive(Debug)]
pub struct Body<'a> {
    /// The command's name as it was sent.
    pub command: Cow<'a, str>,
    /// The member `params`, not yet looked into.
    pub params: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    /// Reads the first JSON value of `bytes`; what follows it is ignored (`tr50.md` 0, fact 24).
    /// Returns the request and how many bytes it took.
    ///
    /// # Errors
    ///
    /// A root-level failure when there is no JSON object, when it has more than
    /// [`limits::COMMANDS_PER_REQUEST`] commands, or the same name twice.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Failure> {
        // Checked once as a whole, so that no string has to be checked again. What follows the
        // first value need not be text.
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
                std::str::from_utf8(valid).unwrap_or_default()
            }
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut json = serde_json::Deserializer::from_str(text);
        let request = Self::deserialize(&mut json).map_err(|error| {
            Failure::new(Code::MALFORMED, format!("The request is not a JSON object: {error}."))
        })?;
        if request.commands.len() > limits::COMMANDS_PER_REQUEST {
            let most = limits::COMMANDS_PER_REQUEST;
            let sentence = format!("The request has more than {most} commands.");
            return Err(Failure::new(Code::TOO_LARGE, sentence));
        }
        match first_repeated(&request.commands) {
            Some(id) => {
                let sentence = format!("The request has two commands named \"{id}\".");
                Err(Failure::new(Code::MALFORMED, sentence))
            }
            None => Ok(request),
        }
    }
}

fn first_repeated<'c>(commands: &'c [Command<'_>]) -> Option<&'c str> {
    if commands.len() < 2 {
        return None;
    }
    let mut ids: Vec<&str> = commands.iter().map(|command| &*command.id).collect();
    ids.sort_unstable();
    ids.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

impl<'de> Deserialize<'de> for Request<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RequestVisitor;

        impl<'de> Visitor<'de> for RequestVisitor {
            type Value = Request<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of named commands")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut request = Request::default();
                while let Some(Text(id)) = map.next_key()? {
                    if id.eq_ignore_ascii_case("auth") {
                        let auth: &RawValue = map.next_value()?;
                        request.auth = Some(auth).filter(|auth| auth.get() != "null");
                        continue;
                    }
                    let MaybeBody(body) = map.next_value()?;
                    request.commands.push(Command { id, body });
                }
                Ok(request)
            }
        }

        deserializer.deserialize_map(RequestVisitor)
    }
}

/// A string, borrowed when it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

struct MaybeBody<'a>(Result<Body<'a>, &'static str>);

const NOT_A_COMMAND: &str = "an object with the member \"command\" was expected";

impl<'de> Deserialize<'de> for MaybeBody<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BodyVisitor)
    }
}

/// The visits of values that are not wanted, which are read all the same.
macro_rules! other_values {
    ($instead:expr) => {
        fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok($instead)
        }

        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($instead)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($instead)
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($instead)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($instead)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($instead)
        }
    };
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = MaybeBody<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let (mut command, mut params) = (None, None);
        while let Some(Text(name)) = map.next_key()? {
            if name.eq_ignore_ascii_case("command") {
                command = Some(map.next_value::<MaybeText<'de>>()?);
            } else if name.eq_ignore_ascii_case("params") {
                params = map.next_value::<Option<&RawValue>>()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(MaybeBody(match command {
            Some(MaybeText(Some(command))) => Ok(Body { command, params }),
            Some(MaybeText(None)) => Err("its member \"command\" is not a string"),
            None => Err(NOT_A_COMMAND),
        }))
    }

    other_values!(MaybeBody(Err(NOT_A_COMMAND)));

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(MaybeBody(Err(NOT_A_COMMAND)))
    }
}

/// A string, or none for a value of any other kind.
struct MaybeText<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for MaybeText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MaybeTextVisitor;

        impl<'de> Visitor<'de> for MaybeTextVisitor {
            type Value = MaybeText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(MaybeText(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(MaybeText(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(MaybeText(None))
            }

            other_values!(MaybeText(None));
        }

        deserializer.deserialize_any(MaybeTextVisitor)
    }
}

/// The text of a JSON string; none for any other value.
pub fn text_of(value: &RawValue) -> Option<Cow<'_, str>> {
    let json = value.get();
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The members of a JSON object whose values are not looked into.
pub struct Members<'a>(pub SmallVec<[(Cow<'a, str>, &'a RawValue); 8]>);

impl<'a> Members<'a> {
    /// Reads `params`: absent, null and `[]` mean none (`tr50.md` 0, fact 10).
    ///
    /// # Errors
    ///
    /// `params` is neither an object nor one of those.
    pub fn read(params: Option<&'a RawValue>) -> Result<Self, Failure> {
        let none = || Ok(Self(SmallVec::new()));
        let Some(params) = params else { return none() };
        let json = params.get();
        let empty_array = |text: &str| {
            let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            inner.is_some_and(|inner| inner.trim().is_empty())
        };
        if json == "null" || empty_array(json) {
            return none();
        }
        serde_json::from_str(json)
            .map_err(|_| Failure::new(Code::PARAMETER_INVALID, "\"params\" must be an object."))
    }

    /// The member with this name, without regard to case (`tr50.md` 0, fact 14). Null is absent.
    pub fn find(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().find(|(member, _)| member.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value).filter(|value| value.get() != "null")
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = SmallVec::new();
                while let Some(Text(name)) = map.next_key()? {
                    if members.len() == limits::COMMANDS_PER_REQUEST {
                        return Err(M::Error::custom("too many members"));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<(String, String)>, String> {
        let request = Request::parse(text.as_bytes()).map_err(|f| f.message.into_owned())?;
        let name = |command: &Command<'_>| match &command.body {
            Ok(body) => (command.id.to_string(), body.command.to_string()),
            Err(why) => (command.id.to_string(), format!("!{why}")),
        };
        Ok(request.commands.iter().map(name).collect())
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(id, name)| ((*id).to_owned(), (*name).to_owned())).collect()
    }

    #[test]
    fn commands_are_read_in_the_order_of_the_text() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            assert_eq!(names(text), Ok(pairs(expected)), "{text}");
        };
        check("{}", &[]);
        check(r#"{"cmd":{"command":"diag.ping"}}"#, &[("cmd", "diag.ping")]);
        check(
            r#"{"2":{"command":"b"},"auth":{"sessionId":"x"},"1":{"params":[],"command":"a"}}"#,
            &[("2", "b"), ("1", "a")],
        );
        check(r#"{"cmd":{"Command":"A","PARAMS":null,"x":[{}]}}"#, &[("cmd", "A")]);
        check(r#"{"a\"b":{"command":"\u0061"}}"#, &[("a\"b", "a")]);
        check("\u{feff}{\"cmd\":{\"command\":\"a\"}}", &[("cmd", "a")]);
        // One firmware's template has a closing brace too many.
        check(r#"{"cmd":{"command":"a"}}} and more"#, &[("cmd", "a")]);
    }

    #[test]
    fn what_is_no_command_is_answered_under_its_name() {
        for value in ["1", "-1", "1.5", "null", "\"x\"", "true", "[1,[2]]", "{}"] {
            let text = format!(r#"{{"x":{value},"cmd":{{"command":"a"}}}}"#);
            let read = names(&text).expect("a request");
            assert_eq!(read[0].1, format!("!{NOT_A_COMMAND}"), "{value}");
            assert_eq!(read[1].1, "a");
        }
        for value in ["7", "null", "{\"a\":[1]}", "[{}]", "true", "-1", "0.5"] {
            let text = format!(r#"{{"x":{{"command":{value},"params":{{}}}}}}"#);
            let read = names(&text).expect("a request");
            assert_eq!(read[0].1, "!its member \"command\" is not a string");
        }
    }

    #[test]
    fn a_request_that_is_no_object_is_refused() {
        for text in ["", "[]", "7", "\"x\"", "{", "{\"a\":}", "nonsense", "{\"a\":{\"command\":"] {
            let refused = names(text).expect_err(text);
            assert!(refused.starts_with("The request is not a JSON object"), "{refused}");
        }
        let invalid_utf8 = b"{\"cmd\":{\"command\":\"\xff\"}}";
        assert!(Request::parse(invalid_utf8).is_err());
        let trailing_bytes = b"{\"cmd\":{\"command\":\"a\"}}\xff\xfe";
        assert!(Request::parse(trailing_bytes).is_ok());
        let twice = names(r#"{"a":{"command":"x"},"b":{"command":"x"},"a":{"command":"y"}}"#);
        assert_eq!(twice, Err("The request has two commands named \"a\".".to_owned()));
    }

    #[test]
    fn auth_may_be_null_and_may_come_last() {
        let request = Request::parse(br#"{"data":{"command":"a"},"auth":null}"#).expect("read");
        assert!(request.auth.is_none());
        let request = Request::parse(br#"{"data":{"command":"a"},"auth":{"sessionId":"s"}}"#);
        assert_eq!(request.expect("read").auth.map(RawValue::get), Some(r#"{"sessionId":"s"}"#));
    }

    #[test]
    fn params_may_be_absent_null_or_an_empty_array() {
        for params in ["null", "[]", "[ ]", "{}"] {
            let raw: Box<RawValue> = serde_json::from_str(params).expect("JSON");
            assert!(Members::read(Some(&raw)).expect("read").0.is_empty(), "{params}");
        }
        for params in ["[1]", "7", "\"x\"", "true"] {
            let raw: Box<RawValue> = serde_json::from_str(params).expect("JSON");
            assert!(Members::read(Some(&raw)).is_err(), "{params}");
        }
        let raw: Box<RawValue> = serde_json::from_str(r#"{"LIMIT":"5","x":null}"#).expect("JSON");
        let members = Members::read(Some(&raw)).expect("read");
        assert_eq!(members.find("limit").map(RawValue::get), Some("\"5\""));
        assert!(members.find("x").is_none());
    }
}
