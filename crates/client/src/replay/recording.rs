//! Recordings: the replies of `thing.trace` with `read`, one or several, or their rows alone.

use base::{Protocol, Timestamp};
use data_encoding::BASE64;
use mqtt::Version;
use serde_json::{Deserializer, Value};

use crate::url::mqtt_version;

/// A recording that can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum BadRecording {
    /// Not JSON.
    #[error("it is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// Nothing in it.
    #[error("it has no frames; `tr50d call thing.trace '{{\"key\":…,\"read\":true}}'` gives some")]
    Empty,
    /// A row that is none.
    #[error("row {0} has no {1}")]
    Row(usize, &'static str),
}

/// The frames of a thing, in their order.
pub struct Recording {
    pub(super) frames: Vec<Recorded>,
}

/// One frame.
pub(super) struct Recorded {
    pub ts_ms: i64,
    pub outgoing: bool,
    pub door: Protocol,
    pub connection: u64,
    pub version: Option<Version>,
    pub bytes: Vec<u8>,
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, BadRecording> {
        let mut rows = Vec::new();
        for value in Deserializer::from_str(text).into_iter::<Value>() {
            collect(value?, &mut rows);
        }
        let frames = rows.iter().enumerate().map(|(index, row)| read_row(index + 1, row));
        let frames = frames.collect::<Result<Vec<_>, _>>()?;
        if frames.is_empty() { Err(BadRecording::Empty) } else { Ok(Self { frames }) }
    }

    /// The protocols of its frames.
    pub fn doors(&self) -> Vec<&'static str> {
        let mut doors: Vec<_> = self.frames.iter().map(|frame| frame.door.as_str()).collect();
        doors.sort_unstable();
        doors.dedup();
        doors
    }

    /// Whether frames came by a door that is like this protocol.
    pub fn has(&self, protocol: Protocol) -> bool {
        let alike = |frame: &Recorded| super::family(frame.door) == super::family(protocol);
        self.frames.iter().any(|frame| !frame.outgoing && alike(frame))
    }
}

/// Adds the rows of a reply, of what is under its `params`, of a list, or one row.
fn collect(value: Value, rows: &mut Vec<Value>) {
    match value {
        Value::Array(list) => rows.extend(list),
        Value::Object(mut object) => {
            for inside in ["params", "result"] {
                if let Some(inner @ (Value::Object(_) | Value::Array(_))) = object.remove(inside) {
                    return collect(inner, rows);
                }
            }
            if object.contains_key("frame") {
                rows.push(Value::Object(object));
            } else if let Some(inner) = object
                .into_iter()
                .find_map(|(_, inner)| inner.get("params").is_some().then_some(inner))
            {
                collect(inner, rows);
            }
        }
        _ => {}
    }
}

fn read_row(number: usize, row: &Value) -> Result<Recorded, BadRecording> {
    let lacks = |what| move || BadRecording::Row(number, what);
    let text = |name: &str| row[name].as_str();
    let door = text("door").and_then(|door| Protocol::ALL.into_iter().find(|p| p.as_str() == door));
    let frame = text("frame").ok_or_else(lacks("frame"))?;
    let bytes = match text("encoding") {
        Some("base64") => BASE64.decode(frame.as_bytes()).ok(),
        _ => Some(frame.as_bytes().to_vec()),
    };
    Ok(Recorded {
        ts_ms: text("ts").and_then(Timestamp::parse).ok_or_else(lacks("ts"))?.as_millis(),
        outgoing: match text("direction") {
            Some("in") => false,
            Some("out") => true,
            _ => return Err(lacks("direction")()),
        },
        door: door.ok_or_else(lacks("door"))?,
        connection: row["connection"].as_u64().unwrap_or(0),
        version: text("version").and_then(mqtt_version),
        bytes: bytes.ok_or_else(lacks("frame in base64"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_are_read_as_they_are_saved() {
        let row = r#"{"ts":"2026-03-02T08:15:00.000Z","direction":"in","door":"tcp",
            "connection":3,"frame":"{}","encoding":"text"}"#;
        let check = |text: &str, frames: usize| {
            let read = Recording::read(text).expect(text);
            assert_eq!(read.frames.len(), frames, "{text}");
            assert!(read.has(Protocol::Tcps) && !read.has(Protocol::Mqtt));
            assert_eq!(read.doors(), ["tcp"]);
        };
        check(row, 1);
        check(&format!("{row}\n{row}\n"), 2);
        check(&format!("[{row},{row}]"), 2);
        check(&format!(r#"{{"success":true,"params":{{"key":"a","result":[{row}]}}}}"#), 1);
        check(&format!(r#"{{"cmd":{{"success":true,"params":{{"result":[{row}]}}}}}}"#), 1);
        for (bad, why) in [
            ("", "no frames"),
            ("{}", "no frames"),
            ("{", "not JSON"),
            (r#"[{"frame":"x"}]"#, "row 1 has no ts"),
            (r#"[{"frame":1}]"#, "row 1 has no frame"),
        ] {
            let error = Recording::read(bad).err().expect(bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
