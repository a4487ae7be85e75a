//! Typed parameters, read as leniently as real clients need (`docs/protocol/tr50.md` 0, facts 14,
//! 15 and 26): names without regard to case, numbers as strings, booleans as numbers, null for
//! absent.

use std::borrow::Cow;
use std::str::FromStr;

use base::{
    ApplicationId, Code, Failure, MailId, OrgId, RoleId, SessionRef, ThingDefId, ThingId, ThingKey,
    Timestamp, TokenId, UserId, WebhookId,
};
use serde_json::value::{RawValue, to_raw_value};

use super::envelope::{Members, Param, RawParams};
use crate::things::files::FileName;

/// A parameter of a command, for its documentation.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name; clients may write it in any case.
    pub name: &'static str,
    /// What it must be, such as "an integer".
    pub expected: &'static str,
    /// Whether the command fails without it.
    pub required: bool,
    /// What it means.
    pub doc: &'static str,
}

/// The parameters of a command.
pub trait Params: Sized {
    /// Whether a member that nobody knows is an error.
    const IS_STRICT: bool = false;
    /// Whether they name a thing, and what has to be so of it.
    const REACH: Reach = Reach::Nothing;

    /// Their description.
    fn fields() -> Vec<Field>;

    /// Reads them.
    ///
    /// # Errors
    ///
    /// A parameter is missing or has the wrong type; the failure names it.
    fn from_members(members: &Members<'_>) -> Result<Self, Failure>;

    /// Reads them as they came.
    ///
    /// # Errors
    ///
    /// As [`Params::from_members`], or `params` is no object.
    fn read(params: RawParams<'_>) -> Result<Self, Failure> {
        Self::from_members(&Members::read(params)?)
    }
}

/// What is asked of the thing that the parameters of a command name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// They name none.
    Nothing,
    /// That the caller may name it.
    Thing,
    /// The same, and that it is not disabled: something is said in its name.
    Speaker,
    /// That its past is for the caller.
    Past,
    /// That the caller may ask for what is known of it; it need not be there.
    Name,
}

impl Reach {
    /// Of two sets of parameters together.
    const fn or(self, other: Self) -> Self {
        if matches!(self, Self::Nothing) { other } else { self }
    }
}

/// No parameters; whatever is sent is ignored.
pub struct NoParams;

impl Params for NoParams {
    fn fields() -> Vec<Field> {
        Vec::new()
    }

    fn from_members(_: &Members<'_>) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn read(_: RawParams<'_>) -> Result<Self, Failure> {
        Ok(Self)
    }
}

/// Those that commands have in common, and those of one command.
impl<A: Params, B: Params> Params for (A, B) {
    const REACH: Reach = A::REACH.or(B::REACH);

    fn fields() -> Vec<Field> {
        [A::fields(), B::fields()].concat()
    }

    fn from_members(members: &Members<'_>) -> Result<Self, Failure> {
        Ok((A::from_members(members)?, B::from_members(members)?))
    }
}

impl<A: Params, B: Params, C: Params> Params for (A, B, C) {
    const REACH: Reach = A::REACH.or(B::REACH).or(C::REACH);

    fn fields() -> Vec<Field> {
        [A::fields(), B::fields(), C::fields()].concat()
    }

    fn from_members(members: &Members<'_>) -> Result<Self, Failure> {
        Ok((A::from_members(members)?, B::from_members(members)?, C::from_members(members)?))
    }
}

/// A type that a parameter can have.
pub trait Value: Sized {
    /// What the value must be, to end the sentence "…must be".
    const EXPECTED: &'static str;

    /// Reads a value that is not null; none when it is something else.
    fn read(param: Param<'_>) -> Option<Self>;

    /// Whether the value has to be exact, and is not: it names something, or proves who somebody
    /// is, and there is U+FFFD in it, as which ill-formed Unicode is read (`docs/protocol/tr50.md`
    /// 2).
    fn is_inexact(_: Param<'_>) -> bool {
        false
    }
}

/// Declares the parameters of a command: a struct, how it is read, and its documentation.
macro_rules! params {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident $(of $reach:ident)? {
        $($presence:ident $field:ident: $type:ty = $wire:literal, $doc:literal;)*
    }) => {
        $(#[$meta])*
        $visibility struct $name {
            $(#[doc = $doc] pub $field: params!(@type $presence $type),)*
        }

        impl $crate::tr50::params::Params for $name {
            $(const REACH: $crate::tr50::params::Reach = $crate::tr50::params::Reach::$reach;)?

            fn fields() -> Vec<$crate::tr50::params::Field> {
                vec![$($crate::tr50::params::Field {
                    name: $wire,
                    expected: <$type as $crate::tr50::params::Value>::EXPECTED,
                    required: params!(@required $presence),
                    doc: $doc,
                },)*]
            }

            fn from_members(
                members: &$crate::tr50::envelope::Members<'_>,
            ) -> Result<Self, base::Failure> {
                Ok(Self { $($field: $crate::tr50::params::$presence(members, $wire)?,)* })
            }
        }
    };
    (@type required $type:ty) => { $type };
    (@type required_exact $type:ty) => { $type };
    (@type optional $type:ty) => { Option<$type> };
    (@type optional_exact $type:ty) => { Option<$type> };
    (@required required) => { true };
    (@required required_exact) => { true };
    (@required optional) => { false };
    (@required optional_exact) => { false };
}

pub(crate) use params;

/// Reads a parameter that may be absent.
///
/// # Errors
///
/// It is there and has the wrong type.
pub fn optional<T: Value>(members: &Members<'_>, name: &str) -> Result<Option<T>, Failure> {
    let Some(param) = members.find(name) else { return Ok(None) };
    match T::read(param) {
        _ if T::is_inexact(param) => Err(inexact(name)),
        Some(value) => Ok(Some(value)),
        None => {
            let sentence = format!("Parameter \"{name}\" must be {}.", T::EXPECTED);
            Err(Failure::new(Code::PARAMETER_INVALID, sentence))
        }
    }
}

/// Reads a parameter that must be there.
///
/// # Errors
///
/// It is missing or has the wrong type.
pub fn required<T: Value>(members: &Members<'_>, name: &str) -> Result<T, Failure> {
    optional(members, name)?.ok_or_else(|| missing(name))
}

/// As [`optional`], for a text, or a list of them, by which something is known, such as an e-mail
/// address, or that proves who somebody is.
///
/// # Errors
///
/// It has the wrong type, or is not exact ([`Value::is_inexact`]).
pub fn optional_exact<T: Value>(members: &Members<'_>, name: &str) -> Result<Option<T>, Failure> {
    match members.find(name) {
        Some(param) if has_replacement(param) => Err(inexact(name)),
        _ => optional(members, name),
    }
}

/// As [`optional_exact`], for a parameter that must be there.
///
/// # Errors
///
/// As [`optional_exact`], or it is missing.
pub fn required_exact<T: Value>(members: &Members<'_>, name: &str) -> Result<T, Failure> {
    optional_exact(members, name)?.ok_or_else(|| missing(name))
}

/// Whether there is U+FFFD in a text, or in one of a list of texts.
pub fn has_replacement(param: Param<'_>) -> bool {
    let has = |text: &str| text.contains(char::REPLACEMENT_CHARACTER);
    match param.bare_text() {
        Some(text) => has(&text),
        None => Vec::<String>::read(param).is_some_and(|texts| texts.iter().any(|text| has(text))),
    }
}

fn inexact(name: &str) -> Failure {
    let sentence = format!(
        "Parameter \"{name}\" has to be exact, and has U+FFFD in it, as which ill-formed Unicode \
         is read."
    );
    Failure::new(Code::PARAMETER_INVALID, sentence)
}

/// The failure for a parameter that is missing.
pub fn missing(name: &str) -> Failure {
    Failure::new(Code::PARAMETER_MISSING, format!("Parameter \"{name}\" is missing."))
}

/// A text; a number or a boolean counts as its digits or letters.
impl Value for String {
    const EXPECTED: &'static str = "a string";

    fn read(param: Param<'_>) -> Option<Self> {
        param.bare_text().map(Cow::into_owned)
    }
}

/// A number, or a string that is one.
impl Value for f64 {
    const EXPECTED: &'static str = "a number";

    fn read(param: Param<'_>) -> Option<Self> {
        let text = param.bare_text()?;
        text.trim().parse().ok().filter(|number: &Self| number.is_finite())
    }
}

/// A whole number from 0, also written as `5.0` or `"5"`.
impl Value for u64 {
    const EXPECTED: &'static str = "a whole number from 0";

    fn read(param: Param<'_>) -> Option<Self> {
        let text = param.bare_text()?;
        if let Ok(number) = text.trim().parse() {
            return Some(number);
        }
        let number = f64::read(param)?;
        let whole = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
        whole.then_some(number as Self)
    }
}

/// A whole number, also written as `-5.0` or `"-5"`.
impl Value for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn read(param: Param<'_>) -> Option<Self> {
        let text = param.bare_text()?;
        if let Ok(number) = text.trim().parse() {
            return Some(number);
        }
        let number = f64::read(param)?;
        let exact = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
        exact.then_some(number as Self)
    }
}

/// A boolean, also written as 0, 1, `0.0`, `"true"`.
impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(param: Param<'_>) -> Option<Self> {
        let text = param.bare_text()?;
        let text = text.trim();
        if text.eq_ignore_ascii_case("true") {
            return Some(true);
        }
        if text.eq_ignore_ascii_case("false") {
            return Some(false);
        }
        match text.parse::<f64>() {
            Ok(0.0) => Some(false),
            Ok(1.0) => Some(true),
            _ => None,
        }
    }
}

/// A list of texts; one text alone is a list of one.
impl Value for Vec<String> {
    const EXPECTED: &'static str = "an array of strings";

    fn read(param: Param<'_>) -> Option<Self> {
        match param.json().map(RawValue::get).filter(|json| json.starts_with('[')) {
            Some(json) => {
                let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
                items.into_iter().map(|item| String::read(Param::Json(item))).collect()
            }
            None => String::read(param).map(|text| vec![text]),
        }
    }
}

/// Any JSON value, kept as it is.
impl Value for Box<RawValue> {
    const EXPECTED: &'static str = "a JSON value";

    fn read(param: Param<'_>) -> Option<Self> {
        match param {
            Param::Json(json) => Some(json.to_owned()),
            Param::Text(text) => to_raw_value(text).ok(),
        }
    }
}

macro_rules! from_text {
    ($($type:ty, $expected:literal, $read:expr $(, $is_inexact:expr)?;)*) => {$(
        impl Value for $type {
            const EXPECTED: &'static str = $expected;

            fn read(param: Param<'_>) -> Option<Self> {
                let text = param.text()?;
                let read: fn(&str) -> Option<Self> = $read;
                read(&text)
            }

            $(fn is_inexact(param: Param<'_>) -> bool {
                $is_inexact(param)
            })?
        }
    )*};
}

from_text! {
    Timestamp, "an RFC 3339 time such as 2021-08-10T14:16:10Z", Self::parse;
    OrgId, "an organisation id of 24 hexadecimal digits", |text| Self::from_str(text).ok();
    UserId, "a user id of 24 hexadecimal digits", |text| Self::from_str(text).ok();
    MailId, "a mail id of 24 hexadecimal digits", |text| Self::from_str(text).ok();
    ThingId, "a thing id of 24 hexadecimal digits", |text| Self::from_str(text).ok();
    RoleId, "a role id of 24 hexadecimal digits", |text| Self::from_str(text).ok();
    TokenId, "a token id of 24 hexadecimal digits", |text| Self::from_str(text).ok();
    ApplicationId, "an application id of 24 hexadecimal digits",
        |text| Self::from_str(text).ok();
    WebhookId, "a webhook id of 24 hexadecimal digits", |text| Self::from_str(text).ok();
    ThingDefId, "a thing definition id of 24 hexadecimal digits",
        |text| Self::from_str(text).ok();
    SessionRef, "a session ref of 64 hexadecimal digits", |text| Self::from_str(text).ok();
    FileName, "a file name of 1 to 255 bytes without control characters",
        Self::parse, has_replacement;
    ThingKey, "a thing key of 1 to 128 bytes without control characters, '/', '+' or '#'",
        |text| Self::parse(text).ok(), has_replacement;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Value>(json: &str) -> Option<T> {
        let raw: Box<RawValue> = serde_json::from_str(json).expect("JSON");
        T::read(Param::Json(&raw))
    }

    #[test]
    fn numbers_may_be_strings_and_booleans_numbers() {
        let whole = |json, expected: Option<u64>| assert_eq!(read(json), expected, "{json}");
        whole("5", Some(5));
        whole("\"10\"", Some(10));
        whole("5.0", Some(5));
        whole("1e3", Some(1000));
        for bad in ["-1", "1.5", "\"x\"", "\"\"", "[1]", "{}", "1e300", "true"] {
            whole(bad, None);
        }
        let signed = |json, expected: Option<i64>| assert_eq!(read(json), expected, "{json}");
        signed("-1", Some(-1));
        signed("\"0.0\"", Some(0));
        signed("-2.0", Some(-2));
        signed("9223372036854775807", Some(i64::MAX));
        for bad in ["0.5", "1e300", "\"\"", "true", "[]"] {
            signed(bad, None);
        }
        let flag = |json, expected: Option<bool>| assert_eq!(read(json), expected, "{json}");
        flag("true", Some(true));
        flag("\"false\"", Some(false));
        flag("0.0", Some(false));
        flag("1", Some(true));
        flag("2", None);
        flag("\"yes\"", None);
        let number = |json, expected: Option<f64>| assert_eq!(read(json), expected, "{json}");
        number("\"52.5\"", Some(52.5));
        number("1e999", None);
        number("\"NaN\"", None);
    }

    #[test]
    fn texts_may_be_numbers_and_lists_single_texts() {
        assert_eq!(read::<String>("7"), Some("7".to_owned()));
        assert_eq!(read::<String>(r#""a\nb""#), Some("a\nb".to_owned()));
        assert_eq!(read::<String>("[]"), None);
        assert_eq!(read::<Vec<String>>("\"a\""), Some(vec!["a".to_owned()]));
        assert_eq!(read::<Vec<String>>("[\"a\",1]"), Some(vec!["a".to_owned(), "1".to_owned()]));
        assert_eq!(read::<Vec<String>>("[[]]"), None);
    }

    params! {
        struct Example {
            required key: String = "key", "The key.";
            optional limit: u64 = "limit", "How many.";
        }
    }

    #[test]
    fn names_have_to_be_exact() {
        let check = |json: &str, expected: bool| {
            let raw: Box<RawValue> = serde_json::from_str(json).expect("JSON");
            assert_eq!(has_replacement(Param::Json(&raw)), expected, "{json}");
        };
        check("\"caf\u{fffd}\"", true);
        check(r#""caf\ufffd""#, true);
        check(r#""caf\\ufffd""#, false);
        check("[\"a\",\"\u{fffd}\"]", true);
        check(r#"["a",7]"#, false);
        check("7", false);
        check("{\"\u{fffd}\":1}", false);
        assert!(has_replacement(Param::Text("a\u{fffd}")) && !has_replacement(Param::Text("a")));

        let raw: Box<RawValue> =
            serde_json::from_str("{\"key\":\"\u{fffd}\",\"word\":\"\u{fffd}\"}").expect("JSON");
        let members = Members::read(RawParams::Json(Some(&raw))).expect("an object");
        let refused = |failure: Failure| failure.message.contains("\"key\" has to be exact");
        assert!(optional::<ThingKey>(&members, "key").is_err_and(refused));
        assert!(required_exact::<String>(&members, "key").is_err_and(refused));
        assert_eq!(required::<String>(&members, "word").as_deref(), Ok("\u{fffd}"));
        assert_eq!(optional_exact::<String>(&members, "other"), Ok(None));
    }

    #[test]
    fn a_failure_names_the_parameter() {
        let check = |json: &str, expected: Result<(&str, Option<u64>), &str>| {
            let raw: Box<RawValue> = serde_json::from_str(json).expect("JSON");
            let read = Example::read(RawParams::Json(Some(&raw)));
            let read = read.map(|e| (e.key, e.limit)).map_err(|f| f.message.into_owned());
            let expected = expected.map(|(key, limit)| (key.to_owned(), limit));
            assert_eq!(read, expected.map_err(str::to_owned));
        };
        check(r#"{"KEY":"a","limit":null}"#, Ok(("a", None)));
        // Of a parameter given twice the last counts, in whatever case.
        check(r#"{"key":"a","limit":1,"LIMIT":2,"Key":"b"}"#, Ok(("b", Some(2))));
        check(r#"{"key":{},"limit":"x","key":"c","limit":null}"#, Ok(("c", None)));
        check(r#"{"key":"a","key":null}"#, Err("Parameter \"key\" is missing."));
        check(r#"{"key":"a","Limit":"3","more":{}}"#, Ok(("a", Some(3))));
        check("[]", Err("Parameter \"key\" is missing."));
        check(r#"{"key":null}"#, Err("Parameter \"key\" is missing."));
        check(r#"{"key":{}}"#, Err("Parameter \"key\" must be a string."));
        check(
            r#"{"key":"a","limit":-1}"#,
            Err("Parameter \"limit\" must be a whole number from 0."),
        );
        check("7", Err("\"params\" must be an object."));
        assert_eq!(Example::fields().iter().map(|f| f.required).collect::<Vec<_>>(), [true, false]);
    }
}
