//! The envelope: one JSON object, `auth` and any number of named commands (`docs/protocol/tr50.md`
//! 2).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base::{
    Code, Failure, excerpt,
    json::{self, first_special, has_lone_surrogate, well_formed},
    limits, utf8,
};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};
use smallvec::SmallVec;

/// A request, borrowed from the bytes it came in.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// The member `auth`, unless it is null.
    pub auth: Option<&'a RawValue>,
    /// The commands in the order of the text.
    pub commands: SmallVec<[Command<'a>; 2]>,
    /// Whether it has the form of 2012, whose clients look for `errorMessage` in the reply:
    /// `"auth":null`, or `[]` for parameters (`docs/protocol/tr50.md` 2).
    pub is_of_2012: bool,
    /// What stands as `command` where commands stand by names of their own, if that is no object.
    unwrapped: Option<&'a RawValue>,
}

/// A named command.
#[derive(Debug)]
pub struct Command<'a> {
    /// The name under which the answer goes back.
    pub id: Cow<'a, str>,
    /// What to do, or why it is no command.
    pub body: Result<Body<'a>, &'static str>,
}

impl Command<'_> {
    /// The command's name as it was sent; empty for what is no command.
    pub fn name(&self) -> &str {
        self.body.as_ref().map_or("", |body| &body.command)
    }
}

/// What to do.
#[derive(Debug)]
pub struct Body<'a> {
    /// The command's name as it was sent.
    pub command: Cow<'a, str>,
    /// Its parameters.
    pub params: RawParams<'a>,
}

/// The parameters of a command, not yet looked into.
#[derive(Clone, Copy, Debug)]
pub enum RawParams<'a> {
    /// The member `params` of an envelope's command, unless it is null.
    Json(Option<&'a RawValue>),
    /// Texts by name: the fields of a form, or what a topic says. Of a name given twice the last
    /// counts.
    Named(&'a [(&'a str, &'a str)]),
}

impl RawParams<'_> {
    /// The same as JSON, to be kept: texts become the members of an object, in the order of their
    /// names. None if there is no member `params`.
    pub fn to_json(self) -> Option<Box<RawValue>> {
        match self {
            Self::Json(params) => params.map(ToOwned::to_owned),
            Self::Named(texts) => {
                let texts: BTreeMap<_, _> = texts.iter().copied().collect();
                Some(to_raw_value(&texts).expect("a map of texts can always be written"))
            }
        }
    }
}

impl<'a> Request<'a> {
    /// Reads the first JSON value of `bytes`; what follows it is ignored (`docs/protocol/tr50.md`
    /// 0, fact 24). Where its Unicode is ill-formed, what it is read as is in `mended`, from which
    /// the request is borrowed then.
    ///
    /// # Errors
    ///
    /// A root-level failure when there is no JSON object, when it has more than
    /// [`limits::COMMANDS_PER_REQUEST`] commands, or the same name twice, or when it is a command
    /// without a name.
    pub fn parse(bytes: &'a [u8], mended: &'a mut String) -> Result<Self, Failure> {
        // Checked once as a whole, so that no string has to be checked again. What follows the
        // first value need not be text.
        let text = match utf8::text(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
                utf8::text(valid).unwrap_or_default()
            }
        };
        let mut request = Self::default();
        if !Reader::new(without_mark(text)).read(&mut request) {
            *mended = well_formed(bytes).into_owned();
            let text = without_mark(mended);
            request = Self::default();
            if !Reader::new(text).read(&mut request) {
                let sentence = format!("The request is not a JSON object: {}.", trouble_with(text));
                return Err(Failure::new(Code::MALFORMED, sentence));
            }
        }
        if request.commands.len() > limits::COMMANDS_PER_REQUEST {
            let most = limits::COMMANDS_PER_REQUEST;
            let sentence = format!("The request has more than {most} commands.");
            return Err(Failure::new(Code::TOO_LARGE, sentence));
        }
        if let Some(value) = request.unwrapped
            && let Some(name) = text_of(value)
        {
            check_wrapping(&name, &mut request.commands)?;
        }
        check_ids(&mut request.commands)?;
        Ok(request)
    }
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Fails when two commands have the same name. If they have it only because ill-formed Unicode was
/// read as U+FFFD, both fail, under one answer, and the others are carried out.
fn check_ids(commands: &mut SmallVec<[Command<'_>; 2]>) -> Result<(), Failure> {
    if commands.len() < 2 {
        return Ok(());
    }
    let mut ids: Vec<&str> = commands.iter().map(|command| &*command.id).collect();
    ids.sort_unstable();
    let repeated = ids.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
    let is_mended = |id: &&str| id.contains(char::REPLACEMENT_CHARACTER);
    if let Some(id) = repeated.clone().find(|id| !is_mended(id)) {
        let sentence = format!("The request has two commands named \"{id}\".");
        return Err(Failure::new(Code::MALFORMED, sentence));
    }
    // By name, whether the one that is answered was met.
    let mut repeated: BTreeMap<String, bool> = repeated.map(|id| (id.to_owned(), false)).collect();
    if !repeated.is_empty() {
        commands.retain(|command| match repeated.get_mut(&*command.id) {
            None => true,
            Some(met) => {
                command.body = Err(TWICE);
                !std::mem::replace(met, true)
            }
        });
    }
    Ok(())
}

const NOT_A_COMMAND: &str = "an object with the member \"command\" was expected";

const NOT_WRAPPED: &str =
    "a command needs a name of your choice around it: {\"cmd\":{\"command\":…}}";

const TWICE: &str = "more than one command has this name, as which ill-formed Unicode was read; \
                     none of them was executed";

/// Reads the two levels of objects and the names that every request has; all other values are
/// left to serde_json. A visitor for serde, which did the same, cost three times as much, and that
/// was a third of what a `diag.ping` takes in all.
struct Reader<'a> {
    text: &'a str,
    /// The position of what is read next.
    at: usize,
    is_of_2012: bool,
    /// Whether a value has the escape of a surrogate without its other half.
    is_ill_formed: bool,
    unwrapped: Option<&'a RawValue>,
}

impl<'a> Reader<'a> {
    const fn new(text: &'a str) -> Self {
        Self { text, at: 0, is_of_2012: false, is_ill_formed: false, unwrapped: None }
    }

    /// Reads the request; false if the text does not begin with a JSON object, or if that is
    /// ill-formed.
    fn read(mut self, request: &mut Request<'a>) -> bool {
        let read = self.request(request).is_some() && !self.is_ill_formed;
        (request.is_of_2012, request.unwrapped) = (self.is_of_2012, self.unwrapped);
        read
    }

    /// The request; none if the text does not begin with a JSON object.
    fn request(&mut self, request: &mut Request<'a>) -> Option<()> {
        self.object(|reader, id| {
            if is_named(&id, "auth") {
                request.auth = reader.value_unless_null()?;
                reader.is_of_2012 |= request.auth.is_none();
            } else {
                let body = reader.body(&id)?;
                request.commands.push(Command { id, body });
            }
            Some(())
        })
    }

    /// What stands under a command's name.
    fn body(&mut self, id: &str) -> Option<Result<Body<'a>, &'static str>> {
        if self.peek() != Some(b'{') {
            let value = self.value()?;
            self.is_of_2012 |= is_named(id, "params") && is_empty_array(value);
            if is_named(id, "command") {
                self.is_ill_formed |= has_lone_surrogate(value.get());
                self.unwrapped = Some(value);
            }
            return Some(Err(NOT_A_COMMAND));
        }
        let (mut command, mut params) = (Err(NOT_A_COMMAND), RawParams::Json(None));
        self.object(|reader, name| {
            if is_named(&name, "command") {
                command = reader.text_or("its member \"command\" is not a string")?;
            } else if is_named(&name, "params") {
                let value = reader.value_unless_null()?;
                reader.is_of_2012 |= value.is_some_and(is_empty_array);
                params = RawParams::Json(value);
            } else {
                reader.value()?;
            }
            Some(())
        })?;
        Some(command.map(|command| Body { command, params }))
    }

    /// An object, of which `member` reads the values.
    #[inline]
    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Option<()>,
    ) -> Option<()> {
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(());
        }
        loop {
            let name = self.text()?;
            self.take(b':')?;
            member(self, name)?;
            if self.take(b',').is_none() {
                return self.take(b'}');
            }
        }
    }

    /// A string, borrowed when it has no escapes.
    #[inline]
    fn text(&mut self) -> Option<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let start = self.at + 1;
        let end = start + first_special(self.text.as_bytes().get(start..)?)?;
        if self.text.as_bytes().get(end) != Some(&b'"') {
            return self.parse().map(Cow::Owned);
        }
        self.at = end + 1;
        self.text.get(start..end).map(Cow::Borrowed)
    }

    /// A string, or `otherwise` for any other value.
    fn text_or<E>(&mut self, otherwise: E) -> Option<Result<Cow<'a, str>, E>> {
        if self.peek() == Some(b'"') {
            return self.text().map(Ok);
        }
        self.value()?;
        Some(Err(otherwise))
    }

    fn value(&mut self) -> Option<&'a RawValue> {
        self.parse()
    }

    /// A value that is kept.
    fn value_unless_null(&mut self) -> Option<Option<&'a RawValue>> {
        let value = self.value()?;
        self.is_ill_formed |= has_lone_surrogate(value.get());
        Some(Some(value).filter(|value| value.get() != "null"))
    }

    /// Any value, read by serde_json.
    fn parse<T: Deserialize<'a>>(&mut self) -> Option<T> {
        let rest = self.text.get(self.at..)?;
        let mut values = serde_json::Deserializer::from_str(rest).into_iter();
        let value = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(value)
    }

    /// The next byte that is not blank.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if byte > b' ' || !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Takes a byte if it is the next that is not blank.
    #[inline]
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }
}

/// Deals with a command that has no name: the request fails, unless it has others that are
/// commands. What stands beside it as `params` is none.
fn check_wrapping(name: &str, commands: &mut [Command<'_>]) -> Result<(), Failure> {
    let is_part = |id: &str| is_named(id, "command") || is_named(id, "params");
    for command in commands.iter_mut().filter(|command| is_part(&command.id)) {
        command.body = Err(NOT_WRAPPED);
    }
    if commands.iter().any(|command| command.body.is_ok()) {
        return Ok(());
    }
    let name = excerpt(name);
    let sentence = format!(
        "A command needs a name of your choice around it: \
         {{\"cmd\":{{\"command\":\"{name}\",\"params\":{{…}}}}}}."
    );
    Err(Failure::new(Code::MALFORMED, sentence))
}

/// Whether a value is `[]`, which one client sends for no parameters.
fn is_empty_array(value: &RawValue) -> bool {
    let inner = value.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.trim_ascii().is_empty())
}

/// Whether a member has this name, in any case (`docs/protocol/tr50.md` 0, fact 14), which is
/// mostly this one.
#[inline]
fn is_named(name: &str, wanted: &str) -> bool {
    name == wanted || name.eq_ignore_ascii_case(wanted)
}

/// Why a text does not begin with a JSON object, as serde_json tells it.
fn trouble_with(text: &str) -> String {
    struct Object;

    impl<'de> Visitor<'de> for Object {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of named commands")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(())
        }
    }

    let read = serde_json::Deserializer::from_str(text).deserialize_map(Object);
    read.map_or_else(|error| error.to_string(), |()| "a name can't be read".to_owned())
}

/// A parameter that is not yet looked into.
#[derive(Clone, Copy, Debug)]
pub enum Param<'a> {
    /// A JSON value.
    Json(&'a RawValue),
    /// A text from outside JSON. It counts as the JSON string of it.
    Text(&'a str),
}

impl<'a> Param<'a> {
    /// The text of a string; none for any other value.
    pub fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Json(value) => text_of(value),
            Self::Text(text) => Some(Cow::Borrowed(text)),
        }
    }

    /// The text of a string, or the token of a number, boolean or null; none for any other value.
    pub fn bare_text(self) -> Option<Cow<'a, str>> {
        let Self::Json(value) = self else { return self.text() };
        match value.get().as_bytes().first()? {
            b'"' => text_of(value),
            b'{' | b'[' => None,
            _ => Some(Cow::Borrowed(value.get())),
        }
    }

    /// The JSON value, which may be an object or a list; a text is neither.
    pub const fn json(self) -> Option<&'a RawValue> {
        match self {
            Self::Json(value) => Some(value),
            Self::Text(_) => None,
        }
    }

    /// Whether it is JSON's null.
    pub fn is_null(self) -> bool {
        self.json().is_some_and(|value| value.get() == "null")
    }
}

fn text_of(value: &RawValue) -> Option<Cow<'_, str>> {
    let json = value.get();
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Parameters by name, or the members of another JSON object; the values are not looked into.
pub struct Members<'a>(pub SmallVec<[(Cow<'a, str>, Param<'a>); 8]>);

impl<'a> Members<'a> {
    /// Reads `params`: absent, null and `[]` mean none (`docs/protocol/tr50.md` 0, fact 10).
    ///
    /// # Errors
    ///
    /// `params` is neither an object nor one of those, or there are more than
    /// [`limits::COMMANDS_PER_REQUEST`].
    pub fn read(params: RawParams<'a>) -> Result<Self, Failure> {
        let none = || Ok(Self(SmallVec::new()));
        let sentence = "\"params\" must be an object.";
        let wrong = || Failure::new(Code::PARAMETER_INVALID, sentence);
        let params = match params {
            RawParams::Json(Some(params)) => params,
            RawParams::Json(None) => return none(),
            RawParams::Named(texts) if texts.len() > limits::COMMANDS_PER_REQUEST => {
                return Err(wrong());
            }
            RawParams::Named(texts) => {
                let member =
                    |(name, text): &(&'a str, &'a str)| ((*name).into(), Param::Text(text));
                return Ok(Self(texts.iter().map(member).collect()));
            }
        };
        if params.get() == "null" || is_empty_array(params) {
            return none();
        }
        Self::of(params).ok_or_else(wrong)
    }

    /// Those of an object; none for any other value, and for more than
    /// [`limits::COMMANDS_PER_REQUEST`].
    pub fn of(value: &'a RawValue) -> Option<Self> {
        Self::of_text(value.get())
    }

    /// The same of the text of a JSON value.
    pub fn of_text(value: &'a str) -> Option<Self> {
        let mut members = SmallVec::new();
        Reader::new(value).object(|reader, name| {
            let room = members.len() < limits::COMMANDS_PER_REQUEST;
            members.push((name, Param::Json(reader.value()?)));
            room.then_some(())
        })?;
        Some(Self(members))
    }

    /// The member with this name, without regard to case (`docs/protocol/tr50.md` 0, fact 14); the
    /// last of several. Null is absent.
    pub fn find(&self, name: &str) -> Option<Param<'a>> {
        self.last(name).filter(|value| !value.is_null())
    }

    /// All but those with this name, to be kept.
    pub fn without(&self, name: &str) -> Box<RawValue> {
        let mut text = vec![b'{'];
        for (member, value) in &self.0 {
            if let Some(value) = value.json().filter(|_| !member.eq_ignore_ascii_case(name)) {
                if text.len() > 1 {
                    text.push(b',');
                }
                json::push_string(&mut text, member);
                text.push(b':');
                text.extend_from_slice(value.get().as_bytes());
            }
        }
        text.push(b'}');
        let text = String::from_utf8(text).expect("texts between signs of ASCII");
        RawValue::from_string(text).expect("members of an object are those of another")
    }

    /// As [`Members::find`], but null is null.
    pub fn last(&self, name: &str) -> Option<Param<'a>> {
        let found = self.0.iter().rfind(|(member, _)| member.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value)
    }
}

/// The members of an object, however many; none for any other value.
pub fn members_of(value: &RawValue) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    let mut members = Vec::new();
    Reader::new(value.get()).object(|reader, name| {
        members.push((name, reader.value()?));
        Some(())
    })?;
    Some(members)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> Result<Vec<(String, String)>, String> {
        let mut mended = String::new();
        let request =
            Request::parse(text.as_bytes(), &mut mended).map_err(|f| f.message.into_owned())?;
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
        for bytes in [&b"{\"cmd\":\xff}"[..], b"\xff{}", b"{\"cmd\\\xff\":{}}", b"{\"\xff\":{}"] {
            assert!(Request::parse(bytes, &mut String::new()).is_err(), "{bytes:?}");
        }
        let trailing_bytes = b"{\"cmd\":{\"command\":\"a\"}}\xff\xfe \\ud83d";
        let mut mended = String::new();
        assert!(Request::parse(trailing_bytes, &mut mended).is_ok());
        assert_eq!(mended, "", "what follows is not looked into");
        let twice = names(r#"{"a":{"command":"x"},"b":{"command":"x"},"a":{"command":"y"}}"#);
        assert_eq!(twice, Err("The request has two commands named \"a\".".to_owned()));
    }

    #[test]
    fn ill_formed_unicode_is_read_as_replacements() {
        let check = |bytes: &[u8], expected: &[(&str, &str, Option<&str>)]| {
            let mut mended = String::new();
            let request = Request::parse(bytes, &mut mended).expect("a request");
            let read = request.commands.iter().map(|command| match &command.body {
                Ok(Body { command: name, params: RawParams::Json(params) }) => {
                    (&*command.id, &**name, params.map(RawValue::get))
                }
                Ok(_) => unreachable!("JSON has JSON"),
                Err(why) => (&*command.id, *why, None),
            });
            assert_eq!(read.collect::<Vec<_>>(), expected, "{:?}", String::from_utf8_lossy(bytes));
        };
        check(
            b"{\"a\":{\"command\":\"x\",\"params\":{\"v\":\"23\xb0C\"}},\"b\":{\"command\":\"y\"}}",
            &[("a", "x", Some("{\"v\":\"23\u{fffd}C\"}")), ("b", "y", None)],
        );
        check(
            br#"{"a\ud83d":{"command":"x\ude00","params":{"\ud83dA":["\ud83d\ude00"]}}}"#,
            &[(
                "a\u{fffd}",
                "x\u{fffd}",
                Some(r#"{"@A":["\ud83d\ude00"]}"#.replace('@', "\u{fffd}").as_str()),
            )],
        );
        check(
            b"\xef\xbb\xbf{\"a\":{\"command\":\"\xed\xa0\xbd\",\"comm\xc3\":1}} \xff}",
            &[("a", "\u{fffd}\u{fffd}\u{fffd}", None)],
        );
        // Names that are the same once they are read: neither is executed, the others are.
        check(
            b"{\"\xb0\":{\"command\":\"x\"},\"b\":{\"command\":\"y\"},\
              \"\xb1\":{\"command\":\"z\"}}",
            &[("\u{fffd}", TWICE, None), ("b", "y", None)],
        );
    }

    #[test]
    fn the_form_of_2012_is_known() {
        let check = |text: &str, expected: bool| {
            let mut mended = String::new();
            let request = Request::parse(text.as_bytes(), &mut mended).expect("a request");
            assert_eq!(request.is_of_2012, expected, "{text}");
        };
        check(r#"{"auth":null,"data":{"command":"api.ping"}}"#, true);
        check(r#"{"data":{"command":"api.ping","params":[ ]}}"#, true);
        check(r#"{"data":{"command":"api.ping"},"params":[]}"#, true);
        check(r#"{"data":{"command":"api.ping","params":{}}}"#, false);
        check(r#"{"data":{"command":"api.ping","params":null}}"#, false);
        check(r#"{"data":{"command":"api.ping","params":[1]},"list":[]}"#, false);
        check(r#"{"auth":{"sessionId":"x"},"data":{"command":"api.ping"}}"#, false);
    }

    #[test]
    fn a_command_without_a_name_is_answered_with_how_to_wrap_it() {
        for text in [
            r#"{"command":"diag.ping"}"#,
            r#"{"auth":{"sessionId":"x"},"Command":"diag.ping","params":{"a":1}}"#,
            r#"{"params":{"command":"reboot"},"command":"diag.ping","x":7}"#,
        ] {
            let refused = names(text).expect_err(text);
            let example = r#"{"cmd":{"command":"diag.ping","params":{…}}}"#;
            assert!(refused.contains(example), "{refused}");
        }
        let beside = r#"{"command":"x","params":{"command":"y"},"cmd":{"command":"z"}}"#;
        let hint = format!("!{NOT_WRAPPED}");
        let expected = pairs(&[("command", &hint), ("params", &hint), ("cmd", "z")]);
        assert_eq!(names(beside), Ok(expected));
        let expected = pairs(&[("command", "x")]);
        assert_eq!(names(r#"{"command":{"command":"x"}}"#), Ok(expected));
    }

    /// The members of an object in the order of the text, as serde_json reads them.
    struct Pairs(Vec<(String, serde_json::Value)>);

    impl<'de> Deserialize<'de> for Pairs {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct PairsVisitor;

            impl<'de> Visitor<'de> for PairsVisitor {
                type Value = Pairs;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
                    let mut pairs = Vec::new();
                    while let Some(pair) = map.next_entry()? {
                        pairs.push(pair);
                    }
                    Ok(Pairs(pairs))
                }
            }

            deserializer.deserialize_map(PairsVisitor)
        }
    }

    /// What [`names`] should find.
    fn expected_names(text: &str) -> Option<Vec<(String, String)>> {
        let text = well_formed(text.as_bytes());
        let mut values = serde_json::Deserializer::from_str(&text).into_iter();
        let Pairs(pairs) = values.next()?.ok()?;
        let name = |(id, value): (String, serde_json::Value)| {
            let command = match value.get("command") {
                Some(serde_json::Value::String(command)) => command.clone(),
                Some(_) => "!its member \"command\" is not a string".to_owned(),
                None => format!("!{NOT_A_COMMAND}"),
            };
            (id, command)
        };
        Some(pairs.into_iter().filter(|(id, _)| id != "auth").map(name).collect())
    }

    /// Those of [`expected_names`] that have the same name, and only because of ill-formed Unicode,
    /// are one that is refused.
    fn without_repeated(names: Vec<(String, String)>) -> Vec<(String, String)> {
        let mut kept: Vec<(String, String)> = Vec::new();
        for (id, name) in names {
            match kept.iter_mut().find(|(other, _)| *other == id && id.contains('\u{fffd}')) {
                Some((_, name)) => *name = format!("!{TWICE}"),
                None => kept.push((id, name)),
            }
        }
        kept
    }

    const TEXT: &str = r#""([a-c]|auth|\\u0061|\\[n"x]|é|\\ud83d(\\ude00)?){1,2}""#;
    const VALUE: &str = concat!(
        r#"-?[0-9]{1,2}|null|tru|true|"c"|"\\u0063"|\{\}|\[1, \{\}\]|"#,
        r#"\{"command" :"[d-f]\\\\?"\}|\{"params":\{"x":1\},"command":("c"|\[2\])\}"#
    );

    proptest! {
        #[test]
        fn what_serde_json_reads_as_an_object_is_a_request(
            members in proptest::collection::vec((TEXT, VALUE, "[ \n]?"), 0..4),
            cut in 0..100_usize,
            put in r#"[{}\[\]",:\\a1 \n\u{1}\u{e9}]{0,2}"#,
        ) {
            let member = |(id, value, blank)| format!("{blank}{id}{blank}:{blank}{value}{blank}");
            let members: Vec<_> = members.into_iter().map(member).collect();
            let mut text = format!("{{{}}} x", members.join(","));
            if let Some((at, char)) = text.char_indices().nth(cut) {
                text.replace_range(at..at + char.len_utf8(), &put);
            }
            match (names(&text), expected_names(&text)) {
                (Ok(read), Some(expected)) => {
                    prop_assert_eq!(read, without_repeated(expected), "{}", text);
                }
                (Err(why), Some(_)) => prop_assert!(why.contains("two commands"), "{why}: {text}"),
                (Err(_), None) => {}
                (Ok(_), None) => prop_assert!(false, "{text}"),
            }
        }
    }

    #[test]
    fn auth_may_be_null_and_may_come_last() {
        let check = |text: &str, expected: Option<&str>| {
            let mut mended = String::new();
            let request = Request::parse(text.as_bytes(), &mut mended).expect("read");
            assert_eq!(request.auth.map(RawValue::get), expected);
        };
        check(r#"{"data":{"command":"a"},"auth":null}"#, None);
        let auth = r#"{"sessionId":"s"}"#;
        check(&format!(r#"{{"data":{{"command":"a"}},"auth":{auth}}}"#), Some(auth));
    }

    #[test]
    fn params_may_be_absent_null_or_an_empty_array() {
        for params in ["null", "[]", "[ ]", "{}"] {
            let raw: Box<RawValue> = serde_json::from_str(params).expect("JSON");
            assert!(
                Members::read(RawParams::Json(Some(&raw))).expect("read").0.is_empty(),
                "{params}"
            );
        }
        for params in ["[1]", "7", "\"x\"", "true"] {
            let raw: Box<RawValue> = serde_json::from_str(params).expect("JSON");
            assert!(Members::read(RawParams::Json(Some(&raw))).is_err(), "{params}");
        }
        let raw: Box<RawValue> = serde_json::from_str(r#"{"LIMIT":"5","x":null}"#).expect("JSON");
        let members = Members::read(RawParams::Json(Some(&raw))).expect("read");
        let limit = members.find("limit").and_then(Param::json);
        assert_eq!(limit.map(RawValue::get), Some("\"5\""));
        assert!(members.find("x").is_none());
    }

    #[test]
    fn a_text_counts_as_the_json_string_of_it() {
        for text in ["", "null", "[]", "{}", "7", "a \"b\"\n\u{1}\\é"] {
            let json = RawParams::Named(&[("Key", text)]).to_json().expect("an object");
            let named = [("Key", text)];
            for params in [RawParams::Named(&named), RawParams::Json(Some(&json))] {
                let members = Members::read(params).expect("an object");
                let found = members.find("kEY").expect("not null");
                assert_eq!(found.text().as_deref(), Some(text));
                assert_eq!(found.bare_text().as_deref(), Some(text));
            }
            assert!(Param::Text(text).json().is_none(), "{text}");
        }
    }

    #[test]
    fn texts_become_an_object_when_they_are_kept() {
        let json = |texts: &[(&str, &str)]| {
            RawParams::Named(texts).to_json().map(|json| json.get().to_owned())
        };
        assert_eq!(json(&[]).as_deref(), Some("{}"));
        let texts = [("b", "é \"\t"), ("a", "1")];
        assert_eq!(json(&texts).as_deref(), Some(r#"{"a":"1","b":"é \"\t"}"#));
        assert!(RawParams::Json(None).to_json().is_none());
        let many = vec![("a", ""); limits::COMMANDS_PER_REQUEST + 1];
        assert!(Members::read(RawParams::Named(&many)).is_err());
        assert!(Members::read(RawParams::Named(&many[1..])).is_ok());
    }
}
