//! Masks secrets in values that leave the house.

use base::limits;
use serde_json::Value;

use super::mask::{Masker, Secrets};
use crate::app::App;
use crate::events::shown_name;

/// What stands for a secret.
const STARS: &str = "****";

/// What is a secret of an application, though no login goes by it alone (`docs/protocol/tr50.md`
/// 1.1).
const OF_APPLICATION: [&str; 2] = ["clientId", "appId"];

impl App {
    /// Masks what is secret in a value: by the names of members, and whatever is a token or the id of
    /// a session. Who calls it may take long.
    pub fn mask(&self, value: &mut Value) {
        let mut secrets = Secrets::default();
        Masker::new(self, &mut secrets, false).json(value);
    }

    /// What somebody claimed to be, or sent, as log and trail show it: short, and without tokens and
    /// ids of sessions. Devices are set up with their token as client id, or in the wrong field.
    pub fn shown(&self, text: &str) -> String {
        // More than is shown: of a secret that is cut off, the beginning would stay.
        let most = limits::REFUSED_NAME_CHARS_MAX + limits::TRACED_WORD_BYTES_MAX;
        let text: String = text.chars().take(most).collect();
        let mut bytes = text.into_bytes();
        Masker::new(self, &mut Secrets::default(), false).value(&mut bytes);
        shown_name(&String::from_utf8_lossy(&bytes))
    }
}

impl Masker<'_> {
    fn json(&mut self, value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.retain(|name, _| !OF_APPLICATION.contains(&name.as_str()));
                for (name, member) in members {
                    if self.is_secret(name) { hide(member) } else { self.json(member) }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.json(value)),
            Value::String(text) => {
                let mut bytes = std::mem::take(text).into_bytes();
                self.payload(&mut bytes);
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Hides all that is in a value.
fn hide(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(hide),
        Value::Array(values) => values.iter_mut().for_each(hide),
        Value::String(text) if text.is_empty() => {}
        Value::String(_) | Value::Number(_) => *value = STARS.into(),
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::app::tests::demo;

    #[tokio::test]
    async fn secrets_are_hidden_wherever_they_stand() {
        let (app, _) = demo();
        let mut value = json!({
            "clientId": "c", "appId": "a", "password": "p", "pin": {"value": 1234, "ts": "t"},
            "perms": {"user.token.list": true}, "name": "mower",
            "mails": [{"params": {"msg": "use demo-token-basicorg", "wifiPassword": "x"}}],
            "text": "{\"token\":\"abcdef\"}",
        });
        app.mask(&mut value);
        let expected = json!({
            "password": "****", "pin": {"value": "****", "ts": "****"},
            "perms": {"user.token.list": true}, "name": "mower",
            "mails": [{"params": {"msg": "use *******************", "wifiPassword": "****"}}],
            "text": "{\"token\":\"******\"}",
        });
        assert_eq!(value, expected);
    }
}
