//! `thing.dump`: all about one thing in one reply, put together of what other commands show.

use std::sync::Arc;

use base::{ConnInfo, Failure, limits};
use rules::directory::Session;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::app::{App, Effects, Worker};
use crate::tr50::commands::target::check_may_ask;
use crate::tr50::dispatch::{Caller, execute_one};
use crate::tr50::envelope::{Body, RawParams};
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Later};
use crate::tr50::strict::Strict;

params! {
    /// Which thing.
    pub(super) struct DumpParams of Name {
        optional key: String = "key", "The thing's key; own thing by default.";
        optional thing_key: String = "thingKey", "The same.";
    }
}

/// The reply of `thing.dump`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dump {
    key: String,
    server_id: String,
    version: &'static str,
    #[serde(flatten)]
    parts: Map<String, Value>,
    /// Parts that are not there, and why.
    left_out: Map<String, Value>,
}

/// Sessions that are shown.
const SESSIONS: usize = 20;

/// Rows of each other list.
const ROWS: usize = 100;

/// `thing.dump`.
pub(super) fn dump(call: &Call<'_>, Strict(params): Strict<DumpParams>) -> Result<Later, Failure> {
    let named = params.key.or(params.thing_key).filter(|key| !key.is_empty());
    let own = || call.session.who().own_key().map(str::to_owned);
    let key = named.or_else(own).ok_or_else(|| missing("key"))?;
    check_may_ask(call, &key)?;
    let asker = Asker {
        app: call.app.clone(),
        session: call.session.clone(),
        conn: call.conn,
        worker: call.worker(),
    };
    Ok(Later::new(async move { Ok(After(asker.dump(key).await?, Effects::default())) }))
}

/// Who wants the dump.
struct Asker {
    app: Arc<App>,
    session: Arc<Session>,
    conn: ConnInfo,
    worker: Worker,
}

impl Asker {
    async fn dump(self, key: String) -> Result<Dump, Failure> {
        let (mut parts, mut left_out) = (Map::new(), Map::new());
        let asked = [
            ("diagnose", "thing.diagnose", json!({"key": key})),
            ("thing", "thing.find", json!({"key": key})),
            ("definition", "thing_def.find", Value::Null),
            (
                "sessions",
                "session.list",
                json!({"thingKey": key, "status": ["ALL"], "limit": SESSIONS}),
            ),
            ("mailbox", "mailbox.list", json!({"thingKey": key, "limit": ROWS})),
            ("files", "file.list", json!({"thingKey": key, "limit": ROWS})),
            ("log", "log.list", json!({"thingKey": key, "limit": ROWS})),
            ("events", "event.list", json!({"key": key, "limit": ROWS})),
        ];
        for (part, command, mut params) in asked {
            if part == "definition" {
                let def = parts.get("thing").and_then(|thing: &Value| thing.get("defId")).cloned();
                match def.filter(|def| !def.is_null()) {
                    Some(def) => params = json!({"id": def}),
                    None => continue,
                }
            }
            match self.ask(command, &params).await {
                Ok(value) => parts.insert(part.to_owned(), value),
                Err(failure) => {
                    left_out.insert(part.to_owned(), failure.message.into_owned().into())
                }
            };
        }
        let (app, server_id) = (self.app.clone(), self.app.server_id.to_string());
        let masked = move || {
            for part in parts.values_mut() {
                app.mask(part);
            }
            parts
        };
        let parts = self.app.offload(self.worker, masked).await?;
        Ok(Dump { key, server_id, version: env!("CARGO_PKG_VERSION"), parts, left_out })
    }

    /// The `params` of what a command replies to who wants the dump.
    async fn ask(&self, command: &'static str, params: &Value) -> Result<Value, Failure> {
        let caller = Caller::new(Some(self.session.clone()), self.conn);
        let now = self.app.clock.now();
        let params: Box<RawValue> = to_raw_value(params).map_err(|_| too_long())?;
        let mut text = Vec::new();
        let pending = {
            let body = Body { command: command.into(), params: RawParams::Json(Some(&params)) };
            execute_one(&self.app, &caller, &body, now, &mut text)?
        };
        if let Some(pending) = pending {
            let mut reply = pending.await;
            if let Some(failure) = reply.failure.take() {
                return Err(failure);
            }
            text = reply.send(|text| text);
        }
        if text.len() > limits::DUMP_PART_BYTES_MAX {
            return Err(too_long());
        }
        let mut reply: Value = serde_json::from_slice(&text).unwrap_or_default();
        Ok(reply.get_mut("params").map(Value::take).unwrap_or_default())
    }
}

fn too_long() -> Failure {
    let sentence = format!("It is longer than {} bytes.", limits::DUMP_PART_BYTES_MAX);
    Failure::new(base::Code::REPLY_TOO_LARGE, sentence)
}
