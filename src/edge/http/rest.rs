//! The portal's REST style (`tr50.md` 1.3, "REST, portal style"): form fields in, one reply object
//! out. Translated to and from the envelope here, so that the dispatcher knows one form only.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The envelope of one command, with the key under which it is answered.
#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<Auth<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd: Option<Command<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Auth<'a> {
    Login(Command<'a>),
    #[serde(rename_all = "camelCase")]
    Session {
        session_id: &'a str,
    },
}

#[derive(Serialize)]
struct Command<'a> {
    command: &'a str,
    params: Map<String, Value>,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    auth: Option<&'a RawValue>,
    #[serde(borrow)]
    cmd: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct LoginReply {
    params: Option<LoginParams>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoginParams {
    session_id: Option<String>,
}

/// The request for a login with these form fields (`username`, `password`).
pub(super) fn login_request(form: &[u8]) -> Vec<u8> {
    let params = fields(form).map(|(name, value)| (name, Value::String(value))).collect();
    let login = Command { command: "api.authenticate", params };
    to_json(&Envelope { auth: Some(Auth::Login(login)), cmd: None })
}

/// What `/rest/auth` answers: the bare session id, or the failure.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum LoginAnswer {
    /// The session id.
    Session(String),
    /// The reply object of the failure, as JSON.
    Failure(Vec<u8>),
}

/// The answer to [`login_request`], from the reply to it.
pub(super) fn login_answer(reply: Vec<u8>) -> LoginAnswer {
    let failure = reply_object(reply, |reply| reply.auth);
    let login: Option<LoginReply> = serde_json::from_slice(&failure).ok();
    match login.and_then(|login| login.params?.session_id) {
        Some(session) => LoginAnswer::Session(session),
        None => LoginAnswer::Failure(failure),
    }
}

/// The request for `command` with these form fields: `sessionId`, and the command's parameters as
/// texts, which every command takes (fact 15).
pub(super) fn command_request(command: &str, form: &[u8]) -> Vec<u8> {
    let mut session = None;
    let mut params = Map::new();
    for (name, value) in fields(form) {
        if name.eq_ignore_ascii_case("sessionId") {
            session = Some(value);
        } else {
            params.insert(name, Value::String(value));
        }
    }
    to_json(&Envelope {
        auth: session.as_deref().map(|session_id| Auth::Session { session_id }),
        cmd: Some(Command { command, params }),
    })
}

/// The reply object of [`command_request`]'s command; a failure of the whole request as it is.
pub(super) fn command_answer(reply: Vec<u8>) -> Vec<u8> {
    reply_object(reply, |reply| reply.cmd)
}

/// The name of a command as a path has it.
pub(super) fn command_name(segment: &str) -> Option<String> {
    let segment = segment.strip_suffix('/').unwrap_or(segment);
    let name = percent_decoded(segment.as_bytes());
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

fn reply_object(
    reply: Vec<u8>,
    object: impl for<'a> Fn(Reply<'a>) -> Option<&'a RawValue>,
) -> Vec<u8> {
    let found = serde_json::from_slice(&reply).ok().and_then(object);
    match found.map(|object| object.get().as_bytes().to_vec()) {
        Some(object) => object,
        None => reply,
    }
}

fn to_json(envelope: &Envelope<'_>) -> Vec<u8> {
    serde_json::to_vec(envelope).expect("texts and maps with text keys can always be written")
}

/// The fields of a body of the type `application/x-www-form-urlencoded`.
fn fields(form: &[u8]) -> impl Iterator<Item = (String, String)> {
    let pairs = form.trim_ascii().split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let mut part = || {
            let raw = parts.next().unwrap_or_default();
            let spaced: Vec<u8> = raw.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
            percent_decoded(&spaced)
        };
        (part(), part())
    })
}

/// `text` with `%41` read as `A`; what is not such a triple stays, what is not UTF-8 is replaced.
fn percent_decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, tail),
                _ => (b'%', rest.get(1..).unwrap_or_default()),
            },
            (byte, tail) => (*byte, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    match String::from_utf8_lossy(&bytes) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_become_envelopes() {
        let check = |request: Vec<u8>, json: &str| {
            assert_eq!(String::from_utf8(request).expect("UTF-8"), json);
        };
        check(
            login_request(b"username=a%40b.example&password=p+w%2B\r\n"),
            concat!(
                r#"{"auth":{"command":"api.authenticate","#,
                r#""params":{"password":"p w+","username":"a@b.example"}}}"#
            ),
        );
        check(
            command_request("thing.find", b"sessionid=5f&key=m%C3%B6wer&empty=&flag&&%zz=%4"),
            concat!(
                r#"{"auth":{"sessionId":"5f"},"cmd":{"command":"thing.find","#,
                r#""params":{"%zz":"%4","empty":"","flag":"","key":"möwer"}}}"#
            ),
        );
        check(command_request("diag.ping", b""), r#"{"cmd":{"command":"diag.ping","params":{}}}"#);
    }

    #[test]
    fn replies_lose_their_envelope() {
        let root = r#"{"success":false,"errorCodes":[-90000],"errorMessages":["gone"]}"#;
        let check = |reply: &str, object: &str| {
            let answer = command_answer(reply.into());
            assert_eq!(String::from_utf8(answer).expect("UTF-8"), object);
        };
        check(
            r#"{"cmd":{"success":true,"params":{"a":1}}}"#,
            r#"{"success":true,"params":{"a":1}}"#,
        );
        check(r#"{"auth":{"success":true},"cmd":{"success":true}}"#, r#"{"success":true}"#);
        check(root, root);
        check("no json", "no json");
        let login = |reply: &str| login_answer(reply.into());
        let failed = r#"{"success":false,"errorCodes":[-1],"errorMessages":["no"]}"#;
        let good = r#"{"auth":{"success":true,"params":{"orgKey":"X","sessionId":"5f"}}}"#;
        assert_eq!(login(good), LoginAnswer::Session("5f".to_owned()));
        assert_eq!(login(&format!(r#"{{"auth":{failed}}}"#)), LoginAnswer::Failure(failed.into()));
        assert_eq!(login(root), LoginAnswer::Failure(root.into()));
    }

    #[test]
    fn command_names_come_from_the_path() {
        assert_eq!(command_name("session.list/").as_deref(), Some("session.list"));
        assert_eq!(command_name("session%2Elist").as_deref(), Some("session.list"));
        for bad in ["", "/", "a/b", "a%2fb", "a//"] {
            assert_eq!(command_name(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_form_gives_valid_json(form in any::<Vec<u8>>(), command in any::<String>()) {
            let request = command_request(&command, &form);
            prop_assert!(serde_json::from_slice::<Value>(&request).is_ok());
            prop_assert!(serde_json::from_slice::<Value>(&login_request(&form)).is_ok());
        }
    }
}
