//! `thing.trace`: the frames of one thing, for those who look for what goes wrong between it and the
//! server.

use std::sync::Arc;

use base::{Failure, ThingKey, Timestamp, excerpt, limits};
use data_encoding::BASE64;
use rules::directory::{Lifetime, Principal};
use serde::Serialize;
use serde_json::Map;

use crate::app::{App, Effects, Frame, TraceEnd, TraceState};
use crate::events::{NewEvent, Target};
use crate::tr50::commands::authorize;
use crate::tr50::commands::target::check_may_ask;
use crate::tr50::params::{missing, params};
use crate::tr50::step::{After, Call, Later};
use crate::tr50::strict::Strict;

params! {
    /// Which thing, and what to do.
    pub(super) struct TraceParams of Name {
        optional key: String = "key", "The thing's key, of one that does not exist yet, too; own thing by default.";
        optional thing_key: String = "thingKey", "The same.";
        optional seconds: u64 = "seconds",
            "For how long frames are kept from now on; 60 by default, 3600 at most. A trace that there \
             is begins anew. 0 ends it.";
        optional read: bool = "read", "Shows the frames instead.";
        optional after: u64 = "after", "With `read`: only frames with a greater number.";
        optional limit: u64 = "limit",
            "With `read`: frames to return at most; all by default, and with 0.";
    }
}

/// The reply of `thing.trace`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    key: String,
    exists: bool,
    connected: bool,
    tracing: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Vec<Row>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<bool>,
}

/// One frame.
#[derive(Serialize)]
struct Row {
    number: u64,
    ts: Timestamp,
    direction: &'static str,
    door: &'static str,
    connection: u32,
    packet: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// What a frame that is no text has for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    frame: String,
    encoding: &'static str,
    redacted: bool,
}

/// What is to be done.
enum Wish {
    Start(u64),
    Stop,
    Read { after: u64, limit: usize },
}

/// `thing.trace`.
pub(super) fn trace(
    call: &Call<'_>,
    Strict(params): Strict<TraceParams>,
) -> Result<Later, Failure> {
    let wish = wish(&params)?;
    let named = params.key.or(params.thing_key).filter(|key| !key.is_empty());
    let own = || call.session.who().own_key().map(str::to_owned);
    let named = named.or_else(own).ok_or_else(|| missing("key"))?;
    check_may_ask(call, &named)?;
    let key = ThingKey::parse(&named);
    let key = key.map_err(|_| authorize::invalid_param("key", "the key of a thing"))?;
    let effects = carry_out(call, &key, &wish)?;
    let principal = Principal::Thing(call.session.org_id(), key.clone());
    let (app, worker) = (call.app.clone(), call.worker());
    Ok(Later::new(async move {
        let inner = app.clone();
        let shown = move || show(&inner, &principal, &key, &wish);
        let trace = app.offload(worker, shown).await??;
        Ok(After(trace, effects))
    }))
}

fn wish(params: &TraceParams) -> Result<Wish, Failure> {
    let only_with_read = |name: &str| authorize::invalid_param(name, "left out without read");
    if params.read.unwrap_or(false) {
        if params.seconds.is_some() {
            return Err(authorize::invalid_param("seconds", "left out beside read"));
        }
        let limit = params.limit.filter(|limit| *limit > 0).unwrap_or(u64::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        return Ok(Wish::Read { after: params.after.unwrap_or(0), limit });
    }
    match (params.after, params.limit) {
        (Some(_), _) => return Err(only_with_read("after")),
        (None, Some(_)) => return Err(only_with_read("limit")),
        (None, None) => {}
    }
    match params.seconds.unwrap_or(limits::TRACE_S) {
        0 => Ok(Wish::Stop),
        seconds @ 1..=limits::TRACE_S_MAX => Ok(Wish::Start(seconds)),
        _ => {
            let range = format!("a number of seconds from 0 to {}", limits::TRACE_S_MAX);
            Err(authorize::invalid_param("seconds", &range))
        }
    }
}

/// Begins or ends the trace. That is in the trail, and that somebody reads it from its beginning.
fn carry_out(call: &Call<'_>, key: &ThingKey, wish: &Wish) -> Result<Effects, Failure> {
    let (app, org) = (call.app, call.session.org_id());
    let principal = Principal::Thing(org, key.clone());
    let thing = app.things.get(org, key)?.map(|thing| thing.id);
    let after = match wish {
        Wish::Start(seconds) => {
            app.start_trace(call.session, &call.conn, (org, key.clone(), thing), *seconds)?;
            ("seconds".to_owned(), (*seconds).into())
        }
        Wish::Stop => {
            app.recorder.stop(&principal, TraceEnd::Stopped, app.clock.now());
            ("seconds".to_owned(), 0.into())
        }
        Wish::Read { .. } if app.recorder.find(&principal).is_none() => {
            let what = format!("A trace of thing \"{}\"", excerpt(key.as_str()));
            return Err(Failure::not_found(what));
        }
        Wish::Read { after: 0, .. } => ("read".to_owned(), true.into()),
        Wish::Read { .. } => return Ok(Effects::default()),
    };
    let id = thing.map_or_else(String::new, |id| id.to_string());
    let target = Target { kind: "thing", id, name: key.to_string() };
    let act: NewEvent = app.act(
        &call.deed("thing.trace"),
        org,
        target,
        (Map::new(), Map::from_iter([after])),
        call.now,
    );
    // What the trail can't take is not begun.
    let noted = app.note_event(act);
    match (noted, wish) {
        (Err(failure), Wish::Start(_)) => {
            app.recorder.stop(&principal, TraceEnd::Stopped, app.clock.now());
            Err(failure.into())
        }
        // It has ended, whether or not the trail has room for that.
        (Err(error), Wish::Stop) => {
            store::report(&error, "the end of a trace is not in the trail");
            Ok(Effects::default())
        }
        (noted, _) => Ok(noted?.into()),
    }
}

fn show(
    app: &Arc<App>,
    principal: &Principal,
    key: &ThingKey,
    wish: &Wish,
) -> Result<Trace, Failure> {
    let Principal::Thing(org, _) = principal else { return Err(missing("key")) };
    let sessions = app.directory().of_principal(principal);
    let found = app.recorder.find(principal);
    let state: Option<TraceState> = found.as_ref().map(|trace| trace.state());
    let ended = state.as_ref().and_then(|state| state.end);
    let mut shown = Trace {
        key: key.to_string(),
        exists: app.things.get(*org, key)?.is_some(),
        connected: sessions.iter().any(|session| session.lifetime() == Lifetime::Connection),
        tracing: state.is_some() && ended.is_none(),
        started: state.as_ref().map(|state| state.started),
        until: state.as_ref().map(|state| app.clock.shown(state.until)),
        by: state.as_ref().map(|state| state.by.clone()),
        ended: ended.map(|(at, _)| app.clock.shown(at)),
        reason: ended.map(|(_, why)| why.as_str()),
        bytes: state.as_ref().map_or(0, |state| state.bytes),
        result: None,
        last: None,
        more: None,
    };
    if let (Wish::Read { after, limit }, Some(trace)) = (wish, &found) {
        let (frames, more) = trace.frames(*after, *limit);
        shown.last = Some(frames.last().map_or(*after, |frame| frame.number));
        shown.more = more.then_some(true);
        shown.result = Some(frames.iter().map(|frame| Row::of(frame)).collect());
    }
    Ok(shown)
}

impl Row {
    fn of(frame: &Frame) -> Self {
        let what = &frame.what;
        // MQTT is no text, even if its bytes can be read as one.
        let text = match what.version {
            None => std::str::from_utf8(&frame.bytes).ok(),
            Some(_) => None,
        };
        let payload = what.payload_at.filter(|_| text.is_none());
        let payload = payload.and_then(|at| frame.bytes.get(at..));
        let payload = payload.and_then(|bytes| std::str::from_utf8(bytes).ok());
        Self {
            number: frame.number,
            ts: frame.ts,
            direction: if frame.outgoing { "out" } else { "in" },
            door: frame.door.as_str(),
            connection: frame.connection,
            packet: what.packet.to_string(),
            version: what.version,
            topic: what.topic.as_deref().map(str::to_owned),
            payload: payload.map(str::to_owned),
            frame: text.map_or_else(|| BASE64.encode(&frame.bytes), str::to_owned),
            encoding: if text.is_some() { "text" } else { "base64" },
            redacted: frame.redacted,
        }
    }
}
