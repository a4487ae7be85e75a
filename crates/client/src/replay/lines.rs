//! Recordings over TCP: one JSON value a line.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::recording::Recorded;
use super::{Answer, ClientError, Target, Url};
use crate::dial::Stream;
use crate::{REPLY_BYTES_MAX, login_text};

pub(super) struct Wire {
    stream: Stream,
    input: Vec<u8>,
}

impl Wire {
    /// Connects; logs in if the recording begins behind the login.
    pub(super) async fn open(
        target: &Target,
        url: &Url,
        first: &Recorded,
    ) -> Result<Self, ClientError> {
        let mut wire = Self { stream: target.dial(None).await?, input: Vec::new() };
        let begins = serde_json::from_slice::<Value>(&first.bytes);
        let has_login = begins.is_ok_and(|value| value["auth"].is_object());
        if let Some(login) = login_text(url).filter(|_| !has_login) {
            wire.write(login.as_bytes()).await?;
            let reply = wire.line().await?;
            let reply = crate::Reply::parse(&reply, "auth")?;
            if !reply.success() {
                return Err(ClientError::Refused(reply.failure()));
            }
        }
        Ok(wire)
    }

    async fn write(&mut self, text: &[u8]) -> Result<(), ClientError> {
        let line = [text, b"\n"].concat();
        self.stream.write_all(&line).await.map_err(ClientError::Broken)?;
        self.stream.flush().await.map_err(ClientError::Broken)
    }

    pub(super) async fn send(
        &mut self,
        url: &Url,
        frame: &Recorded,
    ) -> Result<String, ClientError> {
        let text = with_login(&frame.bytes, url);
        self.write(text.as_deref().unwrap_or(&frame.bytes)).await?;
        Ok(String::from_utf8_lossy(&frame.bytes).into_owned())
    }

    pub(super) async fn receive(&mut self) -> Result<Answer, ClientError> {
        self.line().await.map(|line| read(&line))
    }

    /// The next line. Cancel safe.
    async fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.input.drain(..=end).collect();
                line.pop();
                return Ok(line);
            }
            if self.input.len() > REPLY_BYTES_MAX {
                return Err(ClientError::ReplyTooLong);
            }
            let count = self.stream.read_buf(&mut self.input).await.map_err(ClientError::Broken)?;
            if count == 0 {
                return Err(ClientError::Closed);
            }
        }
    }
}

/// A request whose login is the URL's; none if it has none.
pub(super) fn with_login(text: &[u8], url: &Url) -> Option<Vec<u8>> {
    let login: Value = serde_json::from_str(&login_text(url)?).ok()?;
    let mut request: Value = serde_json::from_slice(text).ok()?;
    let auth = request.get_mut("auth").filter(|auth| auth.is_object())?;
    let mut recorded = auth["params"].take();
    *auth = login["auth"].clone();
    if let Some(params) = auth["params"].as_object_mut() {
        for name in ["appId", "notify"] {
            params.remove(name);
            match recorded[name].take() {
                Value::Null => {}
                value => drop(params.insert(name.to_owned(), value)),
            }
        }
    }
    serde_json::to_vec(&request).ok()
}

/// An answer as it is compared: its commands have the same names.
pub(super) fn read(line: &[u8]) -> Answer {
    let mut value = serde_json::from_slice::<Value>(line).unwrap_or_default();
    let keys = |value: &Value| {
        let keys = value.as_object().into_iter().flatten().map(|(key, _)| key.clone());
        keys.collect::<Vec<_>>().join(",")
    };
    let kind = match value.get("notify") {
        Some(notice) => format!("notify {}", notice["topic"].as_str().unwrap_or_default()),
        None => keys(&value),
    };
    hide(&mut value);
    let text = if value.is_null() {
        String::from_utf8_lossy(line).into_owned()
    } else {
        value.to_string()
    };
    Answer { kind, text }
}

/// Hides ids of sessions: what is printed may be shown around.
pub(super) fn hide(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "sessionId" => *text = "*".repeat(text.len()),
                    inner => hide(inner),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(hide),
        _ => {}
    }
}
