//! The reply to a command.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::ClientError;

/// The answer to one command: `{"success":true,"params":…}`, or `false` with codes and messages
/// (`docs/protocol/tr50.md` 0, facts 11 and 12).
#[derive(Clone, Debug)]
pub struct Reply {
    text: String,
    success: bool,
    error_codes: Vec<i64>,
    error_messages: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    success: bool,
    #[serde(default)]
    error_codes: Vec<i64>,
    #[serde(default)]
    error_messages: Vec<String>,
}

impl Reply {
    /// Reads the reply to [`request_text`](super::request_text).
    pub fn of_command(text: &[u8]) -> Result<Self, ClientError> {
        Self::parse(text, super::COMMAND_KEY)
    }

    /// Reads the member `key` of a whole reply, or the whole reply if it is a failure at root
    /// level.
    pub(super) fn parse(text: &[u8], key: &str) -> Result<Self, ClientError> {
        let not_a_reply = || {
            let start: String = String::from_utf8_lossy(text).chars().take(200).collect();
            ClientError::NotAReply(start)
        };
        let text = std::str::from_utf8(text).map_err(|_| not_a_reply())?;
        let member = Members { key }.find(text).map_err(|_| not_a_reply())?;
        let own = compact(member.map_or(text, RawValue::get));
        let outcome: Outcome = serde_json::from_str(&own).map_err(|_| not_a_reply())?;
        Ok(Self {
            text: own,
            success: outcome.success,
            error_codes: outcome.error_codes,
            error_messages: outcome.error_messages,
        })
    }

    /// Whether the command did what it was asked.
    pub fn success(&self) -> bool {
        self.success
    }

    /// The command's object: compact JSON in one line, its members in the server's order.
    pub fn as_json(&self) -> &str {
        &self.text
    }

    /// The reply, if it says success; else its messages and codes as an error.
    pub fn succeeded(self) -> Result<Self, ClientError> {
        if self.success { Ok(self) } else { Err(ClientError::Failed(self.failure())) }
    }

    /// `params`, as the caller expects them; `null` where the reply has none.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        #[derive(Deserialize)]
        struct WithParams {
            #[serde(default)]
            params: Option<Box<RawValue>>,
        }
        let reply: WithParams = serde_json::from_str(&self.text)?;
        serde_json::from_str(reply.params.as_deref().map_or("null", RawValue::get))
    }

    /// `errorCodes`, empty on success.
    pub fn error_codes(&self) -> &[i64] {
        &self.error_codes
    }

    /// `errorMessages`, empty on success.
    pub fn error_messages(&self) -> &[String] {
        &self.error_messages
    }

    /// Messages and codes in one text, for people.
    pub(crate) fn failure(&self) -> String {
        match (self.error_messages.as_slice(), self.error_codes.as_slice()) {
            ([], []) => "no reason given".to_owned(),
            (messages, codes) => format!("{} {codes:?}", messages.join(", ")),
        }
    }
}

/// Finds one member of an object without building the others.
struct Members<'k> {
    key: &'k str,
}

impl Members<'_> {
    fn find(self, text: &str) -> Result<Option<&RawValue>, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(text);
        serde::Deserializer::deserialize_map(&mut json, self)
    }
}

impl<'de> serde::de::Visitor<'de> for Members<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a TR50 reply")
    }

    fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let value = map.next_value()?;
            if key == self.key {
                found = Some(value);
            }
        }
        Ok(found)
    }
}

/// JSON text without white space between its tokens.
pub(super) fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    json.chars()
        .filter(|c| {
            if in_string {
                in_string = escaped || *c != '"';
                escaped = !escaped && *c == '\\';
                return true;
            }
            in_string = *c == '"';
            !matches!(c, ' ' | '\t' | '\r' | '\n')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_under_their_key_or_at_the_root() {
        let check = |text: &str, success, codes: &[i64], json: &str| {
            let reply = Reply::parse(text.as_bytes(), "cmd").expect(text);
            assert_eq!((reply.success(), reply.error_codes()), (success, codes), "{text}");
            assert_eq!(reply.as_json(), json, "{text}");
        };
        check(r#"{"cmd":{"success":true}}"#, true, &[], r#"{"success":true}"#);
        let failure = r#"{"success":false,"errorCodes":[-90000],"errorMessages":["gone"]}"#;
        check(failure, false, &[-90000], failure);
        check(&format!(r#"{{"auth":{{}},"cmd":{failure}}}"#), false, &[-90000], failure);
        check("{\"cmd\": {\n\"success\" :true}}", true, &[], r#"{"success":true}"#);
    }

    #[test]
    fn anything_else_is_no_reply() {
        for text in ["", "[]", "{}", "{\"cmd\":1}", "HTTP/1.1 400 Bad Request", "\u{0}"] {
            assert!(Reply::parse(text.as_bytes(), "cmd").is_err(), "{text}");
        }
        assert!(Reply::parse(b"{\"cmd\":{\"success\":true,\"x\":\"\xff\"}}", "cmd").is_err());
    }

    #[test]
    fn params_are_typed_by_the_caller() {
        let text = br#"{"cmd":{"success":true,"params":{"count":3}}}"#;
        let reply = Reply::parse(text, "cmd").expect("a reply");
        let params: std::collections::HashMap<String, u64> = reply.params().expect("an object");
        assert_eq!(params.get("count"), Some(&3));
        let reply = Reply::parse(br#"{"cmd":{"success":true}}"#, "cmd").expect("a reply");
        assert_eq!(reply.params::<Option<u64>>().expect("null"), None);
    }

    #[test]
    fn white_space_goes_only_between_tokens() {
        let check = |json, expected| assert_eq!(compact(json), expected);
        check("{ \"a b\" :\t[1 , 2]\r\n}", "{\"a b\":[1,2]}");
        check(r#"{"a\" b": "c\\" , "d":" e"}"#, r#"{"a\" b":"c\\","d":" e"}"#);
    }
}
