//! Somebody who follows the stream of events over HTTP: the text of server-sent events (the HTML
//! standard, 9.2), piece by piece, by the rights of each moment.

use std::sync::Arc;

use base::{ConnInfo, limits};
use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{App, EventReaderPlace, News, Viewer};
use crate::events::{Filter, Listener};

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

impl Following {
    /// Begins behind a number, or with what comes from now on.
    pub fn begin(
        app: &Arc<App>,
        (viewer, conn): (Viewer, ConnInfo),
        place: EventReaderPlace,
        filter: Filter,
        after: Option<u64>,
        stop: CancellationToken,
    ) -> Self {
        // Before the last number is asked for: what comes then wakes this one.
        let heard = app.events().listen();
        let after = after.unwrap_or_else(|| app.events().last());
        let first = format!("retry: {RETRY_MS}\nid: {after}\n\n").into();
        Self {
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
        }
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
