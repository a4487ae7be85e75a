//! Requests of things that are traced, and the answers to them.

use base::{ConnInfo, SessionId, Timestamp};
use bytes::Bytes;
use http_body_util::Either;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::{Method, StatusCode, Uri};
use serde_json::Value;

use super::routes::Answer;
use super::whole::Whole;
use super::{inflate, rest};
use crate::app::{App, Masker, Tap, What};

/// A request and its answer.
pub struct Exchange {
    at: Timestamp,
    info: ConnInfo,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    status: StatusCode,
    answer_headers: HeaderMap,
    /// None of a file, which is not kept.
    answer: Option<Bytes>,
}

/// A request as it came.
type Asked = (Method, Uri, HeaderMap, Bytes);

/// By what a request says whose it is.
enum Claim {
    Session(String),
    Login(String, String),
}

impl Exchange {
    pub(super) fn new(
        (at, info): (Timestamp, ConnInfo),
        (method, uri, mut headers, mut body): Asked,
        answer: &Answer,
    ) -> Self {
        if headers.contains_key(CONTENT_ENCODING) {
            // As it is read: secrets are not to be hidden from the look for them.
            let most = base::limits::TRACE_BYTES_MAX;
            body = inflate::inflated(&headers, body, most).unwrap_or_default();
            headers.remove(CONTENT_ENCODING);
        }
        let bytes = match answer.body() {
            Either::Left(Whole(bytes)) => Some(bytes.clone()),
            Either::Right(_) => None,
        };
        Self {
            at,
            info,
            method,
            uri,
            headers,
            body,
            status: answer.status(),
            answer_headers: answer.headers().clone(),
            answer: bytes,
        }
    }

    /// Keeps the exchange if it is of a thing that is traced.
    pub fn record(&self, app: &App) {
        let Some(mut tap) = self.claim().and_then(|claim| self.tap(app, &claim)) else { return };
        let path = self.uri.path();
        tap.record_at(app, self.at, false, b"", |masker, frame| self.put_request(masker, frame));
        let now = app.clock.shown(app.clock.now());
        tap.record_at(app, now, true, b"", |masker, frame| self.put_answer(path, masker, frame));
    }

    fn tap(&self, app: &App, claim: &Claim) -> Option<Box<Tap>> {
        match claim {
            Claim::Session(id) => {
                let session = app.directory().by_id(&SessionId::parse(id.trim())?)?;
                app.tap_of(&session, &self.info)
            }
            Claim::Login(key, token) => app.tap_at_login(key, token, &self.info),
        }
    }

    /// Who asks: what `auth` says wins, then the field of a form, then the header, then a login
    /// among the commands.
    fn claim(&self) -> Option<Claim> {
        if self.is_form() {
            let form = rest::fields(&self.body);
            let field = |name: &str| {
                let found = form.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone())
            };
            if let Some(id) = field("sessionId") {
                return Some(Claim::Session(id));
            }
            let token = field("appToken").or_else(|| field("applicationToken"));
            if let (Some(key), Some(token)) = (field("thingKey"), token) {
                return Some(Claim::Login(key, token));
            }
        }
        let body = serde_json::from_slice::<Value>(&self.body).unwrap_or_default();
        if let Some(auth) = member(&body, "auth").filter(|auth| !auth.is_null()) {
            return claim_of(auth);
        }
        let named = self.is_form().then(|| member(&body, "sessionId")).flatten();
        if let Some(id) = named.and_then(Value::as_str) {
            return Some(Claim::Session(id.to_owned()));
        }
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(id) = header("sessionid") {
            return Some(Claim::Session(id.to_owned()));
        }
        let bearer = header(AUTHORIZATION.as_str()).and_then(|value| value.split_once(' '));
        if let Some((_, id)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
            return Some(Claim::Session(id.to_owned()));
        }
        body.as_object()?.values().find_map(claim_of)
    }

    fn is_form(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        self.uri.path().starts_with("/rest/")
            || kind.is_some_and(|kind| kind.contains("x-www-form-urlencoded"))
    }

    fn put_request(&self, masker: &mut Masker<'_>, out: &mut Vec<u8>) -> What {
        let path = masked_path(self.uri.path(), masker);
        let packet = format!("{} {path}", self.method);
        out.extend_from_slice(packet.as_bytes());
        if let Some(query) = self.uri.query() {
            let mut query = query.as_bytes().to_vec();
            masker.form(&mut query);
            out.push(b'?');
            out.extend_from_slice(&query);
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        put_headers(&self.headers, masker, out);
        let mut body = self.body.to_vec();
        let is_json = body.trim_ascii_start().starts_with(b"{");
        match self.is_form() && !is_json {
            true => masker.form(&mut body),
            false => masker.payload(&mut body),
        }
        let payload_at = Some(out.len());
        out.extend_from_slice(&body);
        What { packet: packet.into(), payload_at, ..What::default() }
    }

    fn put_answer(&self, path: &str, masker: &mut Masker<'_>, out: &mut Vec<u8>) -> What {
        out.extend_from_slice(format!("HTTP/1.1 {}\r\n", self.status).as_bytes());
        put_headers(&self.answer_headers, masker, out);
        let payload_at = Some(out.len());
        if let Some(answer) = &self.answer {
            let mut body = answer.to_vec();
            // The answer of the form's login is the session's id, and nothing else.
            match path.starts_with("/rest/auth") && !body.starts_with(b"{") {
                true => masker.secret(&mut body),
                false => masker.payload(&mut body),
            }
            out.extend_from_slice(&body);
        }
        What { packet: self.status.as_str().to_owned().into(), payload_at, ..What::default() }
    }
}

/// A path without the ids of tickets.
fn masked_path(path: &str, masker: &mut Masker<'_>) -> String {
    let mut path = path.as_bytes().to_vec();
    match path.strip_prefix(b"/file/") {
        Some(_) => masker.secret(&mut path[b"/file/".len()..]),
        None => masker.value(&mut path),
    }
    String::from_utf8_lossy(&path).into_owned()
}

fn put_headers(headers: &HeaderMap, masker: &mut Masker<'_>, out: &mut Vec<u8>) {
    for (name, value) in headers {
        let mut value = value.as_bytes().to_vec();
        masker.named(name.as_str(), &mut value);
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(&value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// A member of an object, in any case.
fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let found = value.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

/// By what `auth`, or a command that logs in, says whose it is.
fn claim_of(auth: &Value) -> Option<Claim> {
    let text = |value: &Value, name: &str| Some(member(value, name)?.as_str()?.to_owned());
    if let Some(id) = text(auth, "sessionId") {
        return Some(Claim::Session(id));
    }
    let params = member(auth, "params")?;
    if let Some(id) = text(params, "sessionId") {
        return Some(Claim::Session(id));
    }
    let token = text(params, "appToken").or_else(|| text(params, "applicationToken"));
    Some(Claim::Login(text(params, "thingKey")?, token?))
}
