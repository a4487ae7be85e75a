//! Reading a request: `{"method":…,"params":{…},"id":…}` (`docs/protocol/element.md` B1).

use std::collections::BTreeMap;
use std::str::FromStr;

use base::excerpt;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::error::{self, Error};
use super::methods::Method;

/// Members of JSON objects, not yet looked into.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// A request.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// The name of the method.
    pub method: String,
    /// Its parameters.
    pub params: Params<'a>,
}

/// What was read of a body.
#[derive(Debug)]
pub(super) struct Body<'a> {
    /// The member `id`, to be echoed as it came.
    pub id: Option<&'a RawValue>,
    /// The rest.
    pub request: Result<Request<'a>, Error>,
}

/// The parameters of a method.
#[derive(Debug)]
pub(super) struct Params<'a>(Members<'a>);

impl<'a> Body<'a> {
    /// Reads a body. Parameters are in `params`, in `parameters` (as one page has it), or beside
    /// `method` (as the examples of the documentation have it).
    pub(super) fn parse(text: &'a str) -> Self {
        let mut members = match members(text) {
            Ok(members) => members,
            Err(error) => return Self { id: None, request: Err(error) },
        };
        let id = members.remove("id");
        Self { id, request: Request::of(members) }
    }
}

fn members(text: &str) -> Result<Members<'_>, Error> {
    let invalid = |message: String| Err(Error::new(error::INVALID_REQUEST, message));
    match text.bytes().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {}
        Some(b'[') => return invalid("Batch requests are not supported.".to_owned()),
        _ => return invalid("A request is a JSON object.".to_owned()),
    }
    serde_json::from_str(text)
        .or_else(|error| invalid(format!("The request is not JSON: {error}.")))
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

impl<'a> Request<'a> {
    fn of(mut members: Members<'a>) -> Result<Self, Error> {
        let invalid = |message: &str| Error::new(error::INVALID_REQUEST, message);
        members.remove("jsonrpc");
        let method = members.remove("method").ok_or_else(|| invalid("\"method\" is missing."))?;
        let method = serde_json::from_str(method.get())
            .map_err(|_| invalid("\"method\" must be a string."))?;
        let object = |value: &RawValue| value.get().starts_with('{');
        let given = match members.remove("params").filter(|params| !is_null(params)) {
            Some(params) => Some(params),
            None if members.get("parameters").is_some_and(|params| object(params)) => {
                members.remove("parameters")
            }
            None => None,
        };
        let params = match given {
            None => members,
            Some(params) if object(params) => serde_json::from_str(params.get())
                .map_err(|_| invalid("\"params\" can't be read."))?,
            Some(_) => {
                let message = "\"params\" must be an object: parameters are named, not in order.";
                return Err(invalid(message));
            }
        };
        Ok(Self { method, params: Params(params) })
    }
}

impl<'a> Params<'a> {
    /// Fails when a parameter that the method needs is missing.
    ///
    /// # Errors
    ///
    /// `xInvalidParameter` with its name.
    pub(super) fn check(&self, method: &Method) -> Result<(), Error> {
        let missing = |name: &&str| self.raw(name).is_none();
        let required = method.params.iter().filter(|param| param.required).map(|param| param.name);
        match required.clone().find(missing) {
            Some(name) => {
                let message = format!("Parameter \"{name}\" is missing.");
                Err(Error::new(error::INVALID_PARAMETER, message))
            }
            None => Ok(()),
        }
    }

    /// The parameters that the method does not know.
    pub(super) fn unused(&self, method: &Method) -> BTreeMap<&str, &'a RawValue> {
        let known = |name: &str| method.params.iter().any(|param| param.name == name);
        let all = self.0.iter().filter(|(name, _)| !known(name));
        all.map(|(name, value)| (name.as_str(), *value)).collect()
    }

    /// A text.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Error> {
        self.typed(name, "a string")
    }

    /// A whole number.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Error> {
        self.typed(name, "an integer")
    }

    /// A text with a form of its own, such as a UUID.
    ///
    /// # Errors
    ///
    /// It is no text, or not of that form.
    pub(super) fn parsed<T: FromStr>(
        &self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let parsed = text.parse().map_err(|_| {
            let message = format!("Parameter \"{name}\" must be {expected}.");
            Error::new(error::INVALID_PARAMETER, message)
        });
        parsed.map(Some)
    }

    /// One of some words, in this case only.
    ///
    /// # Errors
    ///
    /// It is none of them, be it a text or, as one SDK sends it, `{}`; the message is what came.
    pub(super) fn word<T: Copy>(
        &self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Error> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let text = serde_json::from_str::<String>(raw.get());
        let word = text.as_ref().map_or(raw.get(), String::as_str);
        let found = words.iter().find(|(known, _)| text.is_ok() && *known == word);
        match found {
            Some((_, value)) => Ok(Some(*value)),
            None => Err(Error::new(error::UNRECOGNIZED_ENUM, excerpt(word))),
        }
    }

    fn typed<T: DeserializeOwned>(&self, name: &str, expected: &str) -> Result<Option<T>, Error> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let read = serde_json::from_str(raw.get()).map_err(|_| {
            let message = format!("Parameter \"{name}\" must be {expected}.");
            Error::new(error::INVALID_PARAMETER_TYPE, message)
        });
        read.map(Some)
    }

    /// What came under a name; null stands for nothing.
    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied().filter(|value| !is_null(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_envelope_is_read() {
        let check = |text: &str, id: Option<&str>, user: Option<&str>| {
            let body = Body::parse(text);
            let request = body.request.expect(text);
            assert_eq!(request.method, "M");
            assert_eq!(body.id.map(RawValue::get), id, "{text}");
            assert_eq!(request.params.text("u").expect(text).as_deref(), user, "{text}");
        };
        check(r#"{"method":"M","params":{"u":"x"},"id":0}"#, Some("0"), Some("x"));
        check(r#"{"method":"M","params":{"u":null},"id":null}"#, Some("null"), None);
        check(r#"{"method":"M","u":"x"}"#, None, Some("x"));
        check(r#"{"method":"M","u":"x","params":null,"jsonrpc":"2.0"}"#, None, Some("x"));
        check(r#"{"method":"M","u":"y","params":{"u":"x"}}"#, None, Some("x"));
        check(r#"{"method":"M","parameters":{"u":"x"},"id":"a\"b"}"#, Some(r#""a\"b""#), Some("x"));
        check(
            r#" {"method":"M","params":{},"id":18446744073709551616}"#,
            Some("18446744073709551616"),
            None,
        );
    }

    #[test]
    fn what_is_no_request_is_told() {
        let check = |text: &str, message: &str| {
            let error = Body::parse(text).request.expect_err(text);
            assert_eq!(error.name, error::INVALID_REQUEST, "{text}");
            assert!(error.message.contains(message), "{text}: {}", error.message);
        };
        check("", "JSON object");
        check("7", "JSON object");
        check("[]", "Batch");
        check(r#"{"method":"#, "not JSON");
        check(r#"{"method":"M"} x"#, "not JSON");
        check("{}", "missing");
        check(r#"{"method":7}"#, "must be a string");
        check(r#"{"method":"M","params":["x"]}"#, "must be an object");
        check(r#"{"method":"M","params":"x"}"#, "must be an object");
    }

    #[test]
    fn an_id_is_known_even_when_the_rest_is_wrong() {
        let body = Body::parse(r#"{"params":[],"id":41}"#);
        assert_eq!(body.id.map(RawValue::get), Some("41"));
        assert!(body.request.is_err());
    }
}
