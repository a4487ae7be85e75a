//! The stream of events as server-sent events (the HTML standard, 9.2): what a reader may ask for,
//! and the text that it gets. `docs/events.md` says the same for users.

use std::sync::Arc;

use base::{Code, ConnInfo, Failure, OrgId, limits};
use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::commands::event::{scope_asked, things_named, types_named};
use crate::app::{App, EventReaderPlace, News, Viewer};
use crate::events::{Filter, Listener};

/// What a reader asks for.
#[derive(Default)]
pub struct Asked {
    types: Vec<String>,
    things: Vec<String>,
    org_id: Option<OrgId>,
    org_key: Option<String>,
    include_sub_orgs: Option<bool>,
    after: Option<u64>,
}

/// Somebody who follows the stream.
pub struct Following {
    app: Arc<App>,
    viewer: Viewer,
    conn: ConnInfo,
    filter: Filter,
    after: u64,
    heard: Listener,
    /// What is sent before anything else.
    first: Option<Bytes>,
    /// When something is to be sent next, so that everybody knows that the connection is there.
    beat_at: Instant,
    /// Ends it.
    stop: CancellationToken,
    _place: EventReaderPlace,
}

impl Asked {
    /// Reads the parameters of a request's address, and the value of `Last-Event-ID`, which counts
    /// more: a browser that connects anew sends the address of the first time.
    ///
    /// # Errors
    ///
    /// A parameter is unknown or wrong.
    pub fn read<'a>(
        parameters: impl Iterator<Item = (std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>)>,
        last_event_id: Option<&str>,
    ) -> Result<Self, Failure> {
        let mut asked = Self::default();
        for (name, value) in parameters {
            let wrong = |what: &str| {
                let sentence = format!("Parameter \"{name}\" must be {what}.");
                Failure::new(Code::PARAMETER_INVALID, sentence)
            };
            let listed = || value.split(',').map(|one| one.trim().to_owned());
            match name.to_ascii_lowercase().as_str() {
                "types" | "type" => asked.types.extend(listed()),
                "thingkey" | "key" => asked.things.extend(listed()),
                "after" | "lasteventid" if value.is_empty() => {}
                "after" | "lasteventid" => {
                    let number =
                        value.trim().parse().map_err(|_| wrong("the number of an event"))?;
                    asked.after = Some(number);
                }
                "orgid" => {
                    let id = value.parse().map_err(|_| wrong("an organisation's id"))?;
                    asked.org_id = Some(id);
                }
                "orgkey" => asked.org_key = Some(value.into_owned()),
                "includesuborgs" => {
                    let flag = value.parse().map_err(|_| wrong("true or false"))?;
                    asked.include_sub_orgs = Some(flag);
                }
                // Who asks, which was read before.
                "sessionid" => {}
                _ => {
                    let name = base::excerpt(&name);
                    let sentence = format!("Parameter \"{name}\" is unknown; there are {NAMES}.");
                    return Err(Failure::new(Code::PARAMETER_INVALID, sentence));
                }
            }
        }
        if let Some(id) = last_event_id.map(str::trim).filter(|id| !id.is_empty()) {
            let wrong = "Last-Event-ID must be the number of an event.";
            let number = id.parse().map_err(|_| Failure::new(Code::PARAMETER_INVALID, wrong))?;
            asked.after = Some(number);
        }
        Ok(asked)
    }
}

/// The parameters, for who mistypes one.
const NAMES: &str = "types, thingKey, after, lastEventId, orgId, orgKey, includeSubOrgs, sessionId";

impl Following {
    /// Begins to follow.
    ///
    /// # Errors
    ///
    /// The viewer may not, asks for what there is not, or there is no place.
    pub fn begin(
        app: &Arc<App>,
        viewer: Viewer,
        conn: ConnInfo,
        asked: Asked,
        stop: CancellationToken,
    ) -> Result<Self, Failure> {
        let sight = app.sight_of(&viewer, conn);
        let sight = sight.ok_or_else(|| Failure::session_invalid("has ended."))?;
        if !sight.may_look() {
            let sentence = "Events need the permission event.list.";
            return Err(Failure::new(Code::PERMISSION_DENIED, sentence));
        }
        let named = (asked.org_id, asked.org_key.as_deref());
        let filter = Filter {
            types: types_named(&asked.types)?,
            things: things_named(asked.things)?,
            scope: scope_asked(app, &sight, named, asked.include_sub_orgs)?,
        };
        let place = app.event_readers.take(sight.org(), &viewer)?;
        // Before the last number is asked for: what comes then wakes this one.
        let heard = app.events().listen();
        let after = asked.after.unwrap_or_else(|| app.events().last());
        let first = format!("retry: {RETRY_MS}\nid: {after}\n\n").into();
        Ok(Self {
            app: app.clone(),
            viewer,
            conn,
            filter,
            after,
            heard,
            first: Some(first),
            beat_at: Instant::now() + limits::EVENT_HEARTBEAT,
            stop,
            _place: place,
        })
    }

    /// The next bytes for the reader; none at the end: its session or the server has ended, or the
    /// store failed.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            let sight = self.app.sight_of(&self.viewer, self.conn)?;
            let worker = self.viewer.worker(sight.org());
            let read = self.app.events_after(
                self.after,
                &self.filter,
                &sight,
                worker,
                limits::EVENTS_AT_ONCE,
            );
            let stop = self.stop.clone();
            let news = tokio::select! {
                news = read => news.ok()?,
                () = stop.cancelled() => return None,
            };
            self.after = news.next;
            let text = text_of(&news);
            let work = limits::EVENT_WORK * (news.events.len() as u32 + 1);
            if !text.is_empty() {
                // Others first: whoever reads events waits for them.
                self.app.pace.wait(work).await;
                self.beat_at = Instant::now() + limits::EVENT_HEARTBEAT;
                return Some(text.into());
            }
            if news.more {
                self.app.pace.wait(work).await;
                continue;
            }
            tokio::select! {
                // In a flood, many come in one piece.
                () = self.heard.changed() => tokio::select! {
                    () = sleep(limits::EVENTS_TOGETHER) => {}
                    () = stop.cancelled() => return None,
                },
                () = sleep_until(self.beat_at) => {
                    self.beat_at += limits::EVENT_HEARTBEAT;
                    // Also how far it is: who connects anew goes on there.
                    self.app.sight_of(&self.viewer, self.conn)?;
                    return Some(format!(": heartbeat\nid: {}\n\n", self.after).into());
                }
                () = stop.cancelled() => return None,
            }
        }
    }
}

/// After how long a browser connects anew.
const RETRY_MS: u32 = 2000;

fn text_of(news: &News) -> Vec<u8> {
    let bytes: usize = news.events.iter().map(|event| event.text.len() + 96).sum();
    let mut text = Vec::with_capacity(if bytes == 0 { 0 } else { bytes + 64 });
    if let Some(first) = news.gone {
        // Of numbers that are not there yet, the reader has to forget its own.
        if news.events.is_empty() {
            text.extend_from_slice(format!("id: {}\n", news.next).as_bytes());
        }
        let resync = format!("event: resync\ndata: {{\"first\":{first}}}\n\n");
        text.extend_from_slice(resync.as_bytes());
    }
    for event in &news.events {
        let head = format!("id: {}\nevent: {}\ndata: ", event.number, event.kind);
        text.extend_from_slice(head.as_bytes());
        text.extend_from_slice(&event.text);
        text.extend_from_slice(b"\n\n");
    }
    text
}
