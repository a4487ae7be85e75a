//! Recordings over HTTP.

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::lines;
use super::recording::Recorded;
use super::{Answer, ClientError, Target, Url};
use crate::{HttpConnection, Login, Options};

/// Headers that belong to a connection, or are the URL's to say.
const OWN_HEADERS: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "accept-encoding",
    "sessionid",
    "authorization",
    "cookie",
    "expect",
];

pub(super) struct Wire(HttpConnection);

impl Wire {
    pub(super) async fn open(target: &Target, url: &Url) -> Result<Self, ClientError> {
        HttpConnection::open(target, url, &Options::default()).await.map(Self)
    }

    /// Sends a request; its answer waits to be compared.
    pub(super) async fn send(
        &mut self,
        url: &Url,
        frame: &Recorded,
        waiting: &mut Vec<Answer>,
    ) -> Result<Result<String, String>, ClientError> {
        let Some(mut request) = Request::read(&frame.bytes) else {
            return Ok(Err("a request that can't be read".to_owned()));
        };
        if request.path.contains("/file/") {
            return Ok(Err(format!("{} {}: tickets are not in it", request.method, request.path)));
        }
        let text = format!("{} {}", request.method, request.path);
        request.set_login(url, self.0.session_id());
        let Request { method, path, headers, body } = request;
        let (status, answer) = self.0.exchange(method, &path, headers, body).await?;
        waiting.push(answer_of(status, &answer));
        Ok(Ok(text))
    }
}

struct Request {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// The head's lines, and the body.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let at = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((std::str::from_utf8(bytes.get(..at)?).ok()?, bytes.get(at + 4..)?))
}

impl Request {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (head, body) = split(bytes)?;
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, path) = (first.next()?.parse().ok()?, first.next()?.to_owned());
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            headers.append(
                name.parse::<HeaderName>().ok()?,
                HeaderValue::from_bytes(value.as_bytes()).ok()?,
            );
        }
        Some(Self { method, path, headers, body: Bytes::copy_from_slice(body) })
    }

    /// Puts the URL's login, and the session that came of it, in the place of what is masked.
    fn set_login(&mut self, url: &Url, session: Option<&str>) {
        let had = |name: &str| self.headers.contains_key(name);
        let (had_session, had_auth) = (had("sessionid"), had("authorization"));
        let is_basic = self.headers.get("authorization").is_some_and(|value| {
            value.as_bytes().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"))
        });
        OWN_HEADERS.iter().for_each(|name| drop(self.headers.remove(*name)));
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                self.headers.insert(name, value);
            }
        };
        if let Some(session) = session {
            if had_session {
                set("sessionid", session.to_owned());
            }
            if had_auth && !is_basic {
                set("authorization", format!("Bearer {session}"));
            }
        }
        if let (true, Some((name, secret))) = (is_basic, login_of(url)) {
            let text = BASE64.encode(format!("{name}:{secret}").as_bytes());
            set("authorization", format!("Basic {text}"));
        }
        self.body = self.body_with_login(url, session).unwrap_or_else(|| self.body.clone());
    }

    fn body_with_login(&self, url: &Url, session: Option<&str>) -> Option<Bytes> {
        if let Ok(mut value) = serde_json::from_slice::<Value>(&self.body) {
            if value["auth"]["sessionId"].is_string() {
                value["auth"] = serde_json::json!({"sessionId": session?});
                return Some(value.to_string().into());
            }
            return lines::with_login(&self.body, url).map(Bytes::from);
        }
        if !self.path.starts_with("/rest/") {
            return None;
        }
        let login = login_of(url);
        let body = std::str::from_utf8(&self.body).ok()?;
        let fields = body.split('&').map(|field| {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let ours = match name.to_ascii_lowercase().as_str() {
                "sessionid" => session,
                "username" | "thingkey" if self.path.starts_with("/rest/auth") => {
                    login.map(|(name, _)| name)
                }
                "password" | "apptoken" => login.map(|(_, secret)| secret),
                _ => None,
            };
            let encode = |text| percent_encoding::utf8_percent_encode(text, PLAIN).to_string();
            format!("{name}={}", ours.map_or_else(|| value.to_owned(), encode))
        });
        Some(fields.collect::<Vec<_>>().join("&").into())
    }
}

const PLAIN: &percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC;

fn login_of(url: &Url) -> Option<(&str, &str)> {
    match &url.login {
        Login::None => None,
        Login::User { email, password } => Some((email, password)),
        Login::Thing { key, token } => Some((key, token)),
    }
}

/// An answer of then.
pub(super) fn read(bytes: &[u8]) -> Option<Answer> {
    let (head, body) = split(bytes)?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(answer_of(status, body))
}

fn answer_of(status: u16, body: &[u8]) -> Answer {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            lines::hide(&mut value);
            value.to_string()
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    // The answer of the form's login is the session's id alone.
    let is_id = text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let text = if is_id { "*".repeat(24) } else { text };
    Answer { kind: "answer".to_owned(), text: format!("{status} {text}") }
}
